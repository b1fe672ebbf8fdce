"""The documented home of the names of Kubernetes, which live in tracarbon-k8s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracarbon._forwarding import forward

if TYPE_CHECKING:
    from tracarbon_k8s import Container as Container
    from tracarbon_k8s import Kubernetes as Kubernetes
    from tracarbon_k8s import Pod as Pod

__getattr__ = forward(__name__, dict.fromkeys(("Container", "Kubernetes", "Pod"), "tracarbon-k8s"))

"""Energy and carbon of every container of a node: the generators `energy_kubernetes` and `carbon_kubernetes`.

What a node spends in a window is split by what its containers used in it, such that the parts add up to the whole: see
`_attribution`. Usage comes from the node's own cgroups or from the metrics API, names from the API server.
"""

from __future__ import annotations

from tracarbon_k8s._attribution import IdlePolicy
from tracarbon_k8s.containers import Container, Kubernetes, Pod
from tracarbon_k8s.generators import CarbonEmissionKubernetesGenerator, EnergyConsumptionKubernetesGenerator
from tracarbon_k8s.options import KubernetesOptions

__all__ = [
    "CarbonEmissionKubernetesGenerator",
    "Container",
    "EnergyConsumptionKubernetesGenerator",
    "IdlePolicy",
    "Kubernetes",
    "KubernetesOptions",
    "Pod",
]

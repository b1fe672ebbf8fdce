"""The documented home of `PrometheusExporter`, which lives in tracarbon-exporter-prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracarbon._forwarding import forward

if TYPE_CHECKING:
    from tracarbon_exporter_prometheus import PrometheusExporter as PrometheusExporter

__getattr__ = forward(__name__, {"PrometheusExporter": "tracarbon-exporter-prometheus"})

"""Exporters, and the metrics that they export. Each name is loaded when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracarbon._forwarding import offer

if TYPE_CHECKING:
    from tracarbon_exporter_datadog import DatadogExporter as DatadogExporter
    from tracarbon_exporter_prometheus import PrometheusExporter as PrometheusExporter

    from tracarbon.exporters.exporter import Exporter as Exporter
    from tracarbon.exporters.exporter import MetricGenerator as MetricGenerator
    from tracarbon.exporters.json_exporter import JSONExporter as JSONExporter
    from tracarbon.exporters.stdout import StdoutExporter as StdoutExporter
    from tracarbon.metrics import Batch as Batch
    from tracarbon.metrics import Metric as Metric
    from tracarbon.metrics import MetricKind as MetricKind
    from tracarbon.metrics import Record as Record
    from tracarbon.metrics import Tag as Tag
    from tracarbon.metrics import Window as Window
    from tracarbon.report import MetricReport as MetricReport

_HOMES = {
    "Batch": "tracarbon.metrics",
    "DatadogExporter": "tracarbon-exporter-datadog",
    "Exporter": "tracarbon.exporters.exporter",
    "JSONExporter": "tracarbon.exporters.json_exporter",
    "Metric": "tracarbon.metrics",
    "MetricGenerator": "tracarbon.exporters.exporter",
    "MetricKind": "tracarbon.metrics",
    "MetricReport": "tracarbon.report",
    "PrometheusExporter": "tracarbon-exporter-prometheus",
    "Record": "tracarbon.metrics",
    "StdoutExporter": "tracarbon.exporters.stdout",
    "Tag": "tracarbon.metrics",
    "Window": "tracarbon.metrics",
}

__all__, __getattr__, __dir__ = offer(__name__, _HOMES)

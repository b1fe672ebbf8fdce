"""The documented home of `DatadogExporter`, which lives in tracarbon-exporter-datadog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracarbon._forwarding import forward

if TYPE_CHECKING:
    from tracarbon_exporter_datadog import DatadogExporter as DatadogExporter

__getattr__ = forward(__name__, {"DatadogExporter": "tracarbon-exporter-datadog"})

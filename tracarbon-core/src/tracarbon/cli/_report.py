"""The closing report, for humans."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from tracarbon._text import human
from tracarbon.cli._tables import render_table
from tracarbon.exporters.exporter import MetricReport
from tracarbon.metrics import MetricKind
from tracarbon.report import TracarbonReport


def render_report(report: TracarbonReport, troubles: Iterable[str] = (), co2g_per_kwh: float | None = None) -> str:
    """Return the report as lines of text: totals, means, where the figures come from, and what did not work."""
    lines = [_headline(report)]
    rows = [_row(name, item) for name, item in report.metric_report.items()]
    if not rows:
        lines.append("  nothing was measured")
    lines += render_table(rows).splitlines()
    lines += [f"  {method}" for method in _methods(report, co2g_per_kwh)]
    lines += [f"  {trouble}" for trouble in troubles]
    return "\n".join(lines)


def _headline(report: TracarbonReport) -> str:
    start, end = report.start_time, report.end_time
    if start is None or end is None:
        return "tracarbon report"
    return f"tracarbon report: {_duration((end - start).total_seconds())}, {_clock(start)} to {_clock(end)}"


def _clock(instant: datetime) -> str:
    return instant.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h {minutes:02d}m {seconds:02.0f}s"
    return f"{minutes}m {seconds:04.1f}s" if minutes else f"{seconds:.1f}s"


def _row(name: str, item: MetricReport) -> tuple[str, ...]:
    total = f"{human(item.total):>10} {item.total_unit or ''}"
    band = f"({human(item.total_band.low)} to {human(item.total_band.high)})" if item.total_band else ""
    if item.metric.kind is MetricKind.AMOUNT:
        return f"  {name}", total, band, ""
    spread = f"mean {human(item.average)}, {human(item.minimum)} to {human(item.maximum)} {item.metric.unit or ''}"
    return f"  {name}", total, band, spread


def _methods(report: TracarbonReport, co2g_per_kwh: float | None) -> list[str]:
    """Say where the figures come from, each origin once."""
    origins: dict[str, None] = {}
    for item in report.metric_report.values():
        tags = {tag.key: tag.value for tag in item.metric.tags}
        if "fidelity" in tags:
            method = f" ({tags['method']})" if "method" in tags else ""
            origins[f"energy {tags['fidelity']} by sensor {tags['sensor']}{method}"] = None
        if "source" in tags:
            factor = " ".join(tags[key] for key in ("factor_kind", "factor_date") if key in tags)
            detected = tags.get("location_from")
            known = "" if detected is None else f", location by {detected}"
            if detected == "nothing":
                known = ", since the country is unknown"
            figure = f"{co2g_per_kwh:g} g/kWh, " if co2g_per_kwh else ""
            origins[f"carbon intensity of {tags['location']}: {figure}{factor or tags['source']}{known}"] = None
    return list(origins)

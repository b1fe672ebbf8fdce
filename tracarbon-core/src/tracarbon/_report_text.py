"""A report as text, for humans."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

from tracarbon._text import human, render_table
from tracarbon.metrics import MetricKind
from tracarbon.report import MetricReport, TracarbonReport

_NO_GAP_SECONDS = 0.5
_NO_GAP = 0.02
"""A part of the run that may be missing without a word: windows begin and end some milliseconds apart."""


def render_report(report: TracarbonReport, troubles: Iterable[str] = ()) -> str:
    """Return the report as lines of text: totals, means, where the figures come from, and what did not work."""
    lines = [_headline(report)]
    rows = [_row(name, item) for name, item in report.metric_report.items()]
    if not rows:
        lines.append("  nothing was measured")
    lines += render_table(rows).splitlines()
    lines += [f"  {line}" for line in (*_gap(report), *_methods(report), *_intensities(report), *_carbon_score(report))]
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


def _gap(report: TracarbonReport) -> list[str]:
    """Say for how long the host's energy was not known, where that is worth a word."""
    start, end, host = report.start_time, report.end_time, report.metric_report.get("energy_consumption_host")
    if start is None or end is None or host is None or host.covered_seconds is None:
        return []
    seconds = (end - start).total_seconds()
    missing = seconds - host.covered_seconds
    if missing < max(_NO_GAP_SECONDS, _NO_GAP * seconds):
        return []
    return [
        f"energy_consumption_host is of {_duration(host.covered_seconds)} of {_duration(seconds)}: the rest is unknown"
    ]


def _intensity(report: TracarbonReport) -> str:
    """The intensity that was used last, and, where it is another one, the mean that energy and carbon come to."""
    last = report.co2g_per_kwh
    if last is None:
        return ""
    energy, carbon = (report.metric_report.get(f"{name}_host") for name in ("energy_consumption", "carbon_emission"))
    if energy is None or carbon is None or energy.total <= 0 or energy.total_unit != "Wh":
        return f"{last:g} g/kWh, "
    mean = carbon.total / energy.total * 1000.0
    return f"{last:g} g/kWh, " if math.isclose(mean, last, rel_tol=5e-3) else f"{last:g} g/kWh, mean {mean:.4g}, "


def _intensities(report: TracarbonReport) -> list[str]:
    """Say how long each carbon intensity was used, where it was not the same all the time."""
    seconds_by_source = report.seconds_by_intensity
    if len(seconds_by_source) < 2:
        return []
    uses = ", ".join(f"{source} for {_duration(seconds)}" for source, seconds in seconds_by_source.items())
    return [f"carbon intensities used: {uses}"]


def _carbon_score(report: TracarbonReport) -> list[str]:
    """Say what the software carbon intensity of ISO/IEC 21031, (E x I + M) per R, is; R is left to the reader."""
    totals = {name: item.total for name, item in report.metric_report.items()}
    embodied = totals.get("carbon_emission_embodied")
    if embodied is None or "carbon_emission_host" not in totals:
        return []
    tags = {tag.key: tag.value for tag in report.metric_report["carbon_emission_embodied"].metric.tags}
    share = float(tags.get("share", 1.0))
    operational = share * (totals["carbon_emission_host"] + totals.get("carbon_emission_overhead", 0.0))
    of_share = "" if share == 1.0 else f" for {share:g} of the machine"
    return [
        f"SCI (ISO/IEC 21031): E x I + M = {human(operational)} + {human(embodied)} = {human(operational + embodied)} "
        f"co2g{of_share}; divide by your number of functional units R"
    ]


def _methods(report: TracarbonReport) -> list[str]:
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
            figure = _intensity(report)
            origins[f"carbon intensity of {tags['location']}: {figure}{factor or tags['source']}{known}"] = None
    return list(origins)

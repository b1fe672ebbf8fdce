"""What the metrics are, in words, for `HELP`."""

from __future__ import annotations

from tracarbon.metrics import MetricKind, Record

_ENERGY = "energy_consumption_"
_CARBON = "carbon_emission_"
_SUBJECTS = {
    "host": "the whole machine",
    "cpu": "the processors",
    "memory": "the memory",
    "gpu": "the graphics processors",
    "device": "one device",
    "kubernetes_total": "the container, in all",
    "kubernetes_cpu": "the container, on the processors",
    "kubernetes_memory": "the container, in the memory",
    "kubernetes_gpu": "the container, on the graphics processors",
}


def describe_gauge(record: Record) -> str:
    """Return what the latest value of a record's series is."""
    subject = _subject(record.name)
    if subject and record.kind is MetricKind.RATE:
        return f"Mean power of {subject} over the last window, in {record.unit}."
    if subject and record.kind is MetricKind.AMOUNT:
        return f"CO2e emitted for {subject} in the last window, in {_spelt(record.unit)}."
    unit = f", in {record.unit}" if record.unit else ""
    what = {
        MetricKind.RATE: "mean over the last window",
        MetricKind.AMOUNT: "sum of the last window",
        MetricKind.LEVEL: "latest value",
    }[record.kind]
    return f"{record.name}: {what}{unit}."


def describe_total(record: Record, unit: str) -> str:
    """Return what the total of a record's series is."""
    subject = _subject(record.name)
    if subject and unit == "joules":
        return f"Energy used by {subject} since tracarbon was started."
    if subject and unit == "grams":
        return f"CO2e emitted for {subject} since tracarbon was started."
    return f"{record.name}: total since tracarbon was started{f', in {unit}' if unit else ''}."


def _subject(name: str) -> str | None:
    for prefix in (_ENERGY, _CARBON):
        if name.startswith(prefix):
            return _SUBJECTS.get(name.removeprefix(prefix))
    return None


def _spelt(unit: str | None) -> str:
    return {"co2g": "grams", "co2mg": "milligrams"}.get(unit or "", unit or "")

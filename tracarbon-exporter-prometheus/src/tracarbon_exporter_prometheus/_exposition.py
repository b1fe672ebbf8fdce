"""The two text formats of Prometheus: names, labels, headers, and lines with a value behind each.

The lines of the classic format (text/plain; version=0.0.4) and of OpenMetrics 1.0 are the same here; only the headers
of their families differ. What comes before a line's value never changes, so that a scrape is little more than a join.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

CLASSIC_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OPENMETRICS_END = "# EOF\n"

_OPENMETRICS_VERSIONS = ("", "0.0.1", "1.0.0")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]")


class Kind(Enum):
    """The types of metrics that are used here, by their names in OpenMetrics."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"
    SUMMARY = "summary"


_SUFFIXES = {Kind.COUNTER: "_total", Kind.INFO: "_info"}


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """A metric family.

    Attributes:
        name: without `_total` or `_info`, as OpenMetrics has it.
        kind: its type.
        description: for humans, one sentence.
        unit: a base unit, which the name has to end in; empty where there is none.
    """

    name: str
    kind: Kind
    description: str
    unit: str = ""

    @property
    def sample_name(self) -> str:
        """The name in front of the labels of its samples."""
        return self.name + _SUFFIXES.get(self.kind, "")

    @property
    def names(self) -> frozenset[str]:
        """Every name that it takes up in either format."""
        if self.kind is Kind.SUMMARY:
            return frozenset((self.name, f"{self.name}_sum", f"{self.name}_count"))
        return frozenset((self.name, self.sample_name))

    def line(self, labels: Mapping[str, str], suffix: str = "") -> str:
        """Return all of a sample's line that comes before its value."""
        return f"{self.sample_name}{suffix}{{{format_labels(labels)}}} " if labels else f"{self.sample_name}{suffix} "

    def header(self, *, openmetrics: bool) -> str:
        """Return the lines that describe it."""
        name = self.name if openmetrics else self.sample_name
        kind = "gauge" if self.kind is Kind.INFO and not openmetrics else self.kind.value
        unit = f"# UNIT {name} {self.unit}\n" if openmetrics and self.unit else ""
        description = _escaped(self.description, quotes=openmetrics)
        return f"# HELP {name} {description}\n# TYPE {name} {kind}\n{unit}"


Samples: TypeAlias = Mapping[str, float]
"""Values by what comes before them in their lines."""
Exposition: TypeAlias = Iterable[tuple[Family, Samples]]


def render(exposition: Exposition, *, openmetrics: bool) -> str:
    """Return families and their samples as text, without the end mark of OpenMetrics."""
    pieces: list[str] = []
    for family, samples in exposition:
        pieces.append(family.header(openmetrics=openmetrics))
        pieces += [f"{line}{value!r}\n" for line, value in samples.items()]
    return "".join(pieces)


def metric_name(text: str) -> str:
    """Return `text` as a valid name of a metric; colons are for recording rules."""
    return _begun_properly(_NOT_IN_NAMES.sub("_", text))


def label_name(text: str) -> str:
    """Return `text` as a valid name of a label; a beginning of two underscores is reserved for Prometheus itself."""
    name = _begun_properly(_NOT_IN_NAMES.sub("_", text))
    return f"_{name.lstrip('_')}" if name.startswith("__") else name


def _begun_properly(name: str) -> str:
    return f"_{name}" if not name or name[0].isdigit() else name


def format_labels(labels: Mapping[str, str]) -> str:
    """Return labels as they stand between the braces; where two get one name, a semicolon joins their values."""
    named: dict[str, str] = {}
    for key in sorted(labels):
        name, value = label_name(key), labels[key]
        named[name] = f"{named[name]};{value}" if name in named else value
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(named.items()))


def _escaped(text: str, *, quotes: bool = True) -> str:
    # Names of files and processes that are no UTF-8 come with lone surrogates.
    valid = text.encode("utf-8", "backslashreplace").decode("utf-8")
    escaped = valid.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if quotes else escaped


def wants_openmetrics(accept: str) -> bool:
    """Whether an `Accept` header prefers OpenMetrics; who states no preference gets the classic format.

    Weights (`q`) count, and of two formats with the same weight OpenMetrics is chosen.
    """
    openmetrics = classic = 0.0
    for media_type, parameters, weight in _preferences(accept):
        version = parameters.get("version", "").strip('"')
        if media_type == "application/openmetrics-text" and version in _OPENMETRICS_VERSIONS:
            openmetrics = max(openmetrics, weight)
        elif media_type == "text/plain":
            classic = max(classic, weight)
    return openmetrics > 0 and openmetrics >= classic


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` header allows gzip, and does not prefer what is not compressed."""
    weights = {coding: weight for coding, _, weight in _preferences(accept_encoding)}
    weight = weights.get("gzip", weights.get("*", 0.0))
    return weight > 0 and weight >= weights.get("identity", 0.0)


def _preferences(header: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Return what a client says it takes, with parameters, and weights from 0 to 1 (RFC 9110, 12.4.2)."""
    for item in header.lower().split(","):
        value, *parameters = (part.strip() for part in item.split(";"))
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        yield value, given, _weight(given.get("q", "1"))


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0

"""What is served is what the official parsers and the official renderer take it for, whatever the names and labels."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic
from tracarbon_exporter_prometheus._exposition import (
    OPENMETRICS_END,
    Exposition,
    Family,
    Kind,
    format_labels,
    label_name,
    metric_name,
    render,
)

text = st.text(max_size=12) | st.sampled_from(['a"b', "a\\n\nb", "\\", "é\U0001f600", "\udc80", "__x", "1", "a-b", ""])
labels = st.dictionaries(text, text, max_size=4)
kinds = st.sampled_from(list(Kind))
numbers = st.floats(0.0, allow_nan=False, allow_infinity=False)


@st.composite
def families(draw: st.DrawFn) -> list[tuple[Family, dict[str, float]]]:
    found, taken = [], set[str]()
    descriptions = text.map(str.strip)
    for number in range(draw(st.integers(1, 4))):
        kind, unit = draw(kinds), draw(st.sampled_from(["", "joules"]))
        stem = f"{metric_name(draw(text))}_{number}"
        family = Family(
            f"{stem}_{unit}" if unit else stem, kind, draw(descriptions), unit if kind is Kind.COUNTER else ""
        )
        assert not family.names & taken
        taken |= family.names
        found.append((family, draw(samples(family))))
    return found


@st.composite
def samples(draw: st.DrawFn, family: Family) -> dict[str, float]:
    given_labels = draw(st.lists(labels, min_size=1, max_size=3))
    if family.kind is Kind.SUMMARY:
        values = {"_count": st.integers(0, 10**6).map(float), "_sum": numbers}
        return {family.line(one, suffix): draw(values[suffix]) for one in given_labels for suffix in values}
    if family.kind is Kind.INFO:
        return {family.line(one): 1.0 for one in given_labels}
    return {family.line(one): draw(numbers) for one in given_labels}


def openmetrics(of: Exposition) -> str:
    return render(of, openmetrics=True) + OPENMETRICS_END


class Collected:
    """Families as an official registry collects them."""

    def __init__(self, of: list[Metric]) -> None:
        self._families = of

    def collect(self) -> list[Metric]:
        return self._families


def registry_of(parsed: list[Metric]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Collected(parsed))  # type: ignore[arg-type]
    return registry


def said_by(parsed: list[Metric]) -> list[tuple[str, dict[str, str], float]]:
    return [(sample.name, sample.labels, sample.value) for family in parsed for sample in family.samples]


@given(families())
def test_the_official_parsers_take_every_line(of: list[tuple[Family, dict[str, float]]]) -> None:
    classic = [*parse_classic(render(of, openmetrics=False))]
    modern = [*parse_openmetrics(openmetrics(of))]
    assert said_by(modern) == said_by(classic)
    assert len(said_by(classic)) == sum(map(len, (lines for _, lines in of)))
    assert [family.type for family in modern] == [family.kind.value for family, _ in of]
    assert [family.unit for family in modern] == [family.unit for family, _ in of]


@given(families())
def test_the_official_renderer_writes_the_same(of: list[tuple[Family, dict[str, float]]]) -> None:
    """Byte for byte, but for how it writes large numbers, in both formats."""
    parsed = [*parse_openmetrics(openmetrics(of))]
    assert without_values(generate_openmetrics(registry_of(parsed)).decode()) == without_values(openmetrics(of))
    classic = generate_latest(registry_of(parsed)).decode()
    assert without_values(classic) == without_values(render(of, openmetrics=False))


def without_values(exposition: str) -> list[str]:
    return [line if line.startswith("#") else line.rpartition(" ")[0] for line in exposition.split("\n")]


@pytest.mark.parametrize("value", [0.0, 1e-05, 1e16, 123456789.123, 5e-324, 1.7976931348623157e308, math.inf])
def test_numbers_come_back_as_they_were(value: float) -> None:
    family = Family("x", Kind.GAUGE, "")
    exposition = [(family, {family.line({}): value})]
    for parse, said in (
        (parse_classic, render(exposition, openmetrics=False)),
        (parse_openmetrics, openmetrics(exposition)),
    ):
        [parsed] = parse(said)
        assert parsed.samples[0].value == value


@pytest.mark.parametrize(
    ("given_name", "name"),
    [("energy.host", "energy_host"), ("1st", "_1st"), ("", "_"), ("a b-c", "a_b_c"), ("a:b", "a_b"), ("é", "_")],
)
def test_names_of_metrics(given_name: str, name: str) -> None:
    assert metric_name(given_name) == name


@pytest.mark.parametrize(("given_name", "name"), [("__name__", "_name__"), ("a:b", "a_b"), ("0", "_0")])
def test_names_of_labels(given_name: str, name: str) -> None:
    assert label_name(given_name) == name


def test_labels_that_get_one_name_keep_both_values() -> None:
    assert format_labels({"a-b": "1", "a.b": "2"}) == 'a_b="1;2"'


def test_labels_are_in_order() -> None:
    assert format_labels({"b": "2", "a": "1"}) == 'a="1",b="2"'

"""What records are in Datadog: names, tags, and no two that would overwrite one another."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon.metrics import Batch
from tracarbon_exporter_datadog._lines import LineWriter
from tracarbon_exporter_datadog._naming import metric_name, tag
from tracarbon_exporter_datadog._parcel import Point
from tracarbon_exporter_datadog._seconds import Seconds
from tracarbon_exporter_datadog.series import Catalogue

from tests.exporter_datadog.batches import GRAMS, JOULES, batch, record, usual, window
from tests.exporter_datadog.receivers import parse_line

WRITER = LineWriter()


def catalogue(*generators: str, **tags: str) -> Catalogue:
    return Catalogue("tracarbon", tags.items(), generators)


def points(of: Catalogue, *batches: Batch) -> list[Point]:
    return [point for one in batches for parcel in of.delivery(one).parcels for point in parcel.points]


def counted(found: list[Point]) -> dict[tuple[str, tuple[str, ...]], float]:
    return {(point.name, point.tags): point.value for point in found if point.kind == "count"}


def test_what_is_unknown_now_has_no_gauge_and_keeps_its_count() -> None:
    merged = usual(0).merged_with(batch(record(10.0, "carbon_emission_host", "co2g", number=1), number=1), 100)
    found = {(point.name, point.kind): point.value for point in points(catalogue(), merged)}
    assert found == {(JOULES, "count"): 400.0, (GRAMS, "count"): 10.25}


def test_units() -> None:
    rates = [("a", "milliwatts"), ("b", "watts")]
    found = {point.name: point.value for point in points(catalogue(), batch(*(record(5.0, *rate) for rate in rates)))}
    assert found == {"tracarbon.a": 5.0, "tracarbon.a_joules": 0.05, "tracarbon.b": 5.0, "tracarbon.b_joules": 50.0}


@pytest.mark.parametrize(
    ("unit", "name"), [("requests/s", "tracarbon.load_requests_s_seconds"), (None, "tracarbon.load_seconds")]
)
def test_rates_of_other_units(unit: str | None, name: str) -> None:
    one = record(2.0, "load")
    one.unit = unit
    assert [point.name for point in points(catalogue(), batch(one))] == ["tracarbon.load", name]


def test_the_records_own_tags_win() -> None:
    [gauge, _] = points(catalogue(env="prod", service="shop"), batch(record(tags={"env": "mine", "empty": ""})))
    assert gauge.tags == ("env:mine", "empty", "service:shop")


def test_two_generators_of_one_metric() -> None:
    """They may measure one thing in two ways: the second one's is another series."""
    both = Batch.of_window("a", window(), [record(generator="b"), record(2.0, generator="a")])
    found = counted(points(catalogue("a", "b"), both, both))
    assert found == {(JOULES, ("platform:Linux",)): 20.0, (JOULES, ("platform:Linux", "generator:b")): 400.0}


def test_a_metric_with_the_name_of_another_ones_count() -> None:
    rate, amount = record(), record(7.0, "energy_consumption_host_joules", "co2g")
    found = counted(points(catalogue(), batch(rate, amount)))
    tags = ("platform:Linux", "metric:energy_consumption_host_joules")
    assert found == {(JOULES, ("platform:Linux",)): 400.0, (JOULES, tags): 7.0}


@pytest.mark.parametrize(
    ("one", "other"),
    [({"pod": "a b"}, {"pod": "a_b"}), ({"pod": "A"}, {"pod": "a"}), ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})],
)
def test_series_that_are_one_in_datadog_are_added_up(one: dict[str, str], other: dict[str, str]) -> None:
    """It would keep the last of them alone."""
    delivery = catalogue().delivery(batch(record(1.0, tags=one), record(2.0, tags=other)))
    [parcel] = delivery.parcels
    assert [(point.kind, point.value) for point in parcel.points] == [("gauge", 3.0), ("count", 30.0)]
    assert len(delivery.keys[0]) == 2


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_finite_number_is_dropped(value: float) -> None:
    good, bad = record(), record(value, tags={"pod": "x"})
    delivery = catalogue().delivery(batch(good, bad))
    assert [parcel.dropped for parcel in delivery.parcels] == ["", "its value is no finite number"]


def test_there_are_more_series_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracarbon_exporter_datadog.series._MOST_SERIES", 3)
    many = batch(*(record(tags={"pod": str(number)}) for number in range(10)))
    of = catalogue()
    assert counted(points(of, many)) == counted(points(of, many))
    assert len(of._series) <= 3


names = st.text(min_size=1)


@given(names, st.sampled_from(["", "_joules", "_x_seconds"]))
def test_names(name: str, suffix: str) -> None:
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_.]{0,199}", metric_name(name, suffix))
    assert metric_name(name, suffix).endswith(suffix)


@given(names, st.text())
def test_tags(key: str, value: str) -> None:
    assert re.fullmatch(r"[^\W\d_][\w\-:/.]{0,199}", tag(key, value))


@given(
    st.text(alphabet=st.characters(codec="utf-8"), min_size=1),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300),
    st.dictionaries(st.text(alphabet=st.characters(codec="utf-8"), min_size=1), st.text(), max_size=4),
)
def test_lines_say_what_points_say(name: str, value: float, tags: dict[str, str]) -> None:
    """With all digits, and without a character of the user's that means anything in the protocol."""
    one = record(value, name, "co2g", tags=tags)
    [point] = points(catalogue(), batch(one))
    [line] = WRITER.lines([point])
    said = parse_line(line.decode())
    assert (said.name, said.value, said.kind) == (point.name, value, "c")
    assert said.tags == point.tags


@given(st.lists(st.tuples(st.floats(0, 1e4), st.sampled_from(["a", "b"]), st.floats(-5000, 5000)), max_size=30))
def test_no_second_is_used_twice(takes: list[tuple[float, str, float]]) -> None:
    """Whatever the clock does."""
    now, taken = 1e9, set()
    seconds = Seconds(now)
    for wanted, owner, step in takes:
        now += step
        second = seconds.take([owner], now - wanted, now)
        assert (owner, second) not in taken
        taken.add((owner, second))
        assert -3000 <= second - now + 1 <= 305 + len(takes)


def test_seconds_are_forgotten_in_time() -> None:
    seconds = Seconds(0.0)
    for number in range(12_000):
        seconds.take(["a"], 1e9 + number, 1e9 + number)
    assert len(seconds._taken["a"]) == 10_000


def test_the_container_and_the_entity_are_the_clients_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DD_ENTITY_ID", "pod-uid")
    monkeypatch.setenv("DD_EXTERNAL_ENV", "it-false")
    monkeypatch.setenv("DD_ENV", "prod")
    [line] = LineWriter().lines([Point("a", "gauge", 1.0, ("env:prod",))])
    assert b"dd.internal.entity_id:pod-uid" in line
    assert b"|e:it-false" in line
    assert line.count(b"env:prod") == 1


def test_a_line_that_the_client_does_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DD_DOGSTATSD_DISABLE", "true")
    writer: Any = LineWriter()
    with pytest.raises(ValueError, match="does not write it"):
        writer.lines([Point("a", "gauge", 1.0, ())])

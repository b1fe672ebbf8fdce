from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon.hardwares.energy import Band
from tracarbon.metrics import (
    OVERFLOW_TAG,
    Batch,
    Metric,
    MetricKind,
    Record,
    Tag,
    Window,
    merge_in_time,
    merge_side_by_side,
)

KINDS = {"watts": MetricKind.RATE, "grams": MetricKind.AMOUNT, "pods": MetricKind.LEVEL}
HOST_A, HOST_B = (Tag("host", "a"),), (Tag("host", "b"),)


def record(
    value: float,
    kind: MetricKind = MetricKind.RATE,
    seconds: float = 10.0,
    *,
    name: str = "m",
    tags: tuple[Tag, ...] = (),
    end: float = 10.0,
    band: Band | None = None,
    generator: str = "energy",
) -> Record:
    return Record(name, value, tags, "u", kind, seconds, generator, end, band)


def window(number: int, seconds: float = 10.0) -> Window:
    start = number * seconds
    return Window(start, start + seconds, 1e9 + start, 1e9 + start + seconds)


def batch(number: int, records: Iterable[Record], generator: str = "energy") -> Batch:
    return Batch.of_window(generator, window(number), records)


@st.composite
def records_of(draw: st.DrawFn, number: int, max_series: int = 6) -> list[Record]:
    names = st.sampled_from(sorted(KINDS))
    series = draw(st.lists(st.tuples(names, st.integers(0, max_series)), unique=True, max_size=12))
    return [
        record(
            draw(st.floats(-1e3, 1e3)),
            KINDS[name],
            draw(st.floats(0.0, 20.0)) if KINDS[name] is MetricKind.RATE else 10.0,
            name=name,
            tags=(Tag("series", str(index)),),
            end=window(number).end,
            band=draw(st.none() | st.builds(Band, st.floats(0, 10), st.floats(10, 20))),
        )
        for name, index in series
    ]


@st.composite
def batches(draw: st.DrawFn, at_most: int = 8) -> list[Batch]:
    return [batch(number, draw(records_of(number))) for number in range(draw(st.integers(1, at_most)))]


def totals(of: Iterable[Record]) -> dict[str, float]:
    """The integral of each rate, and the sum of each amount."""
    sums: dict[str, float] = defaultdict(float)
    for item in of:
        if item.kind is not MetricKind.LEVEL:
            sums[item.name] += item.total
    return dict(sums)


def assert_same_totals(merged: Iterable[Record], parts: Iterable[Record]) -> None:
    mine, truth = totals(merged), totals(parts)
    for name, value in truth.items():
        assert mine.get(name, 0.0) == pytest.approx(value, rel=1e-9, abs=1e-6)


def test_names_and_tags_as_documented() -> None:
    for item in (Metric(name="m", value=1.0, tags=[Tag("k", "v")]), record(1.0, tags=(Tag("k", "v"),))):
        assert item.format_name() == "m"
        assert item.format_name("p") == "p.m"
        assert item.format_name("p", "_") == "p_m"
        assert item.format_tags() == ["k:v"]
        assert item.format_tags("=") == ["k=v"]


def test_total_of_a_rate_is_its_integral() -> None:
    assert record(10.0, seconds=3.0).total == 30.0
    assert record(10.0, MetricKind.AMOUNT, 3.0).total == 10.0


def test_rates_are_averaged_over_the_time_that_they_cover() -> None:
    merged = merge_in_time(record(10.0, seconds=10.0), record(40.0, seconds=5.0, end=20.0))
    assert merged.value == pytest.approx(20.0)
    assert (merged.covered_seconds, merged.last_seen) == (15.0, 20.0)


def test_amounts_add_up_and_zero_is_an_amount() -> None:
    """T3: a 0.0 was dropped."""
    merged = merge_in_time(record(0.0, MetricKind.AMOUNT), record(0.0, MetricKind.AMOUNT))
    assert merged.value == 0.0
    assert merge_in_time(record(2.0, MetricKind.AMOUNT), record(3.0, MetricKind.AMOUNT)).value == 5.0


def test_of_levels_the_newest_counts() -> None:
    assert merge_in_time(record(7.0, MetricKind.LEVEL), record(3.0, MetricKind.LEVEL, end=20.0)).value == 3.0


def test_a_rate_that_covers_no_time_weighs_nothing() -> None:
    assert merge_in_time(record(10.0, seconds=0.0), record(20.0, seconds=0.0)).value == 20.0
    assert merge_in_time(record(10.0, seconds=5.0), record(1e9, seconds=0.0)).value == 10.0
    assert merge_side_by_side(record(10.0, seconds=0.0), record(20.0, seconds=0.0)).total == 0.0


def test_bands_merge_as_their_figures_do() -> None:
    one, other = record(10.0, seconds=10.0, band=Band(8, 12)), record(40.0, seconds=5.0)
    assert merge_in_time(one, other).band == pytest.approx(((80 + 200) / 15, (120 + 200) / 15))
    grams = merge_in_time(record(5, MetricKind.AMOUNT, band=Band(1, 9)), record(5, MetricKind.AMOUNT, band=Band(2, 8)))
    assert grams.band == Band(3, 17)
    assert merge_in_time(record(1.0), record(2.0)).band is None


@given(st.sampled_from(list(MetricKind)), st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0, 50)), min_size=3))
def test_merging_in_time_is_associative_to_rounding(kind: MetricKind, parts: list[tuple[float, float]]) -> None:
    records = [
        record(value, kind, seconds, end=float(number), band=Band(value - 1, value + 1) if number % 2 else None)
        for number, (value, seconds) in enumerate(parts)
    ]
    left = reduce(merge_in_time, records)
    right = reduce(lambda newer, older: merge_in_time(older, newer), reversed(records))
    assert left.total == pytest.approx(right.total, rel=1e-9, abs=1e-6)
    assert left.covered_seconds == pytest.approx(right.covered_seconds)
    assert left.last_seen == right.last_seen == len(records) - 1
    if kind is not MetricKind.LEVEL and left.covered_seconds:
        bands = [merged.band or Band(merged.value, merged.value) for merged in (left, right)]
        assert bands[0] == pytest.approx(bands[1], rel=1e-9, abs=1e-6)
    if kind is not MetricKind.LEVEL:
        assert_same_totals([left], records)


@given(st.tuples(st.floats(0, 1e3), st.floats(0, 50)), st.tuples(st.floats(0, 1e3), st.floats(0, 50)))
def test_merging_side_by_side_keeps_both_totals(one: tuple[float, float], other: tuple[float, float]) -> None:
    for kind in (MetricKind.RATE, MetricKind.AMOUNT):
        pair = record(one[0], kind, one[1]), record(other[0], kind, other[1])
        merged = merge_side_by_side(*pair)
        assert_same_totals([merged], pair)
        assert merged.covered_seconds == max(one[1], other[1])


def test_two_records_of_one_series_in_a_window_are_both_kept() -> None:
    twins = [record(1.0, kind, name=name) for name, kind in KINDS.items()]
    merged = batch(0, [*twins, *(replace(twin, value=5.0) for twin in twins)])
    assert {item.name: item.value for item in merged} == {"watts": 6.0, "grams": 6.0, "pods": 5.0}


def test_tags_may_come_one_by_one() -> None:
    metric = Metric(name="m", value=1.0, tags=(Tag("k", str(number)) for number in range(2)))  # type: ignore[arg-type]
    assert metric.format_tags() == ["k:0", "k:1"]


def test_tags_make_a_series() -> None:
    assert len(batch(0, [record(1.0, tags=HOST_A), record(2.0, tags=HOST_B), record(3.0)])) == 3


@given(batches(), st.integers(1, 8))
def test_merging_conserves_every_total_whatever_the_cap(parts: list[Batch], cap: int) -> None:
    merged = reduce(lambda older, newer: older.merged_with(newer, cap), parts[1:], parts[0].folded_to(cap, ()))
    assert_same_totals(merged, (item for part in parts for item in part))
    assert len(merged) <= cap + len(KINDS)
    assert all(key == item.key for key, item in merged.records.items())


@given(batches(), st.integers(1, 8), st.data())
def test_merging_conserves_in_any_grouping(parts: list[Batch], cap: int, data: st.DataObject) -> None:
    """Batches that were folded already are merged with one another when one is given back."""
    truth = [item for part in parts for item in part]
    while len(parts) > 1:
        index = data.draw(st.integers(0, len(parts) - 2))
        parts[index : index + 2] = [parts[index].merged_with(parts[index + 1], cap)]
    merged = parts[0].folded_to(cap, ())
    assert_same_totals(merged, truth)
    assert len(merged) <= cap + len(KINDS)


@given(batches())
def test_of_levels_the_newest_survive_merging(parts: list[Batch]) -> None:
    merged = reduce(lambda older, newer: older.merged_with(newer, 10_000), parts)
    newest = {key: item.value for part in parts for key, item in part.records.items() if key[0] == "pods"}
    assert {key: item.value for key, item in merged.records.items() if key[0] == "pods"} == newest


@given(batches())
def test_a_series_is_current_if_it_was_known_in_the_newest_window(parts: list[Batch]) -> None:
    merged = reduce(lambda older, newer: older.merged_with(newer, 10_000), parts)
    assert {item.key for item in merged if merged.is_current(item)} == set(parts[-1].records)
    assert (merged.window.start, merged.window.end) == (parts[0].window.start, parts[-1].window.end)


def test_a_series_is_current_by_the_windows_of_its_own_generator() -> None:
    energy = batch(0, [record(1.0, end=10.0)])
    carbon = batch(3, [record(1.0, MetricKind.AMOUNT, name="g", end=40.0, generator="carbon")], "carbon")
    merged = energy.merged_with(carbon, 10)
    assert all(merged.is_current(item) for item in merged)
    later = merged.merged_with(batch(4, []), 10)
    assert [item.name for item in later if later.is_current(item)] == ["g"]
    assert_same_totals(later, merged)


def test_overflow_is_one_series_for_each_name_and_unit() -> None:
    many = [record(1.0, tags=(Tag("pod", str(number)),), name=name) for number in range(5) for name in ("a", "b")]
    other_unit = replace(many[-1], unit="mW", tags=HOST_A)
    folded = batch(0, [*many, other_unit]).folded_to(3, ())
    overflow = {key[:2] for key in folded.records if OVERFLOW_TAG in key[1]}
    assert overflow == {
        ("a", (OVERFLOW_TAG, Tag("units", "u"))),
        ("b", (OVERFLOW_TAG, Tag("units", "u"))),
        ("b", (OVERFLOW_TAG, Tag("units", "mW"))),
    }
    assert folded.folded == 8


def test_levels_without_room_are_left_out_not_added_up() -> None:
    pods = [record(1.0, MetricKind.LEVEL, tags=(Tag("pod", str(number)),)) for number in range(5)]
    folded = batch(0, pods).folded_to(2, ())
    assert [item.tags for item in folded] == [pods[0].tags, pods[1].tags]


def test_folded_counts_each_record_once() -> None:
    many = [record(1.0, tags=(Tag("pod", str(number)),)) for number in range(5)]
    merged = batch(0, many).folded_to(3, ())
    for number in range(1, 4):
        merged = merged.merged_with(batch(number, many[:1]), 3)
    assert merged.folded == 2


def test_known_series_keep_their_place_when_new_ones_come() -> None:
    old, new = record(1.0, tags=HOST_A), record(5.0, tags=HOST_B)
    merged = batch(0, [old]).merged_with(batch(1, [new, old]), 1)
    assert merged.records[old.key].covered_seconds == 20.0
    assert new.key not in merged.records


def test_series_of_two_generators_do_not_merge() -> None:
    merged = batch(0, [record(1.0, end=10.0)]).merged_with(batch(0, [record(1.0, end=10.0, generator="b")], "b"), 10)
    assert [item.covered_seconds for item in merged] == [10.0, 10.0]


def test_a_kind_may_be_given_by_its_name() -> None:
    assert Metric(name="m", value=1.0, kind="rate").kind is MetricKind.RATE  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'speed' is not a valid MetricKind"):
        Metric(name="m", value=1.0, kind="speed")  # type: ignore[arg-type]


@pytest.mark.parametrize("tags", [None, ["x"], [("key", "value")], 5])
def test_tags_that_are_none_are_refused_with_the_name(tags: Any) -> None:
    with pytest.raises(ValueError, match="the tags of metric m are a list of Tag, not "):
        Metric(name="m", value=1.0, tags=tags)

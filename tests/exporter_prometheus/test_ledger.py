"""Totals only grow and lose nothing, gauges are those of the newest window, and a snapshot never changes."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import count as numbers_from
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon.metrics import Batch, MetricKind, Record, Tag, Window
from tracarbon_exporter_prometheus._exposition import Kind
from tracarbon_exporter_prometheus.ledger import Ledger, Snapshot

TICK_SECONDS = 10.0
UNITS = {
    "energy_consumption_host": (MetricKind.RATE, "watts"),
    "energy_consumption_gpu": (MetricKind.RATE, "milliwatts"),
    "carbon_emission_host": (MetricKind.AMOUNT, "co2g"),
    "requests": (MetricKind.AMOUNT, None),
    "load": (MetricKind.RATE, None),
    "pods": (MetricKind.LEVEL, None),
}
FOREVER = 1e12


def window(number: int) -> Window:
    start = number * TICK_SECONDS
    return Window(start, start + TICK_SECONDS, 1e9 + start, 1e9 + start + TICK_SECONDS)


def record(
    value: float = 40.0,
    name: str = "energy_consumption_host",
    *,
    number: int = 0,
    generator: str = "energy",
    seconds: float = TICK_SECONDS,
    **tags: str,
) -> Record:
    kind, unit = UNITS[name]
    end = window(number).end
    return Record(name, value, tuple(sorted(Tag(*tag) for tag in tags.items())), unit, kind, seconds, generator, end)


def batch(number: int, *records: Record, generator: str = "energy") -> Batch:
    return Batch.of_window(generator, window(number), records)


def ledger(**how: float) -> Ledger:
    how = {"max_series": 1000, "linger_seconds": 300.0, "begins_at_zero": False, **how}
    return Ledger("tracarbon", **how)  # type: ignore[arg-type]


def count(into: Ledger, *batches: Batch) -> Snapshot:
    for item in batches:
        into.publish(into.counted(item))
    return into.snapshot


def samples(snapshot: Snapshot, kind: Kind, *, now: float = 0.0) -> dict[str, float]:
    return {
        line.strip(): value
        for family, lines in snapshot.families(now, TICK_SECONDS)
        if family.kind is kind
        for line, value in lines.items()
    }


def gauges(snapshot: Snapshot, *, now: float = 0.0) -> dict[str, float]:
    return samples(snapshot, Kind.GAUGE, now=now)


def totals(snapshot: Snapshot) -> dict[str, float]:
    return samples(snapshot, Kind.COUNTER)


HOST = 'tracarbon_energy_consumption_host{location="fr",platform="Linux",units="watts"}'
HOST_JOULES = "tracarbon_energy_consumption_host_joules_total"
PLACE = {"location": "fr", "platform": "Linux", "units": "watts", "sensor": "rapl", "fidelity": "measured"}


class TestNames:
    def test_gauge_has_the_documented_labels_and_the_total_none_that_may_change(self) -> None:
        shown = count(ledger(), batch(0, record(40.0, **PLACE)))
        assert gauges(shown) == {HOST: 40.0}
        assert totals(shown) == {HOST_JOULES: 400.0}

    def test_where_a_figure_is_from_is_said_on_an_info_metric(self) -> None:
        shown = count(ledger(), batch(0, record(**PLACE)))
        labels = 'fidelity="measured",metric="tracarbon_energy_consumption_host",sensor="rapl"'
        assert samples(shown, Kind.INFO) == {f"tracarbon_provenance_info{{{labels}}}": 1.0}

    def test_what_tells_series_apart_stays_on_both(self) -> None:
        shown = count(ledger(), batch(0, record(1.0, gpu="0", **PLACE), record(2.0, gpu="1", **PLACE)))
        assert totals(shown) == {f'{HOST_JOULES}{{gpu="{number}"}}': 10.0 * (number + 1) for number in (0, 1)}
        assert [line for line in gauges(shown) if 'gpu="0"' in line]

    @pytest.mark.parametrize(
        ("name", "value", "total", "expected"),
        [
            ("energy_consumption_gpu", 1500.0, "tracarbon_energy_consumption_gpu_joules_total", 15.0),
            ("carbon_emission_host", 2.5, "tracarbon_carbon_emission_host_grams_total", 2.5),
            ("requests", 7.0, "tracarbon_requests_cumulative_total", 7.0),
            ("load", 0.5, "tracarbon_load_seconds_total", 5.0),
        ],
    )
    def test_totals_are_in_base_units(self, name: str, value: float, total: str, expected: float) -> None:
        assert totals(count(ledger(), batch(0, record(value, name)))) == {total: expected}

    def test_a_level_has_no_total(self) -> None:
        shown = count(ledger(), batch(0, record(3.0, "pods")))
        assert (gauges(shown), totals(shown)) == ({"tracarbon_pods": 3.0}, {})

    def test_a_reserved_name_is_not_served_and_that_is_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        shy = Ledger("tracarbon", max_series=10, linger_seconds=300.0, reserved=frozenset({"tracarbon_pods"}))
        shown = count(shy, batch(0, record(1.0, "pods"), record()), batch(1, record(1.0, "pods", number=1, pod="x")))
        assert not [line for line in gauges(shown) if "pods" in line]
        assert [entry.getMessage() for entry in caplog.records] == [
            "exporter prometheus: the name tracarbon_pods is taken: a gauge of that name is not served"
        ]

    def test_two_generators_of_one_metric_are_told_apart(self) -> None:
        """Their sensors may be two ways to measure one thing: added up, it would count twice."""
        second = record(30.0, generator="estimated", sensor="estimate")
        shown = count(ledger(), batch(0, record(40.0, sensor="rapl")), batch(0, second, generator="estimated"))
        assert totals(shown) == {HOST_JOULES: 400.0, f'{HOST_JOULES}{{generator="estimated"}}': 300.0}
        assert sorted(gauges(shown).values()) == [30.0, 40.0]

    def test_the_first_in_the_file_has_the_metric_without_a_label(self) -> None:
        book = Ledger("tracarbon", max_series=10, linger_seconds=300.0, generators=["energy", "again"])
        quicker = batch(0, record(30.0, generator="again"), generator="again")
        shown = count(book, quicker.merged_with(batch(0, record(40.0)), 10))
        assert gauges(shown) == {
            "tracarbon_energy_consumption_host": 40.0,
            'tracarbon_energy_consumption_host{generator="again"}': 30.0,
        }

    def test_another_sensor_or_place_does_not_begin_a_new_total(self) -> None:
        first = record(40.0, **PLACE)
        moved = {**PLACE, "sensor": "estimate", "fidelity": "estimated", "location": "de"}
        shown = count(ledger(), batch(0, first), batch(1, record(50.0, number=1, **moved)))
        assert totals(shown) == {HOST_JOULES: 900.0}
        assert gauges(shown) == {HOST.replace("fr", "de"): 50.0}


class TestComingAndGoing:
    def test_unknown_is_neither_zero_nor_the_last_value(self) -> None:
        book = ledger()
        assert gauges(count(book, batch(0, record())))
        shown = count(book, batch(1))
        assert gauges(shown) == {}
        assert totals(shown) == {HOST_JOULES: 400.0}
        assert totals(count(book, batch(2, record(1.0, number=2)))) == {HOST_JOULES: 410.0}

    def test_of_a_merged_batch_the_newest_window_says_what_is_known(self) -> None:
        merged = batch(0, record(pod="old")).merged_with(batch(1, record(1.0, number=1, pod="new")), 100)
        shown = count(ledger(), merged)
        assert list(gauges(shown)) == ['tracarbon_energy_consumption_host{pod="new"}']
        assert sum(totals(shown).values()) == 410.0

    def test_a_total_lingers_and_then_goes_into_the_sum_of_the_gone(self) -> None:
        book = ledger(linger_seconds=25.0)
        one, other = f'{HOST_JOULES}{{pod="a"}}', f'{HOST_JOULES}{{pod="b"}}'
        count(book, batch(0, record(40.0, pod="a"), record(1.0, pod="b")))
        for number in (1, 2):
            assert totals(count(book, batch(number, record(1.0, number=number, pod="b"))))[one] == 400.0
        shown = totals(count(book, batch(3, record(1.0, number=3, pod="b"))))
        assert shown == {other: 40.0, f'tracarbon_gone_joules_total{{metric="{HOST_JOULES}"}}': 400.0}
        shown = totals(count(book, batch(4, record(2.0, number=4, pod="a"))))
        assert shown[one] == 20.0
        assert sum(shown.values()) == 460.0

    def test_a_generator_that_is_silent_keeps_its_totals_and_loses_its_gauges(self) -> None:
        book = ledger(linger_seconds=20.0)
        count(book, batch(0, record(2.0, "carbon_emission_host", generator="carbon"), generator="carbon"))
        for number in range(12):
            count(book, batch(number, record(number=number)))
        shown = book.snapshot
        assert totals(shown)["tracarbon_carbon_emission_host_grams_total"] == 2.0
        assert len(gauges(shown, now=40.0)) == 2
        assert len(gauges(shown, now=120.0)) == 1

    def test_when_the_whole_pipeline_hangs_there_are_no_gauges(self) -> None:
        shown = count(ledger(), batch(0, record()))
        assert (len(gauges(shown, now=39.0)), len(gauges(shown, now=41.0))) == (1, 0)

    def test_a_name_that_nobody_has_any_more_is_free_again(self) -> None:
        book = ledger(linger_seconds=0.0)
        count(book, batch(0, record()))
        assert "tracarbon_energy_consumption_host" in book.snapshot.names
        count(book, batch(1, record(1.0, "pods", number=1)))
        assert "tracarbon_energy_consumption_host" not in book.snapshot.names


class TestBeginningAtZero:
    """Who takes differences sees what a total counts only from its first sample on."""

    def test_a_new_total_is_0_until_the_next_window(self) -> None:
        book = ledger(begins_at_zero=True)
        assert totals(count(book, batch(0, record(40.0)))) == {HOST_JOULES: 0.0}
        assert totals(count(book, batch(1, record(10.0, number=1)))) == {HOST_JOULES: 500.0}

    def test_so_is_one_that_comes_later_and_stays_for_one_window(self) -> None:
        book = ledger(begins_at_zero=True)
        count(book, batch(0, record(1.0, pod="a")))
        pod = f'{HOST_JOULES}{{pod="b"}}'
        shown = count(book, batch(1, record(1.0, number=1, pod="a"), record(40.0, number=1, pod="b")))
        assert totals(shown)[pod] == 0.0
        assert totals(count(book, batch(2, record(1.0, number=2, pod="a"))))[pod] == 400.0

    def test_one_that_a_late_batch_begins_and_ends_is_0_and_then_all_of_it_and_then_gone(self) -> None:
        """The exporter was late for longer than totals linger: the first batch has a series that is gone already."""
        book = ledger(begins_at_zero=True, linger_seconds=20.0)
        late = [batch(number, record(1.0, number=number, pod="stays")) for number in range(1, 6)]
        first = reduce(lambda older, newer: older.merged_with(newer, 100), late, batch(0, record(40.0, pod="ended")))
        ended, stays = (f'{HOST_JOULES}{{pod="{pod}"}}' for pod in ("ended", "stays"))
        assert totals(count(book, first)) == {ended: 0.0, stays: 0.0}
        assert totals(count(book, batch(6, record(1.0, number=6, pod="stays"))))[stays] == 60.0
        shown = totals(count(book, batch(9, record(1.0, number=9, pod="stays"))))
        assert shown == {stays: 70.0, f'tracarbon_gone_joules_total{{metric="{HOST_JOULES}"}}': 400.0}

    def test_another_generators_window_does_not_end_it(self) -> None:
        book = ledger(begins_at_zero=True)
        count(book, batch(0, record(40.0)))
        grams = record(2.0, "carbon_emission_host", generator="carbon")
        assert totals(count(book, batch(0, grams, generator="carbon")))[HOST_JOULES] == 0.0


class TestLimit:
    def test_what_finds_no_room_is_added_up_by_metric(self, caplog: pytest.LogCaptureFixture) -> None:
        book = ledger(max_series=2)
        for number in range(3):
            pods = [record(float(pod), number=number, pod=f"p{pod}") for pod in range(5)]
            levels = [record(1.0, "pods", number=number, pod=f"p{pod}") for pod in range(2)]
            shown = count(book, batch(number, *pods, *levels))
        assert totals(shown) == {
            f'{HOST_JOULES}{{pod="p0"}}': 0.0,
            f'{HOST_JOULES}{{pod="p1"}}': 30.0,
            f'{HOST_JOULES}{{overflow="true"}}': 270.0,
        }
        assert sum(gauges(shown).values()) == 10.0
        assert (shown.refused, shown.series) == (15, 3)
        assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
        assert "more than 2 series (max_series)" in caplog.text

    def test_so_are_metrics_of_which_there_are_too_many_by_unit(self, caplog: pytest.LogCaptureFixture) -> None:
        """Names that hold an identifier, for instance, of which there are ever new ones."""
        book = ledger(max_series=2)
        for number in range(3):
            watts = [replace(record(1.0, number=number), name=f"power_{number}_{item}") for item in range(150)]
            grams = [replace(item, name=f"of_{item.name}", unit="co2g", kind=MetricKind.AMOUNT) for item in watts]
            shown = count(book, batch(number, *watts, *grams))
        assert shown.series == 2 + 100 + 2
        assert (len(shown.gauges["energy"].samples), len(shown.names) < 1000) == (2, True)
        others = {line: value for line, value in totals(shown).items() if "_overflow_" in line}
        assert others == {
            'tracarbon_overflow_rate_watts_joules_total{overflow="true"}': 10.0 * (450 - 102),
            'tracarbon_overflow_amount_co2g_grams_total{overflow="true"}': 450.0,
        }
        assert (sum(totals(shown).values()), shown.refused) == (4500.0 + 450.0, 898)
        assert [entry.getMessage().partition(": ")[2] for entry in caplog.records] == [
            "there are more than 2 series (max_series): the others are added up by metric, labelled overflow",
            "there are more than 100 metrics without room (max_series): the others are added up by unit",
        ]

    def test_units_of_which_there_are_too_many_are_left_out(self, caplog: pytest.LogCaptureFixture) -> None:
        book = ledger(max_series=2)
        odd = [replace(record(1.0), name=f"odd_{item}", unit=f"unit_{item}") for item in range(300)]
        shown = count(book, batch(0, *odd), batch(1, *odd))
        assert (shown.series, shown.refused) == (2 + 2 * 100, 2 * 298)
        assert "too many units without room (max_series): the others are left out" in caplog.text

    def test_a_mailbox_may_have_added_up_by_metric_before(self) -> None:
        folded = batch(0, *(replace(record(1.0, pod="a"), name=f"power_{item}") for item in range(300)))
        shown = count(ledger(max_series=2), folded.folded_to(1, ()))
        assert (shown.series, sum(totals(shown).values())) == (1 + 100 + 1, 3000.0)

    def test_room_that_becomes_free_is_used(self) -> None:
        book = ledger(max_series=1, linger_seconds=0.0)
        count(book, batch(0, record(pod="a")), batch(1, record(number=1, pod="b")))
        shown = count(book, batch(2, record(number=2, pod="b")), batch(3, record(number=3, pod="b")))
        assert f'{HOST_JOULES}{{pod="b"}}' in totals(shown)


@dataclass(frozen=True)
class Step:
    """Batches, and how often each is counted in vain before it is published.

    They are those of one tick, one for each generator; or of several ticks, merged into one as the exporter was late.
    """

    batches: Sequence[Batch]
    in_vain: int


names = st.sampled_from(sorted(UNITS))
values = st.floats(0.0, 1e6) | st.floats(-10.0, 0.0)
keys = st.lists(st.tuples(names, st.sampled_from("abcdef")), unique=True, max_size=8)


@st.composite
def batches(draw: st.DrawFn, number: int, generator: str) -> Batch:
    sensor = draw(st.sampled_from(["rapl", "estimate"]))
    return batch(
        number,
        *(
            record(
                draw(values),
                name,
                number=number,
                generator=generator,
                seconds=draw(st.floats(0.0, 20.0)),
                pod=pod,
                sensor=sensor,
            )
            for name, pod in draw(keys)
        ),
        generator=generator,
    )


@st.composite
def steps(draw: st.DrawFn) -> list[Step]:
    generators = st.lists(st.sampled_from(["energy", "carbon"]), unique=True, max_size=2)
    numbers, of = numbers_from(), []
    for ticks in draw(st.lists(st.sampled_from([1, 1, 1, 2, 6]), min_size=1, max_size=12)):
        put = [draw(batches(number, generator)) for number in islice(numbers, ticks) for generator in draw(generators)]
        if ticks > 1 and put:
            put = [reduce(lambda older, newer: older.merged_with(newer, 10_000), put)]
        of.append(Step(put, draw(st.integers(0, 2))))
    return of


limits = st.tuples(st.integers(1, 12), st.sampled_from([0.0, 15.0, 45.0, FOREVER]), st.booleans())


def run_steps(
    of: Iterable[Step], max_series: int, linger_seconds: float, begins_at_zero: bool
) -> Iterable[tuple[Step, Ledger]]:
    book = ledger(max_series=max_series, linger_seconds=linger_seconds, begins_at_zero=begins_at_zero)
    for step in of:
        for item in step.batches:
            for _ in range(step.in_vain):
                book.counted(item)
            book.publish(book.counted(item))
        yield step, book


@given(steps(), limits)
def test_no_joule_and_no_gram_is_lost_or_counted_twice(of: list[Step], limits: tuple[int, float, bool]) -> None:
    """Whatever comes, goes, is counted in vain, finds no room: by unit, all totals are the sum of all records."""
    *_, (_, book) = run_steps(of, *limits)
    units = {"watts": ("joules", 1.0), "milliwatts": ("joules", 1e-3), "co2g": ("grams", 1.0)}
    put: dict[str, list[float]] = defaultdict(list)
    for item in (item for step in of for one in step.batches for item in one if item.unit):
        unit, factor = units[item.unit or ""]
        put[unit].append(max(0.0, item.total * factor))
    kept: dict[str, list[float]] = defaultdict(list)
    for family, lines in book.snapshot.totals.items():
        kept[family.unit] += lines.values()
    for held in (held for of_generator in book.snapshot.held.values() for held in of_generator):
        kept[held.family.unit].append(held.amount)
    for unit in ("joules", "grams"):
        assert math.fsum(kept[unit]) == pytest.approx(math.fsum(put[unit]), rel=1e-9, abs=1e-9)


@given(steps(), limits)
def test_totals_never_fall_but_for_those_that_were_let_go(of: list[Step], limits: tuple[int, float, bool]) -> None:
    """What a total had before it began anew is in the sum of the gone; and that never falls."""
    before: dict[str, float] = {}
    for _, book in run_steps(of, *limits):
        now = totals(book.snapshot)
        let_go = sum(value - before.get(line, 0.0) for line, value in now.items() if "_gone_" in line)
        for line, value in before.items():
            if now.get(line, 0.0) < value:
                assert "_gone_" not in line
                assert let_go >= value * (1 - 1e-9) - 1e-9 or "cumulative" in line or "_seconds_" in line
        before = now


@given(steps(), limits)
def test_memory_is_bounded(of: list[Step], limits: tuple[int, float, bool]) -> None:
    for _, book in run_steps(of, *limits):
        assert book.snapshot.series <= limits[0] + 2 * len(UNITS)


@given(steps(), limits)
def test_gauges_are_of_the_newest_window_of_each_generator(of: list[Step], limits: tuple[int, float, bool]) -> None:
    """All of them, or added up where there was no room; levels do not add up, and may be missing."""
    newest: dict[str, Batch] = {}
    for step, book in run_steps(of, *limits):
        newest |= {generator: item for item in step.batches for generator in item.windows}
        for generator, shown in book.snapshot.gauges.items():
            for family, lines in shown.samples.items():
                of_family = [
                    item
                    for item in newest[generator]
                    if (f"tracarbon_{item.name}", item.generator) == (family.name, generator)
                    and newest[generator].is_current(item)
                ]
                if family.kind is Kind.GAUGE and of_family[0].kind is not MetricKind.LEVEL:
                    expected = math.fsum(item.value for item in of_family)
                    assert math.fsum(lines.values()) == pytest.approx(expected, abs=1e-6)


@given(steps(), limits)
def test_a_snapshot_never_changes(of: list[Step], limits: tuple[int, float, bool]) -> None:
    """What a scrape has taken stays as it was, whatever is counted while it is being written out."""
    taken: list[tuple[Snapshot, dict[str, float], dict[str, float]]] = []
    for _, book in run_steps(of, *limits):
        taken.append((book.snapshot, gauges(book.snapshot), totals(book.snapshot)))
    for snapshot, shown, counted in taken:
        assert (gauges(snapshot), totals(snapshot)) == (shown, counted)

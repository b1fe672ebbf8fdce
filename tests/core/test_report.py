from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon.hardwares.energy import Band
from tracarbon.metrics import Batch, MetricKind, Record, Tag, Window
from tracarbon.report import MetricReport, ReportRecorder, TracarbonReport

EPOCH = 1_700_000_000.0


def window(start: float, end: float, wall_step: float = 0.0) -> Window:
    return Window(start, end, EPOCH + start + wall_step, EPOCH + end + wall_step)


def record(
    value: float,
    kind: MetricKind,
    unit: str | None,
    seconds: float,
    *,
    name: str = "m",
    band: Band | None = None,
    tags: tuple[Tag, ...] = (),
) -> Record:
    return Record(name, value, tags, unit, kind, seconds, "generator", 0.0, band)


def watts(value: float, seconds: float, **more: object) -> Record:
    return record(value, MetricKind.RATE, "watts", seconds, **more)  # type: ignore[arg-type]


def grams(value: float, seconds: float = 10.0, **more: object) -> Record:
    return record(value, MetricKind.AMOUNT, "co2g", seconds, **more)  # type: ignore[arg-type]


def report_of(*windows: tuple[Window, list[Record]], name: str = "m") -> MetricReport:
    recorder = ReportRecorder()
    for stretch, records in windows:
        recorder.add(Batch.of_window("generator", stretch, records))
    return recorder.snapshot("Stdout").metric_report[name]


def test_total_of_watts_is_watt_hours() -> None:
    """T8: the total of a metric in watts was the sum of the samples: 3 x 10 W = 30."""
    report = report_of(*[(window(at, at + 1200), [watts(10.0, 1200.0)]) for at in (0.0, 1200.0, 2400.0)])
    assert report.total == pytest.approx(10.0)
    assert report.average == pytest.approx(10.0)
    assert (report.total_unit, report.call_count) == ("Wh", 3)
    assert report.exporter_name == "Stdout"


def test_total_of_an_amount_is_the_sum() -> None:
    report = report_of((window(0, 10), [grams(2.0)]), (window(10, 20), [grams(0.0)]), (window(20, 30), [grams(3.0)]))
    assert (report.total, report.total_unit, report.minimum, report.call_count) == (5.0, "co2g", 0.0, 3)


def test_average_of_an_amount_is_the_mean_per_window() -> None:
    report = report_of((window(0, 0.1), [grams(0.1, 0.1)]), (window(0.1, 10), [grams(0.5, 9.9)]))
    assert (report.total, report.average) == (pytest.approx(0.6), pytest.approx(0.3))


def test_average_where_a_part_comes_back_with_the_time_that_it_was_silent() -> None:
    """One of two cards of 100 W hangs for four windows; the other one has covered that time."""
    alone = [(window(at, at + 1), [watts(100.0, 1.0)]) for at in range(1, 5)]
    report = report_of(
        (window(0, 1), [watts(200.0, 1.0)]),
        *alone,
        (window(5, 6), [watts(200.0, 3.0)]),
        (window(6, 7), [watts(200.0, 1.0)]),
    )
    assert report.total == pytest.approx(7 * 200.0 / 3600)
    assert report.average == pytest.approx(200.0)
    assert report.covered_seconds == pytest.approx(7.0)


def test_average_where_the_first_figure_is_of_several_windows() -> None:
    report = report_of(
        (window(0, 5), [grams(1.0)]),
        (window(20, 25), [watts(20.0, 20.0, name="w")]),
        (window(25, 30), [watts(20.0, 5.0, name="w")]),
        name="w",
    )
    assert report.average == pytest.approx(20.0)
    assert report.covered_seconds == pytest.approx(25.0)


def test_average_where_a_component_waits_for_a_reading_and_comes_with_all_of_it() -> None:
    report = report_of((window(0, 1), [watts(10.0, 1.0)]), (window(3, 4), [watts(20.0, 3.0)]))
    assert report.average == pytest.approx(17.5)


def test_time_that_is_unknown_is_said() -> None:
    name, recorder = "energy_consumption_host", ReportRecorder()
    recorder.started_at, recorder.ended_at = 1000.0, 1040.0
    recorder.add(Batch.of_window("generator", window(0, 30), [watts(10.0, 30.0, name=name)]))
    assert "energy_consumption_host is of 30.0s of 40.0s: the rest is unknown" in str(recorder.snapshot())
    recorder.add(Batch.of_window("generator", window(30, 39.8), [watts(10.0, 9.8, name=name)]))
    assert "is unknown" not in str(recorder.snapshot())


def test_total_of_a_level_is_the_latest() -> None:
    report = report_of(*[(window(at, at + 10), [record(at, MetricKind.LEVEL, None, 10.0)]) for at in (30.0, 20.0)])
    assert (report.total, report.total_unit, report.average) == (20.0, None, 25.0)


def test_other_rates_are_integrated_over_seconds() -> None:
    report = report_of((window(0, 10), [record(5.0, MetricKind.RATE, "milliwatts", 10.0)]))
    assert (report.total, report.total_unit) == (50.0, "milliwatts s")


@given(st.lists(st.tuples(st.floats(0.0, 1e4), st.floats(0.01, 1e4)), min_size=1))
def test_average_is_weighted_by_time_and_goes_with_the_total(parts: list[tuple[float, float]]) -> None:
    at, windows = 0.0, []
    for value, seconds in parts:
        windows.append((window(at, at + seconds), [watts(value, seconds)]))
        at += seconds
    report = report_of(*windows)
    joules = sum(value * seconds for value, seconds in parts)
    assert report.total * 3600 == pytest.approx(joules, abs=1e-6)
    assert report.average == pytest.approx(joules / sum(seconds for _, seconds in parts), abs=1e-9)
    assert (report.minimum, report.maximum) == (min(value for value, _ in parts), max(value for value, _ in parts))


def test_a_missing_window_counts_neither_in_the_average_nor_as_if_it_held_the_value() -> None:
    """L2: 0.500 Wh were reported, of which 0.333 were known."""
    report = report_of(
        (window(0, 60), [watts(10.0, 60.0)]), (window(60, 120), []), (window(120, 180), [watts(10.0, 60.0)])
    )
    assert report.total == pytest.approx(10.0 * 120 / 3600)
    assert report.average == pytest.approx(10.0)


@pytest.mark.parametrize("values", [[-5.0, -2.0], [5.0, 2.0], [0.0]])
def test_minimum_and_maximum_are_of_the_values_seen(values: list[float]) -> None:
    """L13: `maximum` started at 0.0."""
    report = report_of(*[(window(at, at + 1), [grams(value)]) for at, value in enumerate(values)])
    assert (report.minimum, report.maximum) == (min(values), max(values))


def test_average_interval_is_the_mean_over_windows_whatever_the_number_of_series() -> None:
    """T9: it was a running half-average over all series of a name."""

    def both(seconds: float) -> list[Record]:
        return [watts(1.0, seconds, tags=(Tag("pod", pod),)) for pod in ("a", "b")]

    report = report_of((window(0, 10), both(10)), (window(10, 30), both(20)), (window(30, 70), both(40)))
    assert report.average_interval_in_seconds == pytest.approx(30.0)
    assert report.call_count == 6
    assert report_of((window(0, 10), both(10))).average_interval_in_seconds is None


def test_a_wall_clock_that_is_put_back_changes_labels_alone() -> None:
    steady = report_of((window(0, 10), [watts(1, 10)]), (window(10, 20), [watts(1, 10)]))
    stepped = report_of((window(0, 10), [watts(1, 10)]), (window(10, 20, -3600), [watts(1, 10)]))
    assert stepped.average_interval_in_seconds == steady.average_interval_in_seconds == 10.0
    assert stepped.total == steady.total
    assert stepped.last_report_time == datetime.fromtimestamp(EPOCH + 20 - 3600, UTC)


def test_bands_add_up_and_measured_totals_have_none() -> None:
    banded = (window(0, 3600), [watts(10.0, 3600.0, band=Band(5, 20))])
    measured = (window(3600, 7200), [watts(10.0, 3600.0)])
    assert report_of(banded, measured).total_band == pytest.approx((15.0, 30.0))
    assert report_of(measured).total_band is None
    assert report_of((window(0, 1), [grams(3.0, band=Band(1, 9))])).total_band == (1, 9)


def test_series_of_one_name_are_added_up() -> None:
    records = [grams(value, tags=(Tag("pod", str(value)),)) for value in (1.0, 2.0)]
    report = report_of((window(0, 10), records))
    assert (report.total, report.minimum, report.maximum) == (3.0, 1.0, 2.0)


def test_documented_shape() -> None:
    report = report_of((window(0, 10), [watts(10.0, 10.0, tags=(Tag("a", "b"),))]))
    assert (report.metric.name, report.metric.value, list(report.metric.tags)) == ("m", 10.0, [Tag("a", "b")])
    assert report.last_report_time == datetime.fromtimestamp(EPOCH + 10, UTC)
    assert MetricReport(exporter_name="x", metric=report.metric).maximum == 0.0


def test_reports_of_two_runs_share_nothing() -> None:
    """T16."""
    one, other = TracarbonReport(), TracarbonReport()
    one.metric_report["m"] = report_of((window(0, 10), [grams(1.0)]))
    assert other.metric_report == {}


def test_a_report_can_be_written_as_json() -> None:
    recorder = ReportRecorder()
    recorder.started_at, recorder.ended_at = EPOCH, EPOCH + 10
    recorder.add(Batch.of_window("generator", window(0, 10), [grams(1.5, band=Band(1, 2))]))
    written = json.loads(recorder.snapshot().model_dump_json())
    assert written["metric_report"]["m"]["total"] == 1.5
    assert written["start_time"].startswith("2023-11-14")


def carbon(source: str, seconds: float, *, name: str = "carbon_emission_host") -> Record:
    tags = (Tag("factor_kind", "x"), Tag("location", "fr"), Tag("source", source))
    return grams(1.0, seconds, name=name, tags=tags)


def whole_report(*windows: list[Record]) -> TracarbonReport:
    recorder = ReportRecorder()
    for number, records in enumerate(windows):
        recorder.add(Batch.of_window("carbon", window(10.0 * number, 10.0 * number + 10), records))
    return recorder.snapshot("Stdout", 41.0)


def test_how_long_each_intensity_was_used_is_said_where_it_changed() -> None:
    report = whole_report(
        [carbon("CO2SignalAPI", 10.0), carbon("CO2SignalAPI", 10.0, name="carbon_emission_cpu")],
        [carbon("CO2SignalAPI", 50.0)],
        [carbon("last known", 20.5)],
    )
    assert report.seconds_by_intensity == {"CO2SignalAPI": 60.0, "last known": 20.5}
    assert "  carbon intensities used: CO2SignalAPI for 1m 00.0s, last known for 20.5s" in str(report).splitlines()


def test_one_intensity_is_said_once() -> None:
    assert "intensities used" not in str(whole_report([carbon("file", 10.0)], [carbon("file", 10.0)]))


def test_the_carbon_score_can_be_read_off() -> None:
    """As worked out by hand in docs/figures.md."""
    embodied = grams(34.2, name="carbon_emission_embodied")
    host, overhead = (
        grams(value, name=f"carbon_emission_{name}") for value, name in ((5.0, "host"), (1.0, "overhead"))
    )
    report = str(whole_report([host, overhead, embodied]))
    assert "SCI (ISO/IEC 21031): E x I + M = 6.000 + 34.20 = 40.20 co2g; divide by" in report
    assert "SCI" not in str(whole_report([host, overhead]))
    a_tenth = grams(3.42, name="carbon_emission_embodied", tags=(Tag("share", "0.1"),))
    report = str(whole_report([host, overhead, a_tenth]))
    assert "E x I + M = 0.6000 + 3.420 = 4.020 co2g for 0.1 of the machine; divide by" in report


def test_a_series_of_two_generators_counts_once() -> None:
    recorder = ReportRecorder()
    for generator in ("energy", "again"):
        batch = Batch.of_window(generator, window(0, 3600), [replace(watts(10.0, 3600.0), generator=generator)])
        recorder.add(batch)
    report = recorder.snapshot("Stdout").metric_report["m"]
    assert (report.total, report.call_count) == (10.0, 1)


def test_the_mean_intensity_is_said_where_it_is_not_the_last() -> None:
    tags = (Tag("location", "fr"), Tag("source", "CO2SignalAPI"))
    power = watts(100.0, 3600.0, name="energy_consumption_host")
    said = [str(whole_report([power, grams(value, name="carbon_emission_host", tags=tags)])) for value in (4.1, 8.2)]
    assert "carbon intensity of fr: 41 g/kWh, CO2SignalAPI" in said[0]
    assert "carbon intensity of fr: 41 g/kWh, mean 82, CO2SignalAPI" in said[1]

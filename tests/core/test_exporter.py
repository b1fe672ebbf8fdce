"""Exporters, generators and their reports used by themselves, as documented."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon.exporters import exporter as module
from tracarbon.exporters.exporter import Batch, Exporter, Metric, MetricGenerator, MetricKind, MetricReport, Tag

HOUR = 3600.0


class Keeping(Exporter):
    """Keeps the batches that it gets."""

    batches: list[Batch] = []  # noqa: RUF012 - each instance gets a copy

    async def export(self, batch: Batch) -> None:
        self.batches.append(batch)


class Times:
    """Stands in for the module `time` of the exporters."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_700_000_000.0 + self.now


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    times = Times()
    monkeypatch.setattr(module, "time", times)
    return times


def watts(pod: str = "a") -> Metric:
    return Metric(name="m", value=0.0, tags=[Tag("pod", pod)], unit="watts", kind=MetricKind.RATE)


def grams() -> Metric:
    return Metric(name="m", value=0.0, unit="co2g", kind=MetricKind.AMOUNT)


class TestAddMetricToReport:
    async def test_of_a_metric_as_documented(self, times: Times) -> None:
        async def value() -> float:
            return 0.0

        exporter, metric = Keeping(), Metric(name="m", value=value)
        for number in (10.0, 20.0, -3.0):
            report = await exporter.add_metric_to_report(metric=metric, value=number)
            times.now += 2.0
        assert report is exporter.metric_report["m"]
        assert (report.call_count, report.minimum, report.maximum, report.average) == (3, -3.0, 20.0, 9.0)
        assert report.average_interval_in_seconds == 2.0
        assert report.last_report_time is not None
        assert report.last_report_time.timestamp() == pytest.approx(1_700_000_104.0)
        assert (report.exporter_name, report.total) == ("Keeping", -3.0)

    async def test_watts_hold_since_the_previous_value_of_their_series(self, times: Times) -> None:
        exporter = Keeping()
        for _ in range(3):
            for pod, value in (("a", 10.0), ("b", 30.0)):
                report = await exporter.add_metric_to_report(watts(pod), value)
                times.now += 1.0
            times.now += HOUR - 2.0
        assert report.total == pytest.approx(80.0)
        assert report.total_unit == "Wh"
        assert (report.average, report.call_count) == (20.0, 6)
        assert report.average_interval_in_seconds == pytest.approx(HOUR)

    async def test_amounts_add_up(self, times: Times) -> None:
        exporter = Keeping()
        for _ in range(4):
            report = await exporter.add_metric_to_report(grams(), 0.5)
        assert (report.total, report.total_unit, report.average) == (2.0, "co2g", 0.5)

    async def test_zero_counts_and_no_number_does_not(self, caplog: pytest.LogCaptureFixture) -> None:
        """T3: 0.0 was left out."""
        exporter = Keeping()
        report = await exporter.add_metric_to_report(grams(), math.nan)
        assert report == MetricReport(exporter_name="Keeping", metric=report.metric)
        assert [message.partition(":")[0] for message in caplog.messages] == ["exporter Keeping"]
        report = await exporter.add_metric_to_report(grams(), 0.0)
        assert (report.call_count, report.minimum, report.maximum) == (1, 0.0, 0.0)

    async def test_two_exporters_share_nothing(self) -> None:
        """T16."""
        one, other = Keeping(), Keeping()
        await one.add_metric_to_report(grams(), 1.0)
        assert other.metric_report == {}


@given(
    series=st.lists(
        st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0.1, 1e4)), min_size=1, max_size=6), min_size=1, max_size=5
    )
)
def test_statistics_are_exact_over_many_series(series: list[list[tuple[float, float]]]) -> None:
    """Whatever the order in which the values of many series come, as long as each series keeps its own."""
    from tracarbon.metrics import Record, Window
    from tracarbon.report import ReportRecorder

    recorder, events = ReportRecorder(has_windows=False), []
    for number, values in enumerate(series):
        at = 1000.0 * number
        for value, seconds in values:
            at += seconds
            events.append((at, number, value, seconds))
    for at, number, value, seconds in sorted(events):
        record = Record("m", value, (Tag("s", str(number)),), "watts", MetricKind.RATE, seconds, "g", at)
        recorder.add(Batch.of_window("g", Window(at - seconds, at, at - seconds, at), [record]))
    report = recorder.snapshot().metric_report["m"]
    values = [value for _, _, value, _ in events]
    seconds_of_all = sum(seconds for *_, seconds in events)
    integral = math.fsum(value * seconds for _, _, value, seconds in events)
    assert report.call_count == len(values)
    assert (report.minimum, report.maximum) == (min(values), max(values))
    assert report.total * HOUR == pytest.approx(integral, rel=1e-9, abs=1e-3)
    assert report.average == pytest.approx(integral / seconds_of_all, rel=1e-9, abs=1e-6)
    intervals = [seconds for values in series for _, seconds in values[1:]]
    if intervals:
        assert report.average_interval_in_seconds == pytest.approx(sum(intervals) / len(intervals), rel=1e-6)
    else:
        assert report.average_interval_in_seconds is None


class TestLaunch:
    async def test_it_exports_and_reports(self, times: Times) -> None:
        generator = MetricGenerator(metrics=[watts(), Metric(name="n", value=number(3.0))])
        exporter = Keeping(metric_generators=[generator])
        await exporter.launch(generator)
        times.now += HOUR
        generator.metrics[0].value = 5.0
        await exporter.launch(metric_generator=generator)
        first, second = exporter.batches
        assert (first.window.seconds, second.window.seconds) == (0.0, HOUR)
        assert [(record.name, record.value) for record in first] == [("m", 0.0), ("n", 3.0)]
        report = exporter.metric_report["m"]
        assert (report.call_count, report.total, report.maximum) == (2, 5.0, 5.0)

    async def test_each_generator_has_its_own_window(self, times: Times) -> None:
        one, other = MetricGenerator(metrics=[watts()]), MetricGenerator(metrics=[grams()])
        exporter = Keeping()
        await exporter.launch(one)
        times.now += 5.0
        await exporter.launch(other)
        times.now += 5.0
        await exporter.launch(one)
        assert [batch.window.seconds for batch in exporter.batches] == [0.0, 0.0, 10.0]

    async def test_a_failure_is_the_callers(self) -> None:
        async def broken() -> float:
            raise OSError("the sensor is gone")

        exporter = Keeping()
        with pytest.raises(OSError, match="the sensor is gone"):
            await exporter.launch(MetricGenerator(metrics=[Metric(name="m", value=broken)]))
        assert exporter.batches == []


def number(value: float) -> Callable[[], object]:
    async def give() -> float:
        return value

    return give  # type: ignore[return-value]


class TestMetric:
    async def test_a_number_may_be_called_as_documented(self) -> None:
        metric = Metric(name="m", value=3)
        assert callable(metric.value)
        assert await metric.value() == 3.0
        assert metric.value == 3
        assert repr(metric.value) == "3.0"

    @pytest.mark.parametrize("name", ["", None, 3])
    def test_a_name_is_a_text(self, name: object) -> None:
        with pytest.raises(ValueError, match="a metric's name is a text, not"):
            Metric(name=name, value=1.0)  # type: ignore[arg-type]

    async def test_a_call_that_is_not_asynchronous_will_do(self) -> None:
        exporter = Keeping()
        await exporter.launch(MetricGenerator(metrics=[Metric(name="m", value=lambda: 4.0)]))
        assert [record.value for record in exporter.batches[0]] == [4.0]

    async def test_what_is_no_number_is_named(self) -> None:
        async def text() -> str:
            return "5"

        with pytest.raises(TypeError, match="m is '5', which is no number"):
            await Keeping().launch(MetricGenerator(metrics=[Metric(name="m", value=text)]))

    def test_unknown_stays_unknown(self) -> None:
        assert Metric(name="m", value=None).value is None

    def test_tags_are_its_own_list(self) -> None:
        one, other = Metric(name="m", value=1.0), Metric(name="m", value=1.0)
        assert isinstance(one.tags, list)
        one.tags.append(Tag(key="a", value="b"))
        assert other.tags == []

    def test_formats(self) -> None:
        metric = Metric(name="m", value=1.0, tags=[Tag(key="a", value="b"), Tag(key="c", value="d")])
        assert (metric.format_name(), metric.format_name("p"), metric.format_name("p", "_")) == ("m", "p.m", "p_m")
        assert (metric.format_tags(), metric.format_tags("=")) == (["a:b", "c:d"], ["a=b", "c=d"])

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

import pytest
from tracarbon._collect import Collector
from tracarbon.hardwares.energy import Band
from tracarbon.metrics import Batch, Metric, MetricKind, Tag, Window

WINDOW = Window(100.0, 110.0, 1e9, 1e9 + 10.0)


async def collect(metrics: Iterable[Metric], tags: tuple[Tag, ...] = ()) -> Batch:
    async def generate() -> AsyncGenerator[Metric, None]:
        for metric in metrics:
            yield metric

    return await Collector("energy", tags).collect(generate(), WINDOW)


async def test_closures_over_a_loop_variable_are_called_before_it_moves_on() -> None:
    """T1: collected first and called later, all four metrics had the value of the last one."""

    async def generate() -> AsyncGenerator[Metric, None]:
        for name, watts in (("host", 16.0), ("cpu", 12.0), ("memory", 4.0), ("gpu", 0.5)):

            async def value() -> float:
                return watts  # noqa: B023 - the trap itself

            yield Metric(name=name, value=value)

    batch = await Collector("energy").collect(generate(), WINDOW)
    assert {record.name: record.value for record in batch} == {"host": 16.0, "cpu": 12.0, "memory": 4.0, "gpu": 0.5}


async def test_zero_is_a_value_and_unknown_is_none() -> None:
    """T3: a 0.0 was dropped."""

    def giving(value: float | None) -> Callable[[], Awaitable[float | None]]:
        async def give() -> float | None:
            return value

        return give

    batch = await collect(
        [
            Metric(name="zero", value=0.0),
            Metric(name="zero_awaited", value=giving(0.0)),
            Metric(name="unknown", value=None),
            Metric(name="unknown_awaited", value=giving(None)),
        ]
    )
    assert {record.name: record.value for record in batch} == {"zero": 0.0, "zero_awaited": 0.0}


async def test_what_is_no_figure_is_left_out_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tracarbon"):
        metrics = [Metric(name="bad", value=value) for value in (math.nan, math.inf, -math.inf)]
        batch = await collect([*metrics, Metric(name="good", value=-1.0)])
    assert [record.name for record in batch] == ["good"]
    assert [message.getMessage() for message in caplog.records] == [
        "generator energy: bad is nan, which is no figure; it is left out"
    ]


async def test_a_record_has_all_that_the_metric_said() -> None:
    metric = Metric(
        name="m",
        value=3.0,
        unit="watts",
        kind=MetricKind.RATE,
        covered_seconds=4.0,
        band=Band(1, 5),
        tags=[Tag("a", "b")],
    )
    batch = await collect([metric, Metric(name="level", value=1.0)])
    record, level = batch
    assert (record.value, record.unit, record.kind, record.covered_seconds) == (3.0, "watts", MetricKind.RATE, 4.0)
    assert (record.band, record.tags, record.generator, record.last_seen) == (
        Band(1, 5),
        (Tag("a", "b"),),
        "energy",
        110.0,
    )
    assert (level.kind, level.covered_seconds, level.unit) == (MetricKind.LEVEL, 10.0, None)
    assert (batch.window, batch.windows) == (WINDOW, {"energy": WINDOW})


async def test_a_rate_that_covers_nothing_is_not_taken_to_cover_the_window() -> None:
    """T3: truthiness in place of `is None`."""
    (record,) = await collect([Metric(name="m", value=3.0, kind=MetricKind.RATE, covered_seconds=0.0)])
    assert record.total == 0.0


async def test_tags_are_sorted_and_the_metrics_own_wins() -> None:
    """L9: the order of tags is nothing that anybody may rely on."""
    common = (Tag("zone", "de"), Tag("cluster", "prod"))
    given = [[Tag("host", "a"), Tag("zone", "fr")], [Tag("zone", "fr"), Tag("host", "a")]]
    batch = await collect([Metric(name="m", value=1.0, tags=tags, kind=MetricKind.AMOUNT) for tags in given], common)
    (record,) = batch
    assert record.tags == (Tag("cluster", "prod"), Tag("host", "a"), Tag("zone", "fr"))
    assert record.value == 2.0


async def test_two_metrics_of_one_series_are_both_counted() -> None:
    (record,) = await collect([Metric(name="m", value=value, kind=MetricKind.AMOUNT) for value in (1.0, 2.0)])
    assert record.value == 3.0


async def test_a_generator_that_raises_midway_gives_no_batch() -> None:
    async def generate() -> AsyncGenerator[Metric, None]:
        yield Metric(name="m", value=1.0)
        raise OSError("midway")

    with pytest.raises(OSError, match="midway"):
        await Collector("energy").collect(generate(), WINDOW)


async def test_a_value_that_raises_ends_the_generator_properly() -> None:
    ended = []

    async def broken() -> float:
        raise OSError("value")

    async def generate() -> AsyncGenerator[Metric, None]:
        try:
            yield Metric(name="m", value=broken)
        finally:
            ended.append(True)

    with pytest.raises(OSError, match="value"):
        await Collector("energy").collect(generate(), WINDOW)
    assert ended == [True]


async def test_known_tags_are_bounded() -> None:
    """Pods come and go for ever."""
    from tracarbon import _collect

    collector = Collector("k8s")
    for start in range(0, 2 * _collect._MAX_KNOWN_TAGS, 5000):

        async def generate(start: int = start) -> AsyncGenerator[Metric, None]:
            for number in range(start, start + 5000):
                yield Metric(name="m", value=1.0, tags=(Tag("pod", str(number)),))

        batch = await collector.collect(generate(), WINDOW)
        assert len(batch) == 5000
    assert len(collector._known_tags) <= _collect._MAX_KNOWN_TAGS

"""What an exporter has to keep to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from tracarbon._discovery import EXPORTER, Kind
from tracarbon.exceptions import PermanentExportError, RetryableExportError
from tracarbon.exporters.exporter import Batch, MetricKind, Record, Tag, Window
from tracarbon.testing._contract import PluginContract

Fault: TypeAlias = Literal["retryable", "permanent", "mixed"]
Arrived: TypeAlias = Sequence[tuple[str, float]]

_MAX_SERIES = 1000
_HOST = (Tag("host", "kit"),)


class ExporterContract(PluginContract):
    """The standard tests of an exporter. The author says what has arrived, and how the receiver fails."""

    _kind: ClassVar[Kind] = EXPORTER

    # To be given by the author.

    def arrived(self, folder: Path) -> Iterable[tuple[str, float]]:
        """Return the name and value of everything that has arrived so far, each as often as it arrived.

        The names may have a prefix.
        """
        raise NotImplementedError("say what has arrived: override arrived()")

    def failing(self, fault: Fault, folder: Path) -> AbstractContextManager[object]:
        """Return a context manager within which the receiver fails.

        Args:
            fault: `retryable`: takes nothing now; `permanent`: refuses for good; `mixed`: takes a part, and says which.
            folder: the test's.
        """
        raise NotImplementedError(f"let the receiver fail: override failing() for {fault!r}, or that test")

    # The tests.

    def test_a_batch_arrives(self) -> None:
        """Every record, once."""

        async def deliver(folder: Path) -> None:
            async with self._made(folder) as exporter, exporter:
                await self._call(exporter.export(batch()))
            self._check(folder, batch())

        self._on_each_loop(deliver)

    def test_leaving_it_flushes(self) -> None:
        """What was exported has arrived when `__aexit__` is done, several batches as well."""

        async def deliver(folder: Path) -> None:
            async with self._made(folder) as exporter:
                async with exporter:
                    for number in range(3):
                        await self._call(exporter.export(batch(number)))
                arrived = [*self.arrived(folder)]
            newest = {record.name: record.value for record in batch(2)}
            for name, value in newest.items():
                assert any(_is(got, name) and _near(number, value) for got, number in arrived), (
                    f"{name} of the last batch, {value}, has not arrived when it was left: {arrived}"
                )

        self._on_each_loop(deliver)

    def test_an_empty_batch_is_nothing(self) -> None:
        """A batch without records neither fails nor arrives."""

        async def deliver(folder: Path) -> None:
            async with self._made(folder) as exporter, exporter:
                await self._call(exporter.export(Batch({}, {}, _window(0))))
            arrived = [*self.arrived(folder)]
            assert not arrived, f"from an empty batch came {arrived}"

        self._on_each_loop(deliver)

    def test_a_merged_batch_keeps_its_totals(self) -> None:
        """Two windows merged: amounts added up, rates averaged, levels the latest; not two windows again."""

        async def deliver(folder: Path) -> None:
            merged = batch(0).merged_with(batch(1), _MAX_SERIES)
            async with self._made(folder) as exporter, exporter:
                await self._call(exporter.export(merged))
            self._check(folder, merged)

        self._on_each_loop(deliver)

    def test_what_fails_for_now_is_tried_again(self) -> None:
        """A receiver that takes nothing now is told of by an exception; afterwards all arrives once."""

        async def deliver(folder: Path) -> None:
            async with self._made(folder) as exporter, exporter:
                left = batch()
                with self.failing("retryable", folder):
                    try:
                        await self._call(exporter.export(left))
                    except PermanentExportError as error:
                        raise AssertionError("a fault that passes was taken for a permanent one") from error
                    except Exception as error:
                        left = getattr(error, "remaining", None) or left
                    else:
                        raise AssertionError("the receiver took nothing, and export() returned: a batch is lost")
                await self._call(exporter.export(left))
            self._check(folder, batch())

        self._on_each_loop(deliver)

    def test_what_is_refused_for_good_is_given_up(self) -> None:
        """A batch that the receiver will never take raises `PermanentExportError`: it is not tried for ever."""

        async def deliver(folder: Path) -> None:
            async with self._made(folder) as exporter, exporter:
                with self.failing("permanent", folder):
                    try:
                        await self._call(exporter.export(batch()))
                    except PermanentExportError:
                        return
                    except Exception as error:
                        raise AssertionError(f"{type(error).__name__} is tried again, for ever") from error
                raise AssertionError("the receiver refused, and export() returned")

        self._on_each_loop(deliver)

    def test_what_is_taken_in_part_is_not_sent_twice(self) -> None:
        """A receiver that takes a part: `RetryableExportError(remaining=...)` has the rest, and only that."""

        async def deliver(folder: Path) -> None:
            async with self._made(folder) as exporter, exporter:
                with self.failing("mixed", folder):
                    try:
                        await self._call(exporter.export(batch()))
                    except RetryableExportError as error:
                        left = error.remaining
                    else:
                        raise AssertionError("the receiver took a part, and export() returned")
                assert left is not None, "say what is left: RetryableExportError(remaining=...)"
                assert 0 < len(left) < len(batch()), f"{len(left)} of {len(batch())} records are left"
                await self._call(exporter.export(left))
            self._check(folder, batch())

        self._on_each_loop(deliver)

    async def _use(self, plugin: Any, folder: Path) -> object:
        return await plugin.export(batch())

    def _check(self, folder: Path, expected: Batch) -> None:
        arrived = [*self.arrived(folder)]
        for record in expected:
            times = sum(_is(name, record.name) and _near(value, record.value) for name, value in arrived)
            assert times == 1, f"{record.name} = {record.value} arrived {times} times, not once: {arrived}"
        assert len(arrived) == len(expected), f"{len(expected)} records were exported, and {len(arrived)} arrived"


def batch(number: int = 0) -> Batch:
    """Return a batch of a rate, an amount and a level, over ten seconds; different for each number."""
    window = _window(number)

    def record(name: str, value: float, unit: str | None, kind: MetricKind) -> Record:
        return Record(name, value, _HOST, unit, kind, window.seconds, "kit", window.end)

    return Batch.of_window(
        "kit",
        window,
        [
            record("energy_consumption_host", 40.0 + number, "watts", MetricKind.RATE),
            record("carbon_emission_host", 0.25 + number, "co2g", MetricKind.AMOUNT),
            record("jobs", 3.0 + number, None, MetricKind.LEVEL),
        ],
    )


def _window(number: int) -> Window:
    start = 1000.0 + 10.0 * number
    return Window(start, start + 10.0, 1_700_000_000.0 + start, 1_700_000_010.0 + start)


def _is(arrived: str, name: str) -> bool:
    return arrived == name or arrived.endswith((f".{name}", f"_{name}"))


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-3 * max(1.0, abs(other))

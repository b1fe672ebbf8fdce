"""One task per component: enter the plugin, let it work, and bring it back with back-off when it fails."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio

from tracarbon._clock import Clock
from tracarbon._collect import Collector
from tracarbon._mailbox import Mailbox
from tracarbon._meter import Meter, MeterView
from tracarbon._states import Component
from tracarbon._watch import guard
from tracarbon.exceptions import (
    DeliveryUnknown,
    PermanentExportError,
    ReceiverGone,
    RetryableExportError,
    TracarbonException,
)
from tracarbon.exporters.exporter import Exporter, MetricGenerator
from tracarbon.hardwares.sensors import Sensor
from tracarbon.metrics import Batch
from tracarbon.plugin import Plugin

logger = logging.getLogger("tracarbon")

T = TypeVar("T")

FIRST_BACK_OFF_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 60.0
REENTER_AFTER_FAILURES = 3


class TimeoutExceeded(TracarbonException):
    """A plugin did not answer in time."""


def back_off_seconds(failures: int) -> float:
    """Return how long to leave a component alone after so many failures in a row."""
    return float(min(LONGEST_BACK_OFF_SECONDS, FIRST_BACK_OFF_SECONDS * 2 ** min(failures - 1, 10)))


def describe(error: BaseException) -> str:
    """Return what went wrong, in one line."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(inner) for inner in error.exceptions)
    text = " ".join(str(error).split())
    if isinstance(error, TracarbonException) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Runner(ABC):
    """Runs one component in a task of its own.

    Args:
        component: its state.
        plugin: the plugin; entered in this task and left in it.
        optional: whether the pipeline may start without it.
        clock: the pipeline's clock.
    """

    def __init__(self, component: Component, plugin: Plugin, *, optional: bool, clock: Clock) -> None:
        self.component = component
        self.plugin = plugin
        self.optional = optional
        self.clock = clock
        self.settled = anyio.Event()
        self.finished = anyio.Event()
        self.ending = anyio.Event()
        self.start_error: Exception | None = None
        self._finishing = False
        self._pause = anyio.CancelScope()
        self._failures = 0
        self._deadline = clock.deadline()
        self._is_calling = False
        self._timeout_seconds = 0.0
        self._blocking = ""

    async def run(self) -> None:
        """Enter the plugin and let it work until `finish`; after a failure, release it, wait and enter it again.

        One that is asked to finish while it waits tries once more where it still owes something.
        """
        try:
            is_wanted = not self._finishing
            while is_wanted:
                await self._run_once()
                if not self.settled.is_set():
                    self.settled.set()
                    if not self.optional:
                        return
                is_wanted = not self._finishing
                if is_wanted:
                    await self._pause_for(back_off_seconds(self._failures))
                    is_wanted = not self._finishing or self.owes_something
            self.component.stopped()
        finally:
            self.settled.set()
            self.finished.set()

    async def _run_once(self) -> None:
        try:
            async with self.plugin:
                self.entered()
                self.settled.set()
                await self.work()
        except anyio.get_cancelled_exc_class() as error:
            if anyio.current_effective_deadline() == -math.inf:
                raise
            self._note_failure(error)  # nobody cancelled this task: it is a cancellation that the plugin let slip
        except (Exception, SystemExit, BaseExceptionGroup) as error:
            if isinstance(error, BaseExceptionGroup) and error.subgroup(KeyboardInterrupt):
                raise
            self._note_failure(error)

    def _note_failure(self, error: BaseException) -> None:
        if not self.settled.is_set():
            self.start_error = error if isinstance(error, Exception) else TracarbonException(describe(error))
        self.failed(error)

    @property
    def owes_something(self) -> bool:
        """Whether something would be lost if it came to its end now."""
        return False

    def entered(self) -> None:
        """Note that the plugin was entered; after a failure, only a call that goes well says that it works again."""
        if not self._failures:
            self.component.ok()

    def failed(self, error: BaseException) -> None:
        """Note that a call into the plugin failed."""
        self._failures += 1
        self.component.failed(describe(error))
        logger.debug("%s", self.component, exc_info=error)

    def succeeded(self, problems: str = "") -> None:
        """Note that a call into the plugin went well, or well but for `problems`."""
        self._failures = 0
        reason = problems or self._blocking
        if reason:
            self.component.degraded(reason)
        else:
            self.component.ok()

    def finish(self) -> None:
        """Ask it to come to its end."""
        self._finishing = True
        self.ending.set()
        self._pause.cancel()

    async def work(self) -> None:
        """Serve until the end. A call that misses its deadline ends here, and serving goes on."""
        while True:
            with self.clock.deadline() as self._deadline:
                await self.serve()
                return
            if self._is_calling:
                self._is_calling = False
                self.timed_out(TimeoutExceeded(f"no answer within {self._timeout_seconds:g} s"))

    async def call(self, call: Coroutine[Any, Any, T], timeout_seconds: float) -> T:
        """Await a call into the plugin; when it takes longer, `timed_out` is called instead of returning.

        Raises:
            Exception: what the plugin raised.
        """
        self._is_calling, self._timeout_seconds = True, timeout_seconds
        try:
            result = await guard(call, self._deadline, timeout_seconds, self._note_blocking)
        except Exception:
            self._is_calling = False
            raise
        self._is_calling = False
        return result

    def timed_out(self, error: TimeoutExceeded) -> None:
        """Deal with a call that missed its deadline."""
        self.failed(error)

    def _note_blocking(self, seconds: float) -> None:
        # Said once, and kept: one that blocks in every call would fill the log.
        if not self._blocking:
            self._blocking = f"it blocked everybody else for {seconds:.1f} s: its code waits without `await`"
            self.component.degraded(self._blocking)

    async def _pause_for(self, seconds: float) -> None:
        if self._finishing:
            return
        with anyio.CancelScope() as self._pause:
            await self.clock.sleep_until(self.clock.monotonic() + seconds)

    @abstractmethod
    async def serve(self) -> None:
        """Do the component's work until `finish`."""


class LocationRunner(Runner):
    """Keeps a location entered."""

    def entered(self) -> None:
        """Note that it works: there are no calls to tell."""
        self.succeeded()

    async def serve(self) -> None:
        """Wait for the end."""
        await self.ending.wait()


class Sampler(Runner):
    """Reads one sensor: on its own schedule, and whenever a window is closed.

    Args:
        interval_seconds: its own schedule, or infinity where the windows' closes suffice.
        tick_seconds: the pipeline's interval; a sample that would fall together with a close is left to the close.
        timeout_seconds: how long one read may take.
        patience_seconds: one that takes longer than this to answer is asked at a close, but not waited for.
    """

    plugin: Sensor

    def __init__(
        self,
        component: Component,
        plugin: Sensor,
        meter: Meter,
        *,
        optional: bool,
        clock: Clock,
        interval_seconds: float,
        tick_seconds: float,
        timeout_seconds: float,
        patience_seconds: float,
    ) -> None:
        super().__init__(component, plugin, optional=optional, clock=clock)
        self._meter = meter
        self._interval = interval_seconds
        self._tick = tick_seconds
        self._timeout = timeout_seconds
        self._patience = patience_seconds
        self._asked = anyio.Event()
        self._answered = anyio.Event()
        self._answered.set()
        self._listening = False
        self._late = False

    def ask(self, *, is_last: bool = False) -> anyio.Event | None:
        """Ask for a fresh reading; returns the event to wait for, or `None` where there is nothing to wait for.

        The last time, one that was late is waited for as well: it has no later window to bring its joules in.
        """
        if not self._listening:
            return None
        if self._answered.is_set():
            self._answered = anyio.Event()
            self._asked.set()
        return self._answered if is_last or not self._late else None

    def note_missed_close(self) -> None:
        """Do not wait for it again until it has answered in time."""
        self._late = True

    def finish(self) -> None:
        """Ask it to come to its end."""
        super().finish()
        self._asked.set()

    async def serve(self) -> None:
        """Read until the end; a sensor that keeps failing is released and entered again."""
        self._listening = True
        try:
            while not self._finishing:
                if await self._wait_for_turn():
                    await self._read()
        finally:
            self._listening = False
            self._answered.set()

    def timed_out(self, error: TimeoutExceeded) -> None:
        """Do not wait for it again until it has answered."""
        self._late = True
        self._read_failed(error)

    async def _wait_for_turn(self) -> bool:
        due = self._next_due()
        if due is None:
            await self._asked.wait()
        else:
            with self.clock.timeout(max(0.0, due - self.clock.monotonic())):
                await self._asked.wait()
        if self._asked.is_set():
            self._asked = anyio.Event()
        self._answered = anyio.Event() if self._answered.is_set() else self._answered
        return not self._finishing

    def _next_due(self) -> float | None:
        """The next instant of its own schedule that no close of a window falls on."""
        interval, opened_at = self._interval, self._meter.opened_at
        if interval >= self._tick or opened_at < 0:
            return None
        slot = int((self.clock.monotonic() - opened_at) / interval + 0.5) + 1
        while abs(slot * interval - round(slot * interval / self._tick) * self._tick) < interval / 4:
            slot += 1
        return opened_at + slot * interval

    async def _read(self) -> None:
        asked_at = self.clock.monotonic()
        try:
            usage = await self.call(self.plugin.get_energy_usage(), self._timeout)
            answered_at = self.clock.monotonic()
            refused = self._meter.record(self.component.name, usage, answered_at)
        except Exception as error:
            self._read_failed(error)
        else:
            self._late = answered_at - asked_at > self._patience
            self.succeeded("; ".join([*usage.problems, *refused]) if usage.problems or refused else "")
        finally:
            self._answered.set()

    def _read_failed(self, error: Exception) -> None:
        if self._failures + 1 >= REENTER_AFTER_FAILURES:
            raise error
        self.failed(error)


class GeneratorRunner(Runner):
    """Runs one generator once for each window, over a view of the meter of its own.

    Args:
        view: its view; a window is consumed only when the generator has done with it.
        deliver: where its batches go.
        interval_seconds: it runs at the first window that is closed in each such stretch of time; 0 for every window.
        timeout_seconds: how long one run may take.
    """

    plugin: MetricGenerator

    def __init__(
        self,
        component: Component,
        plugin: MetricGenerator,
        view: MeterView,
        collector: Collector,
        deliver: Callable[[Batch], None],
        *,
        optional: bool,
        clock: Clock,
        interval_seconds: float,
        timeout_seconds: float,
    ) -> None:
        super().__init__(component, plugin, optional=optional, clock=clock)
        self._view = view
        self._collector = collector
        self._deliver = deliver
        self._interval = interval_seconds
        self._timeout = timeout_seconds
        self._ticked = anyio.Event()
        self._slot = -1
        self._has_window = False
        self._is_last = False

    @property
    def pending_seconds(self) -> float:
        """The time whose figures it has not given."""
        return self._view.pending_seconds

    @property
    def owes_something(self) -> bool:
        """Whether there is a window that it has not turned to."""
        return self._has_window

    def tick(self, elapsed_seconds: float, *, last: bool = False) -> None:
        """Tell it that a window was closed so many seconds after the start; the last one is never skipped."""
        slot = math.floor(elapsed_seconds / self._interval + 1e-3) if self._interval else self._slot + 1
        if slot <= self._slot and not last:
            return
        self._slot = slot
        self._has_window, self._is_last = True, last
        self._ticked.set()

    def finish(self) -> None:
        """Ask it to come to its end, after the last window that it was told of."""
        super().finish()
        self._ticked.set()

    async def serve(self) -> None:
        """Generate until the end."""
        while True:
            if not self._finishing:
                await self._ticked.wait()
            if not self._has_window:
                return
            self._ticked, self._has_window = anyio.Event(), False
            await self._generate()

    async def _generate(self) -> None:
        window = self._view.advance(is_last=self._is_last)
        if window.seconds <= 0:
            return
        try:
            batch = await self.call(self._collector.collect(self.plugin.generate(), window), self._timeout)
        except Exception as error:
            self.failed(error)
        else:
            self._view.commit()
            self.succeeded()
            self._deliver(batch)


class ExporterRunner(Runner):
    """Delivers one exporter's batches, each until it has arrived.

    Args:
        mailbox: what there is to deliver.
        interval_seconds: at least so long between two deliveries; 0 for every batch.
        timeout_seconds: how long one delivery may take.
        on_exported: called with each batch that arrived.
        on_gone: called when the receiver is gone for good.
    """

    plugin: Exporter

    def __init__(
        self,
        component: Component,
        plugin: Exporter,
        mailbox: Mailbox,
        on_exported: Callable[[str, Batch], None],
        on_gone: Callable[[], None],
        *,
        optional: bool,
        clock: Clock,
        interval_seconds: float,
        timeout_seconds: float,
    ) -> None:
        super().__init__(component, plugin, optional=optional, clock=clock)
        self.mailbox = mailbox
        self._on_exported = on_exported
        self._on_gone = on_gone
        self._interval = interval_seconds
        self._timeout = timeout_seconds
        self._in_flight: Batch | None = None
        self._leave_alone_seconds: float | None = None
        self.dropped_records = 0
        self.is_gone = False
        self._must_rest = False

    @property
    def undelivered_records(self) -> int:
        """How many records are waiting."""
        return 0 if self.is_gone else len(self.mailbox) + len(self._in_flight or ())

    @property
    def owes_something(self) -> bool:
        """Whether there are records that were not delivered."""
        return self.undelivered_records > 0

    def finish(self) -> None:
        """Ask it to deliver what is there and come to its end."""
        super().finish()
        self.mailbox.close()

    async def serve(self) -> None:
        """Deliver until the end."""
        due = 0.0
        while not self.is_gone:
            if self._must_rest:
                await self._back_off()
            batch = self._in_flight or await self.mailbox.take()
            if batch is None:
                return
            self._in_flight = batch
            begun_at = max(due, self.clock.monotonic())
            if await self._deliver(batch) and self._interval:
                due = begun_at + self._interval
                await self._pause_for(due - self.clock.monotonic())
        await self.ending.wait()

    def timed_out(self, error: TimeoutExceeded) -> None:
        """It may have arrived: the same batch is tried again, unchanged."""
        super().timed_out(error)
        self._must_rest = True

    async def _deliver(self, batch: Batch) -> bool:
        """Try once; what is left goes back to the mailbox, or stays in flight where it may have arrived."""
        try:
            await self.call(self.plugin.export(batch), self._timeout)
        except DeliveryUnknown as error:
            self.failed(error)
            self._must_rest = True
            return False
        except ReceiverGone as error:
            self._in_flight = None
            self.is_gone = True
            self.failed(error)
            self._on_gone()
            return True
        except PermanentExportError as error:
            self._in_flight = None
            self.dropped_records += len(batch)
            self.component.failed(f"{len(batch)} records dropped: {describe(error)}")
            return True
        except Exception as error:
            self._in_flight = None
            self._leave_alone_seconds = getattr(error, "retry_after_seconds", None)
            is_partial = isinstance(error, RetryableExportError) and error.remaining is not None
            self.mailbox.give_back(error.remaining if is_partial else batch)  # type: ignore[attr-defined]
            self.failed(error)
            self._must_rest = True
            return False
        self._in_flight = None
        self.succeeded()
        self._on_exported(self.component.name, batch)
        return True

    async def _back_off(self) -> None:
        seconds = max(self._leave_alone_seconds or 0.0, back_off_seconds(self._failures))
        self._leave_alone_seconds, self._must_rest = None, False
        if self._finishing:
            await self.clock.sleep_until(self.clock.monotonic() + min(seconds, 0.25))
        else:
            await self._pause_for(seconds)

"""Reading one sensor: on its own schedule, and at the close of every window."""

from __future__ import annotations

import anyio

from tracarbon._meter import Meter
from tracarbon._runner import Runner, Terms, TimeoutExceeded
from tracarbon._states import Component
from tracarbon.hardwares.sensors import Sensor

REENTER_AFTER_FAILURES = 3


class Sampler(Runner):
    """Reads one sensor: on its own schedule, and whenever a window is closed.

    Args:
        terms: its interval is its own schedule, infinity where the windows' closes suffice, or 0: what the sensor says.
        tick_seconds: the pipeline's interval; a sample that would fall together with a close is left to the close.
        patience_seconds: one that takes longer than this to answer is asked at a close, but not waited for.

    Attributes:
        answers: the number of the latest close that was answered.
    """

    plugin: Sensor

    def __init__(
        self,
        component: Component,
        plugin: Sensor,
        meter: Meter,
        terms: Terms,
        *,
        tick_seconds: float,
        patience_seconds: float,
    ) -> None:
        super().__init__(component, plugin, terms)
        self._meter = meter
        self._tick = tick_seconds
        self._patience = patience_seconds
        self._asked = anyio.Event()
        self._answered = anyio.Event()
        self._asks = 0
        self.answers = 0
        self._listening = False
        self._is_reading = False
        self._late = False
        self._read_at: float | None = None

    def ask(self, *, is_last: bool = False) -> int | None:
        """Ask for a fresh reading; returns the number of the answer to wait for, or `None` where there is none.

        The last time, one that was late is waited for as well, and one that is left alone after a failure is tried at
        once: there is no later window to bring the joules in.
        """
        if not self._listening:
            if not is_last or self._read_at is None:
                return None
            self._pause.cancel()
        if self.answers == self._asks:
            self._asks += 1
            if not self._is_reading:
                self._asked.set()
        return self._asks if is_last or not self._late else None

    async def wait_for_answer(self, number: int) -> None:
        """Wait until it has given so many answers."""
        while self.answers < number:
            self._answered = anyio.Event()
            await self._answered.wait()

    def note_missed_close(self) -> None:
        """Do not wait for it again until it has answered in time."""
        self._late = True

    def note_unread(self, since: float) -> None:
        """Say what is lost, now that the last window is closed, of a sensor that was not read after `since`."""
        if self._read_at is not None and self._read_at < since:
            seconds = self.clock.monotonic() - self._read_at
            why = f" ({reason})" if (reason := self.component.reason) else ""
            self.component.degraded(f"its last {seconds:.3g} s were not read and are lost{why}")

    def finish(self) -> None:
        """Ask it to come to its end."""
        super().finish()
        self._asked.set()

    def failed(self, error: BaseException) -> None:
        """Note that it failed; where it cannot even be entered, nobody is to wait for an answer."""
        super().failed(error)
        if not self._listening:
            self._note_answered()

    async def serve(self) -> None:
        """Read until the end; a sensor that keeps failing is released and entered again."""
        self._listening = True
        try:
            while not self._finishing:
                if await self._wait_for_turn():
                    await self._read()
        finally:
            self._listening = False
            self._note_answered()

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
        self._is_reading = not self._finishing
        return self._is_reading

    def _next_due(self) -> float | None:
        """The next instant of its own schedule that no close of a window falls on."""
        interval, opened_at = self._interval or self.plugin.sampling_interval_seconds, self._meter.opened_at
        if interval >= self._tick or opened_at < 0:
            return None
        slot = int((self.clock.monotonic() - opened_at) / interval + 0.5) + 1
        while abs(slot * interval - round(slot * interval / self._tick) * self._tick) < interval / 4:
            slot += 1
        return opened_at + slot * interval

    async def _read(self) -> None:
        asked_at = self.clock.monotonic()
        try:
            usage = await self.call(self.plugin.get_energy_usage())
            answered_at = self.clock.monotonic()
            refused = self._meter.record(self.component.name, usage, answered_at, answered_at - asked_at)
            self._read_at = answered_at
        except Exception as error:
            self._read_failed(error)
        else:
            self._late = answered_at - asked_at > self._patience
            self.succeeded("; ".join([*usage.problems, *refused]) if usage.problems or refused else "")
        finally:
            self._note_answered()

    def _note_answered(self) -> None:
        self._is_reading = False
        self.answers = self._asks
        self._answered.set()

    def _read_failed(self, error: Exception) -> None:
        if self._failures + 1 >= REENTER_AFTER_FAILURES:
            raise error
        self.failed(error)

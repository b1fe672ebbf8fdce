"""Running one generator, once for each window."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from tracarbon._collect import Collector
from tracarbon._meter import MeterView
from tracarbon._runner import Runner, Terms
from tracarbon._states import Component
from tracarbon.exporters.exporter import MetricGenerator
from tracarbon.metrics import Batch


class GeneratorRunner(Runner):
    """Runs one generator once for each window, over a view of the meter of its own.

    Args:
        view: its view; a window is consumed only when the generator has done with it.
        terms: it runs at the first window that is closed in each interval; 0 for every window.
        collector: makes batches of its metrics.
        deliver: where its batches go.
    """

    plugin: MetricGenerator

    def __init__(
        self,
        component: Component,
        plugin: MetricGenerator,
        view: MeterView,
        terms: Terms,
        *,
        collector: Collector,
        deliver: Callable[[Batch], None],
    ) -> None:
        super().__init__(component, plugin, terms)
        self._view = view
        self._collector = collector
        self._deliver = deliver
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
            batch = await self.call(self._collector.collect(self.plugin.generate(), window))
        except Exception as error:
            self.failed(error)
        else:
            self._view.commit()
            self.succeeded("; ".join(self.plugin.problems))
            self._deliver(batch)

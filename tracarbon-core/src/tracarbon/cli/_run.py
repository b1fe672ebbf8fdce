"""`tracarbon run`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import anyio

from tracarbon._assembly import Plan, assemble
from tracarbon._configuration import Overrides
from tracarbon._document import Problem, parse_seconds
from tracarbon._listener import Listener
from tracarbon._pipeline import FLUSH_SECONDS, Pipeline
from tracarbon._report_text import render_report
from tracarbon._states import Component, ComponentState
from tracarbon._worker import current_loop_caller
from tracarbon.cli import EXIT_NOTHING_MEASURED, EXIT_OK
from tracarbon.cli._loading import load_plan
from tracarbon.cli._signals import Signals
from tracarbon.cli._systemd import notify
from tracarbon.exceptions import ConfigurationError, StartupError
from tracarbon.metrics import Batch
from tracarbon.report import ReportRecorder, TracarbonReport

_ONCE_SECONDS = 1.0
_NO_TICK_SECONDS = 3600.0  # none comes before the end of a single window, however late that is
_MOST_LOSSES = 20
_LOSS = re.compile(r"\b(is|are) lost\b")
_LEAVE_SECONDS = 2 * FLUSH_SECONDS + 3.0  # for hanging generators, and then for hanging exporters


def main(options: argparse.Namespace) -> int:
    """Run a pipeline until it is stopped; returns the exit status."""
    interval, duration = _times(options)
    plan = load_plan(options.config, _overrides(options, interval))
    pipeline = assemble(plan)
    if options.once:
        duration = interval or _ONCE_SECONDS
        pipeline.interval_seconds = pipeline.first_window_seconds = max(4 * duration, _NO_TICK_SECONDS)
    return _Run(plan, pipeline, duration).run()


def _times(options: argparse.Namespace) -> tuple[float | None, float | None]:
    times = []
    for name in ("interval", "duration"):
        text = getattr(options, name)
        try:
            times.append(None if text is None else parse_seconds(text))
        except ValueError as error:
            raise ConfigurationError("command line", [Problem(None, f"--{name}", str(error))]) from None
    return times[0], times[1]


def _overrides(options: argparse.Namespace, interval_seconds: float | None) -> Overrides:
    return Overrides(
        interval_seconds=interval_seconds,
        country=options.country,
        exporters=options.exporter_name,
        containers=options.containers,
        log_level=options.log_level,
    )


def _say(text: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


class _Run(Listener):
    def __init__(self, plan: Plan, pipeline: Pipeline, duration_seconds: float | None) -> None:
        self._plan = plan
        self._pipeline = pipeline
        self._duration_seconds = duration_seconds
        self._recorder = ReportRecorder()
        self._report_lock = threading.Lock()
        self._is_reported = False
        self._troubles: dict[str, str] = {}
        self._losses: dict[str, None] = {}
        pipeline.listeners.append(self)

    def run(self) -> int:
        with Signals(self._leave) as self._signals:
            anyio.run(self._main)
            self._print_report()
            self._signals.ignore_further()
        status = EXIT_NOTHING_MEASURED if self._pipeline.all_sensors_failed else EXIT_OK
        if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
            self._exit(status)
        return status

    async def _main(self) -> None:
        self._open = anyio.Event()
        call_in_loop = current_loop_caller()
        self._signals.on_first(lambda: self._stop(call_in_loop), _LEAVE_SECONDS)
        error: StartupError | None = None
        async with anyio.create_task_group() as group:
            if self._duration_seconds is not None:
                group.start_soon(self._stop_after, self._duration_seconds)
            try:
                await self._pipeline.run(on_started=self._started)
            except StartupError as failure:  # raised outside of the group, or it would come in one
                error = failure
            group.cancel_scope.cancel()
        if error is not None:
            raise error

    def _stop(self, call_in_loop: Callable[[Callable[[], object]], None]) -> None:
        notify("STOPPING=1")
        call_in_loop(self._pipeline.stop)

    async def _stop_after(self, seconds: float) -> None:
        await self._open.wait()
        await anyio.sleep(seconds)
        self._pipeline.stop()

    def _started(self) -> None:
        self._recorder.started_at = time.time()
        self._open.set()
        notify("READY=1")

    def window_closed(self, batch: Batch) -> None:
        self._recorder.add(batch)

    def state_changed(self, component: Component) -> None:
        # Every component has stopped by the time of the report; what counts is how it fared before.
        name, state = str(component), component.state
        if state is ComponentState.DEGRADED and _LOSS.search(component.reason):
            if len(self._losses) < _MOST_LOSSES:
                self._losses[f"{name}: {component.reason}"] = None
        elif state in (ComponentState.DEGRADED, ComponentState.FAILED):
            self._troubles[name] = f"{name} is {state.value}: {component.reason}"
        elif state is ComponentState.OK:
            self._troubles.pop(name, None)

    def _leave(self) -> None:
        """Leave at once: the second signal, or a stop that does not come to its end. Runs in the signals' thread."""
        if self._recorder.started_at is None:
            _say("tracarbon: stopped before anything was measured")
        elif self._print_report():
            _say("tracarbon: left before everything had come to its end")
        self._exit(EXIT_OK)

    def _print_report(self) -> bool:
        """Print the report, once; returns whether it was printed now."""
        with self._report_lock:
            if self._is_reported or self._recorder.started_at is None:
                return False
            self._is_reported = True
            self._recorder.ended_at = self._recorder.measured_until or time.time()
            location = self._pipeline.location
            report = self._recorder.snapshot(
                ", ".join(item.table.name for item in self._plan.exporters),
                None if location is None else location.known_co2g_kwh,
            )
            told = [*self._troubles.values(), *self._losses, *self._unheard(report), *self._undelivered()]
            _say(render_report(report, told))
            return True

    def _undelivered(self) -> list[str]:
        components = [component for component in self._pipeline.components if component.dropped_records]
        dropped = [f"{component}: {component.dropped_records} records did not arrive" for component in components]
        return dropped + self._pipeline.undelivered()

    def _unheard(self, report: TracarbonReport) -> list[str]:
        """Say which sensors there were, where none of them has said anything."""
        if report.metric_report:
            return []
        sensors = [component for component in self._pipeline.components if component.kind == "sensor"]
        return [f"{sensor} gave no figure" for sensor in sensors if str(sensor) not in self._troubles]

    @staticmethod
    def _exit(status: int) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, AttributeError):
                stream.flush()
        os._exit(status)

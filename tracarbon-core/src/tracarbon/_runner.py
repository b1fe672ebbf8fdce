"""One task per component: enter the plugin, let it work, and bring it back with back-off when it fails."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio

from tracarbon._clock import Clock
from tracarbon._states import Component
from tracarbon._watch import guard, is_interrupt
from tracarbon.exceptions import (
    TracarbonException,
)
from tracarbon.plugin import Plugin

logger = logging.getLogger("tracarbon")

T = TypeVar("T")

FIRST_BACK_OFF_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 60.0
FORGIVING_CALLS = 20
"""How many calls in a row hold up nobody before one that did is forgotten."""


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


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a component runs.

    Attributes:
        clock: the pipeline's clock.
        optional: whether the pipeline may start without it.
        interval_seconds: how often it works; what that means is the runner's.
        timeout_seconds: how long one call into the plugin may take.
    """

    clock: Clock
    optional: bool
    interval_seconds: float
    timeout_seconds: float


def _is_being_closed(error: BaseException) -> bool:
    """Whether a coroutine is closed from outside of any task, and it is not a plugin that raised this."""
    if not isinstance(error, GeneratorExit):
        return False
    try:
        anyio.get_current_task()
    except Exception:
        return True
    return False


class Runner(ABC):
    """Runs one component in a task of its own.

    Args:
        component: its state.
        plugin: the plugin; entered in this task and left in it.
        terms: on what terms.
    """

    def __init__(self, component: Component, plugin: Plugin, terms: Terms) -> None:
        self.component = component
        self.plugin = plugin
        self.clock = terms.clock
        self.optional = terms.optional
        self._interval = terms.interval_seconds
        self._timeout = terms.timeout_seconds
        self.settled = anyio.Event()
        self.finished = anyio.Event()
        self.ending = anyio.Event()
        self.start_error: Exception | None = None
        self._finishing = False
        self._pause = anyio.CancelScope()
        self._failures = 0
        self._deadline = terms.clock.deadline()
        self._is_calling = False
        self._blocking = ""
        self._calls_since_blocking = 0

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
        except BaseException as error:  # some libraries' defects are no Exception, such as a panic of Rust code
            if is_interrupt(error) or _is_being_closed(error):
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
        keeps_from_starting = self.start_error is not None and not self.optional and not self.settled.is_set()
        self.component.failed(describe(error), is_raised=keeps_from_starting)
        logger.debug("%s", self.component, exc_info=error)

    def succeeded(self, problems: str = "") -> None:
        """Note that a call into the plugin went well, or well but for `problems`."""
        self._failures = 0
        if self._calls_since_blocking >= FORGIVING_CALLS:
            self._blocking = ""
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
                self.timed_out(TimeoutExceeded(f"no answer within {self._timeout:g} s"))

    async def call(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call into the plugin; when it takes longer, `timed_out` is called instead of returning.

        Raises:
            Exception: what the plugin raised.
        """
        self._is_calling = True
        self._calls_since_blocking += 1
        try:
            result = await guard(call, self._deadline, self._timeout, self._note_blocking, self.clock.monotonic)
        except Exception:
            self._is_calling = False
            raise
        self._is_calling = False
        return result

    def timed_out(self, error: TimeoutExceeded) -> None:
        """Deal with a call that missed its deadline."""
        self.failed(error)

    def _note_blocking(self, seconds: float) -> None:
        # Said once, and kept for a while: one that blocks in every call would fill the log.
        self._calls_since_blocking = 0
        if not self._blocking:
            self._blocking = (
                f"it blocked everybody else for {seconds:.1f} s: its code waits or computes without `await`, or the "
                "machine is very busy"
            )
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

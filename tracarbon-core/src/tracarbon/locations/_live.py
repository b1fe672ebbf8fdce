"""The carbon intensity of now: when to ask, whom to make wait, and how long an answer holds."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import NamedTuple

import anyio

from tracarbon._worker import Call
from tracarbon.exceptions import TracarbonException
from tracarbon.locations._http import StatusError, in_own_loop
from tracarbon.locations._intensity import Figure

logger = logging.getLogger("tracarbon")

USABLE_SECONDS = 86_400.0
RETRY_SECONDS = 60.0
_LONGEST_RETRY_SECONDS = 3600.0
_SOON_SECONDS = 120.0
"""Who looks at least this often has the next figure soon enough without waiting for it."""


class Reading(NamedTuple):
    """A figure of a live service, and whether it is the newest that there should be."""

    figure: Figure
    is_newest: bool


class _Instant(NamedTuple):
    """A moment on both clocks."""

    monotonic_seconds: float
    wall_seconds: float


_NEVER = _Instant(-math.inf, -math.inf)


class LiveIntensity:
    """Keeps what a live service said last: one request for as long as a figure lasts, however many ask.

    The request runs in a thread of its own, whatever event loops ask: a caller that is cancelled before the answer does
    not keep it from those who wait too, nor does a hanging service hold up those who do not wait.

    An age is what the clock says that counts more: the monotonic one stands still while the machine is suspended, the
    wall clock may be put back. One that is put forward costs one request, since each outcome is dated anew.

    Args:
        fetch: one request.
        clock: monotonic seconds.
        wall_clock: seconds since the epoch.

    Attributes:
        fault: why the last request failed; empty where it did not.
    """

    def __init__(
        self, fetch: Callable[[], Awaitable[Figure]], clock: Callable[[], float], wall_clock: Callable[[], float]
    ) -> None:
        self.fault = ""
        self._fetch = fetch
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._waiting: list[Call] = []
        self._is_asking = self._is_waited_for = False
        self._thread: threading.Thread | None = None
        self._noted = self._fetched = self._looked = _NEVER
        self._rest_seconds = 0.0
        self._figure: Figure | None = None

    async def latest(self, zone: str) -> Reading | None:
        """Return the latest figure if it is less than a day old, after a request if one is due.

        Args:
            zone: for the log.
        """
        with self._lock:
            self._looked = self._now()
            call = self._answer() if self._ask_if_due(zone) else None
        reading: Reading | None = self._usable() if call is None else await call.wait()
        return reading

    async def current(self, zone: str, patience_seconds: float) -> Reading | None:
        """Return the same, at once where somebody looked a short while ago: what is asked for now is for later looks.

        After a longer while (a long interval, a suspended machine) there is no later look for which the answer is any
        good. So it is waited for, shortly, by everybody who looks meanwhile.

        Args:
            zone: for the log.
            patience_seconds: how long to wait.
        """
        with self._lock:
            is_rare = self._seconds_since(self._looked) > _SOON_SECONDS
            self._looked = self._now()
            self._is_waited_for = self._ask_if_due(zone) and (is_rare or self._is_waited_for)
            call = self._answer() if self._is_waited_for else None
        if call is not None:
            with anyio.move_on_after(patience_seconds) as scope:
                await call.wait()
            if scope.cancelled_caught:
                self._is_waited_for = False
        return self._usable()

    def _answer(self) -> Call:
        call = Call(self._usable)
        self._waiting.append(call)
        return call

    def _ask_if_due(self, zone: str) -> bool:
        """Whether a request is under way, which is sent now if it is due."""
        if self._seconds_since(self._noted) < self._rest_seconds:
            return False
        # A forked child has the flag, but no thread that would ever see to it.
        if not self._is_asking or self._thread is None or not self._thread.is_alive():
            self._waiting, self._is_asking = [], True
            self._thread = in_own_loop(self._fetch, lambda outcome: self._finish(outcome, zone))
        return True

    def _finish(self, outcome: Figure | Exception, zone: str) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
            self._is_asking = self._is_waited_for = False
            try:
                self._note(outcome, zone)
            finally:
                for call in waiting:
                    call.perform()

    def _note(self, outcome: Figure | Exception, zone: str) -> None:
        failed_before = bool(self.fault)
        self._noted = self._now()
        if isinstance(outcome, Exception):
            self.fault, self._rest_seconds = _in_words(outcome), _retry_seconds(outcome)
            if not failed_before:
                logger.warning(
                    "no live carbon intensity of %s: %s. It is asked for again in %.0f s; meanwhile the last one holds "
                    "for a day, if there is one, then the country's yearly average",
                    zone,
                    self.fault,
                    self._rest_seconds,
                )
            return
        self.fault, self._figure, self._fetched = "", outcome, self._noted
        self._rest_seconds = outcome.lasts_seconds
        if failed_before:
            logger.info("there is a live carbon intensity of %s again", zone)

    def _usable(self) -> Reading | None:
        age_seconds = self._seconds_since(self._fetched)
        if self._figure is None or age_seconds >= USABLE_SECONDS:
            return None
        # Without a fault the next one is under way, and those who look often need not hear of it.
        lasts_seconds = self._figure.lasts_seconds + (0.0 if self.fault else _SOON_SECONDS)
        return Reading(self._figure, age_seconds < lasts_seconds)

    def _now(self) -> _Instant:
        return _Instant(self._clock(), self._wall_clock())

    def _seconds_since(self, then: _Instant) -> float:
        now = self._now()
        return max(now.monotonic_seconds - then.monotonic_seconds, now.wall_seconds - then.wall_seconds)


def _retry_seconds(error: Exception) -> float:
    asked = error.retry_after_seconds if isinstance(error, StatusError) else None
    return RETRY_SECONDS if asked is None else min(max(asked, RETRY_SECONDS), _LONGEST_RETRY_SECONDS)


def _in_words(error: Exception) -> str:
    """Say what went wrong; the text of an error that is not ours could hold the key."""
    if not isinstance(error, TracarbonException):
        return type(error).__name__
    is_refused = isinstance(error, StatusError) and error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    return f"{error} (the key is not accepted)" if is_refused else str(error)

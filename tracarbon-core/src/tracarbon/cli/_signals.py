"""Signals of the command: the first asks the pipeline to stop, the second leaves at once.

They are waited for in a thread, fed by the interpreter's own wake-up descriptor, so that they work even while a plugin
blocks the event loop in the main thread.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None]


class Signals:
    """Handles SIGINT, SIGTERM and SIGHUP while it is entered, in the main thread.

    Args:
        leave: called, in the signals' thread, at the second signal or when the first has led to nothing in time.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._stop: Callable[[], None] | None = None
        self._stop_seconds: float | None = None
        self._reader, self._writer = socket.socketpair()
        self._is_first = True
        self._done = False
        self._previous: dict[int, Any] = {}

    def on_first(self, stop: Callable[[], None], leave_after_seconds: float) -> None:
        """Say what the first signal does, and after how long to leave without further waiting."""
        self._stop, self._stop_seconds = stop, leave_after_seconds

    def ignore_further(self) -> None:
        """Nothing is left to be stopped: a further signal must not kill the process on its last few milliseconds."""
        self._done = True
        for number in self._previous:
            signal.signal(number, signal.SIG_IGN)
        self._previous.clear()

    def __enter__(self) -> Self:
        self._writer.setblocking(False)
        self._previous_descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            if not _is_left_to_nohup(number):
                self._previous[number] = signal.signal(number, _noted)
        threading.Thread(target=self._wait, name="tracarbon-signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done = True
        signal.set_wakeup_fd(self._previous_descriptor)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._writer.close()

    def _wait(self) -> None:
        while True:
            try:
                received = self._reader.recv(1)
            except TimeoutError:
                received = b"\xff"
            if not received or self._done:
                return
            if received != b"\xff" and received[0] not in _SIGNALS:
                continue
            if self._is_first and self._stop is not None:
                self._is_first = False
                self._reader.settimeout(self._stop_seconds)
                self._stop()
            else:
                self._leave()


def _is_left_to_nohup(number: int) -> bool:
    return signal.Signals(number).name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing here: the interpreter has written the number to the wake-up descriptor."""

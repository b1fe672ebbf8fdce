"""A thread for calls that may never return."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Call(Generic[T]):
    """A call that a lane was given."""

    __slots__ = ("_done", "_error", "_function", "_result")

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._result: list[T] = []

    @property
    def is_done(self) -> bool:
        """Whether it has returned or raised."""
        return self._done.is_set()

    def wait(self, deadline: float) -> bool:
        """Wait until it is done, at most until `time.monotonic()` shows `deadline`; returns whether it is."""
        return self._done.wait(max(0.0, deadline - time.monotonic()))

    def outcome(self) -> T:
        """Return what it returned or raise what it raised; for a call that is done."""
        if self._error is not None:
            raise self._error
        return self._result[0]

    def perform(self) -> None:
        """Call the function; for the lane's thread."""
        try:
            self._result.append(self._function())
        except BaseException as error:  # handed over to whoever asks, whatever it is
            self._error = error
        self._done.set()


class Lane:
    """Runs calls one after another in a daemon thread, which there is at most one of, and only while it is needed.

    A call that hangs keeps the thread; calls behind it wait, and so does the thread's end.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Call[object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[[], T]) -> Call[T]:
        """Have `function` called in the thread. After `end`, to be used again only once all earlier calls are done."""
        call = Call(function)
        if self._thread is None:
            self._thread = threading.Thread(target=_serve, args=(self._calls,), name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(call)  # type: ignore[arg-type]
        return call

    def end(self) -> None:
        """Let the thread end once it has done what it was given."""
        if self._thread is not None:
            self._calls.put(None)
            self._calls, self._thread = SimpleQueue(), None


def _serve(calls: SimpleQueue[Call[object] | None]) -> None:
    while (call := calls.get()) is not None:
        call.perform()

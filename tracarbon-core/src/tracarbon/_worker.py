"""A thread of one's own for calls that block."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

import anyio
from anyio.lowlevel import current_token

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """Runs blocking calls one after another in a daemon thread.

    A component has one worker at the most: a call that hangs holds up that component alone, and since the thread is a
    daemon it does not keep the interpreter from leaving, as the threads of `anyio.to_thread` would on asyncio.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in the thread and return what it returns or raise what it raises.

        When the caller is cancelled the call itself goes on, and later calls wait behind it.
        """
        result: T = await self.submit(lambda: function(*args, **kwargs)).wait()
        return result

    def submit(self, function: Callable[[], object]) -> Call:
        """Have `function` called in the thread; its outcome can be waited for again after a cancellation."""
        call = Call(function)
        if self._thread is None:
            self._thread = threading.Thread(target=_serve, args=(self._calls,), name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(call)
        return call

    def close(self) -> None:
        """Let the thread end once it has done what it was given; a thread that hangs is left to itself."""
        if self._thread is not None:
            self._calls.put(None)
            self._calls, self._thread = SimpleQueue(), None


def _serve(calls: SimpleQueue[Call | None]) -> None:
    while (call := calls.get()) is not None:
        call.perform()


def current_loop_caller() -> Callable[[Callable[[], object]], None]:
    """Return a function that other threads may use to have something called in the running event loop.

    Once the loop has ended it does nothing.
    """
    loop: Any = current_token().native_token
    call_soon: Callable[[Callable[[], object]], object] = (
        getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    )

    def call(function: Callable[[], object]) -> None:
        try:
            call_soon(function)
        except RuntimeError:  # asyncio's word for a loop that has ended
            return
        except Exception as error:
            if type(error).__name__ != "RunFinishedError":  # trio's
                raise

    return call


class Call:
    """A call that a worker was given."""

    __slots__ = ("_call_in_loop", "_done", "_error", "_function", "_result")

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._call_in_loop = current_loop_caller()
        self._done = anyio.Event()
        self._error: BaseException | None = None
        self._result: Any = None

    async def wait(self) -> Any:
        """Wait for its end and return what it returned or raise what it raised."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result

    def perform(self) -> None:
        """Call the function; for the worker's thread."""
        try:
            self._result = self._function()
        except BaseException as error:  # handed over to the caller, whatever it is
            self._error = error
        self._call_in_loop(self._done.set)

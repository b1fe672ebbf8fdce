"""Guarding the calls into plugins: a deadline for those that wait, and the name of those that block the event loop.

A plugin whose coroutine computes or waits without awaiting holds up everybody, and nothing can prevent that; but each
step of its coroutine can be timed, so that it is named. A call that never awaits costs no timer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar, cast

from tracarbon._clock import Deadline

T = TypeVar("T")

BLOCKING_SECONDS = 0.1


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception is the user's interrupt, which only the main thread gets, and no plugin's failure."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_interrupt, error.exceptions))
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


@coroutine
def guard(
    call: Coroutine[Any, Any, T],
    deadline: Deadline,
    timeout_seconds: float,
    on_block: Callable[[float], None],
    clock: Callable[[], float],
) -> Generator[Any, Any, T]:
    """Await `call`; once it waits for something, `deadline` is armed until it is done.

    Args:
        call: the coroutine of a plugin.
        deadline: an entered scope; when the time is out, the cancellation goes through `call` up to that scope.
        timeout_seconds: how long the call may take.
        on_block: called with the seconds of each step that held up the event loop.
        clock: monotonic seconds, to time the steps by.
    """
    step: Callable[[Any], Any] = call.send
    argument: Any = None
    is_armed = False
    try:
        while True:
            started = clock()
            try:
                waits_for = step(argument)
            except StopIteration as stop:
                return cast(T, stop.value)
            finally:
                seconds = clock() - started
                if seconds > BLOCKING_SECONDS:
                    on_block(seconds)
            if not is_armed:
                is_armed = True
                deadline.arm(timeout_seconds)
            try:
                argument, step = (yield waits_for), call.send
            except BaseException as error:  # a cancellation, or what it waited for raised: the plugin's to see
                argument, step = error, call.throw
    finally:
        if is_armed:
            deadline.disarm()

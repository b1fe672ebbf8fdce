"""Finding out which plugin blocks the event loop.

A plugin whose coroutine computes or waits without awaiting holds up everybody, and nothing can prevent that; but each
step of its coroutine can be timed, so that it is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")

BLOCKING_SECONDS = 0.1


@coroutine
def _stepped(watched: Coroutine[Any, Any, T], on_block: Callable[[float], None]) -> Generator[Any, Any, T]:
    step: Callable[[Any], Any] = watched.send
    argument: Any = None
    while True:
        started = time.perf_counter()
        try:
            yielded = step(argument)
        except StopIteration as stop:
            return cast(T, stop.value)
        finally:
            seconds = time.perf_counter() - started
            if seconds > BLOCKING_SECONDS:
                on_block(seconds)
        try:
            argument = yield yielded
            step = watched.send
        except BaseException as error:  # a cancellation, or what the awaited thing raised: both are the plugin's to see
            argument, step = error, watched.throw


async def watch(watched: Coroutine[Any, Any, T], on_block: Callable[[float], None]) -> T:
    """Await `watched`, and call `on_block` with the seconds of each of its steps that held up the event loop."""
    return await _stepped(watched, on_block)

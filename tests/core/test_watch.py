from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Literal

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tracarbon._watch import BLOCKING_SECONDS, guard, is_interrupt
from tracarbon.testing import ManualClock

STANDING_STILL = ManualClock().monotonic


class Alarm:
    """A deadline that notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def arm(self, seconds: float) -> None:
        self.done.append(seconds)

    def disarm(self) -> None:
        self.done.append("disarmed")

    def __enter__(self) -> Alarm:
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        return False


def unexpected(seconds: float) -> None:
    raise AssertionError(f"blocked for {seconds} s")


async def test_a_call_that_never_waits_costs_no_timer() -> None:
    alarm = Alarm()

    async def call() -> str:
        return "result"

    assert await guard(call(), alarm, 5.0, unexpected, STANDING_STILL) == "result"
    assert alarm.done == []


async def test_a_call_that_waits_is_timed_once() -> None:
    alarm = Alarm()

    async def call() -> int:
        for _ in range(3):
            await checkpoint()
        return 3

    assert await guard(call(), alarm, 5.0, unexpected, STANDING_STILL) == 3
    assert alarm.done == [5.0, "disarmed"]


@pytest.mark.parametrize("waits", [False, True])
async def test_what_a_call_raises_comes_out(waits: bool) -> None:
    alarm = Alarm()

    async def call() -> None:
        if waits:
            await checkpoint()
        raise OSError("from inside")

    with pytest.raises(OSError, match="from inside"):
        await guard(call(), alarm, 5.0, unexpected, STANDING_STILL)
    assert alarm.done == ([5.0, "disarmed"] if waits else [])


async def test_what_a_call_waits_for_may_raise_into_it() -> None:
    async def failing() -> None:
        await checkpoint()
        raise ValueError("inner")

    async def call() -> str:
        try:
            await failing()
        except ValueError as error:
            await checkpoint()
            return str(error)
        return "nothing"

    assert await guard(call(), Alarm(), 5.0, unexpected, STANDING_STILL) == "inner"


async def test_the_deadline_ends_a_call_that_hangs_and_lets_it_clean_up() -> None:
    clock, ended = ManualClock(), []

    async def call() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(clock.monotonic())

    async def guarded() -> None:
        with clock.deadline() as deadline:
            await guard(call(), deadline, 5.0, unexpected, STANDING_STILL)
            ended.append(-1.0)

    async with anyio.create_task_group() as group:
        group.start_soon(guarded)
        await clock.advance(4.9)
        assert ended == []
        await clock.advance(0.1)
    assert ended == [1005.0]


async def test_a_call_that_is_done_in_time_is_left_alone_afterwards() -> None:
    clock, reached = ManualClock(), []

    async def call() -> None:
        await clock.sleep_until(clock.monotonic() + 4.0)

    async def guarded() -> None:
        with clock.deadline() as deadline:
            await guard(call(), deadline, 5.0, unexpected, STANDING_STILL)
            await clock.sleep_until(clock.monotonic() + 100.0)
            reached.append(clock.monotonic())

    async with anyio.create_task_group() as group:
        group.start_soon(guarded)
        await clock.advance(104.0)
    assert reached == [1104.0]


async def test_each_step_that_blocks_everybody_is_told() -> None:
    now = 0.0
    blocked: list[float] = []

    async def call() -> None:
        nonlocal now
        for seconds in (0.05, 0.5, BLOCKING_SECONDS, 2.0):
            now += seconds
            await checkpoint()

    await guard(call(), Alarm(), 5.0, blocked.append, lambda: now)
    assert blocked == pytest.approx([0.5, 2.0])


async def test_a_step_that_blocks_and_raises_is_told_as_well() -> None:
    ticks = count()
    blocked: list[float] = []

    async def call() -> None:
        raise OSError("after a while")

    with pytest.raises(OSError, match="after a while"):
        await guard(call(), Alarm(), 5.0, blocked.append, lambda: float(next(ticks)))
    assert blocked == [1.0]


async def test_a_cancellation_from_outside_goes_through_the_call() -> None:
    seen = []

    async def call() -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            seen.append("cancelled")
            raise

    with anyio.CancelScope() as scope:
        scope.cancel()
        await guard(call(), Alarm(), 5.0, unexpected, STANDING_STILL)
    assert scope.cancelled_caught
    assert seen == ["cancelled"]


def test_only_the_main_threads_interrupt_is_the_users() -> None:
    def judged() -> list[bool]:
        interrupt = KeyboardInterrupt()
        return [is_interrupt(it) for it in (interrupt, BaseExceptionGroup("", [OSError(), interrupt]), SystemExit(1))]

    assert judged() == [True, True, False]
    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(judged).result(60) == [False, False, False]

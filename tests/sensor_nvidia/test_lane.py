"""A thread for calls that may never return."""

import threading
import time

import pytest
from tracarbon_sensor_nvidia._lane import Lane

DEADLINE_SECONDS = 60.0


def soon() -> float:
    return time.monotonic() + DEADLINE_SECONDS


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_calls_follow_one_another_in_one_daemon_thread() -> None:
    lane = Lane("lane-of-a-test")
    calls = [lane.submit(threading.current_thread) for _ in range(3)]
    assert all(call.wait(soon()) for call in calls)
    [thread] = {call.outcome() for call in calls}
    assert thread.daemon
    assert thread is not threading.current_thread()
    lane.end()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()


def test_what_a_call_raises_is_its_outcome() -> None:
    lane = Lane("lane-of-a-test")
    call = lane.submit(lambda: 1 // 0)
    assert call.wait(soon())
    with pytest.raises(ZeroDivisionError):
        call.outcome()
    other = lane.submit(lambda: 7)
    assert other.wait(soon())
    assert other.outcome() == 7
    lane.end()


def test_a_call_that_hangs_is_not_waited_for_and_ends_with_its_thread() -> None:
    lane, released = Lane("lane-that-hangs"), threading.Event()
    call = lane.submit(lambda: released.wait(DEADLINE_SECONDS))
    behind = lane.submit(lambda: "later")
    lane.end()
    assert not call.wait(time.monotonic())
    assert not behind.is_done
    [thread] = threads_named("lane-that-hangs")
    released.set()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert behind.outcome() == "later"


def test_it_can_be_used_again_after_its_end() -> None:
    lane = Lane("lane-of-a-test")
    for number in range(2):
        call = lane.submit(lambda number=number: number)
        assert call.wait(soon())
        assert call.outcome() == number
        lane.end()


def test_without_a_call_there_is_no_thread() -> None:
    Lane("lane-without-calls").end()
    assert threads_named("lane-without-calls") == []

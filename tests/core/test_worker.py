from __future__ import annotations

import threading

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tracarbon._worker import Worker, current_loop_caller
from tracarbon.plugin import PluginContext


async def test_calls_are_made_one_after_another_in_one_thread_of_its_own() -> None:
    worker = Worker("test")
    names = [await worker.run(lambda: threading.current_thread().name) for _ in range(2)]
    idents = {await worker.run(threading.get_ident) for _ in range(3)}
    worker.close()
    assert names == ["test", "test"]
    assert len(idents) == 1
    assert threading.get_ident() not in idents


async def test_arguments_results_and_errors_go_through() -> None:
    worker = Worker("test")
    assert await worker.run(pow, 2, 5, mod=7) == 4
    with pytest.raises(ZeroDivisionError):
        await worker.run(divmod, 1, 0)
    with pytest.raises(SystemExit):
        await worker.run(exit_thread)
    assert await worker.run(int, "3") == 3
    worker.close()


def exit_thread() -> None:
    raise SystemExit(3)


async def test_a_call_that_hangs_lets_go_of_the_caller_and_holds_up_later_ones_alone() -> None:
    """L33: a hung call blocked the event loop."""
    worker, other = Worker("hung"), Worker("other")
    release, order = threading.Event(), []

    def slow() -> None:
        release.wait(60.0)
        order.append("slow")

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(worker.run, slow)
            assert await other.run(str, 1) == "1"
            scope.cancel()
    assert order == []

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run, order.append, "later")
        for _ in range(10):
            await checkpoint()
        assert order == []
        release.set()
    assert order == ["slow", "later"]
    worker.close()
    other.close()


async def test_its_thread_does_not_keep_the_interpreter_and_ends_when_closed() -> None:
    worker = Worker("test")
    thread = await worker.run(threading.current_thread)
    assert thread.daemon
    worker.close()
    thread.join(60.0)
    assert not thread.is_alive()
    worker.close()


async def test_it_can_be_used_again_after_it_was_closed() -> None:
    worker = Worker("test")
    await worker.run(int)
    worker.close()
    assert await worker.run(str, 2) == "2"
    worker.close()


async def test_a_call_into_a_loop_that_has_ended_is_nothing() -> None:
    """A thread may finish its work when nobody is there any more."""
    callers = []
    backend = "asyncio" if "asyncio" in str(anyio.get_cancelled_exc_class()) else "trio"

    async def other_loop() -> None:
        callers.append(current_loop_caller())

    def run_other_loop() -> None:
        anyio.run(other_loop, backend=backend)

    worker = Worker("test")
    await worker.run(run_other_loop)
    worker.close()
    callers[0](lambda: pytest.fail("called"))


async def test_a_plugin_has_a_thread_of_its_own() -> None:
    context, other = PluginContext("one"), PluginContext("two")
    assert await context.run_blocking(pow, 2, 3) == 8
    assert await context.run_blocking(lambda: threading.current_thread().name) == "tracarbon-one"
    assert await other.run_blocking(lambda: threading.current_thread().name) == "tracarbon-two"
    context.close()
    other.close()
    PluginContext("never used").close()

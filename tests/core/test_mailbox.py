from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tracarbon._mailbox import Mailbox
from tracarbon.metrics import Batch, MetricKind, Record, Tag

from tests.core.test_metrics import assert_same_totals, batch, record, records_of

REAL = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


async def test_take_waits_for_a_batch() -> None:
    mailbox, taken = Mailbox(), []

    async def take() -> None:
        taken.append(await mailbox.take())

    async with anyio.create_task_group() as group:
        group.start_soon(take)
        for _ in range(5):
            await checkpoint()
        assert taken == []
        put = batch(0, [record(1.0)])
        mailbox.put(put)
    assert taken == [put]
    assert len(mailbox) == 0


async def test_what_comes_while_nobody_takes_is_merged() -> None:
    mailbox = Mailbox()
    for number in range(3):
        mailbox.put(batch(number, [record(10.0 * number, end=10.0 * number + 10)]))
    assert mailbox.merged == 2
    taken = await mailbox.take()
    assert taken is not None
    (merged,) = taken
    assert merged.value == pytest.approx(10.0)
    assert merged.covered_seconds == 30.0


async def test_a_batch_that_was_not_touched_is_the_one_that_was_put() -> None:
    mailbox = Mailbox()
    put = batch(0, [record(1.0)])
    mailbox.put(put)
    assert await mailbox.take() is put


async def test_close_lets_take_empty_it_first() -> None:
    mailbox = Mailbox()
    mailbox.put(batch(0, [record(1.0)]))
    mailbox.close()
    assert await mailbox.take() is not None
    assert await mailbox.take() is None
    mailbox.give_back(batch(0, [record(1.0)]))
    assert await mailbox.take() is not None


async def test_close_wakes_the_one_that_waits() -> None:
    mailbox, taken = Mailbox(), []

    async def take() -> None:
        taken.append(await mailbox.take())

    async with anyio.create_task_group() as group:
        group.start_soon(take)
        await checkpoint()
        mailbox.close()
    assert taken == [None]


async def test_an_empty_batch_is_delivered_too() -> None:
    """It says that everything is unknown now."""
    mailbox = Mailbox()
    mailbox.put(batch(0, []))
    assert await mailbox.take() is not None


async def test_a_batch_that_is_given_back_is_the_older_one() -> None:
    mailbox = Mailbox()
    older, newer = batch(0, [level(1.0, 0)]), batch(1, [level(2.0, 1)])
    mailbox.put(newer)
    mailbox.give_back(older)
    taken = await mailbox.take()
    assert taken is not None
    assert [item.value for item in taken] == [2.0]
    assert (taken.window.start, taken.window.end) == (0.0, 20.0)


async def test_first_batch_is_capped_as_well() -> None:
    mailbox = Mailbox(max_series=3)
    mailbox.put(batch(0, [record(1.0, tags=(Tag("pod", str(number)),)) for number in range(50)]))
    assert len(mailbox) == 4
    taken = await mailbox.take()
    assert taken is not None
    assert sum(item.total for item in taken) == pytest.approx(500.0)


def level(value: float, number: int) -> Record:
    return record(value, MetricKind.LEVEL, end=10.0 * number + 10)


@st.composite
def operations(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """What happens to a mailbox, and with what: records that are put, or the share of a batch that was delivered.

    All is drawn beforehand: what a draw raises inside a task, asyncio logs when the task is collected, at any time.
    """
    names = draw(st.lists(st.sampled_from(["put", "take", "give_back", "part"]), max_size=25))
    draws = {"put": records_of, "part": lambda _: st.floats(0.0, 1.0)}
    return [(name, draw(draws.get(name, st.just)(number))) for number, name in enumerate(names)]


@REAL
@given(st.integers(1, 8), operations())
async def test_no_sequence_loses_or_invents_anything(cap: int, operations: list[tuple[str, Any]]) -> None:
    """Amounts, and rate x covered seconds, are conserved whatever the cap, and memory is bounded."""
    mailbox = Mailbox(cap)
    put: list[Record] = []
    delivered: list[Record] = []
    flying: Batch | None = None
    for number, (operation, given_with) in enumerate(operations):
        if operation == "put":
            new = batch(number, given_with)
            put.extend(new)
            mailbox.put(new)
        elif operation == "take" and flying is None and mailbox._pending is not None:
            flying = await mailbox.take()
        elif operation == "give_back" and flying is not None:
            mailbox.give_back(flying)
            flying = None
        elif operation == "part" and flying is not None:
            keys = list(flying.records)
            done = set(keys[: round(given_with * len(keys))])
            delivered.extend(flying.records[key] for key in done)
            left = {key: item for key, item in flying.records.items() if key not in done}
            mailbox.give_back(Batch(left, flying.windows, flying.window, flying.folded))
            flying = None
        assert len(mailbox) <= cap + 3
    mailbox.close()
    rest = await mailbox.take() or ()
    assert_same_totals([*delivered, *(flying or ()), *rest], put)

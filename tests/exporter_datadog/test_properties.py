"""Whatever batches come and whatever fails: what was given for delivered arrived, and counted once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracarbon._mailbox import Mailbox
from tracarbon.exceptions import DeliveryUnknown, RetryableExportError
from tracarbon.metrics import Batch
from tracarbon.testing import SleeplessClock
from tracarbon_exporter_datadog import DatadogExporter, _agent, _intake

from tests.exporter_datadog.batches import GRAMS, JOULES, WALL, batch, exporter, joules, record
from tests.exporter_datadog.receivers import KEY, Agent, Fault, Intake, intake

Step: TypeAlias = Callable[[], None]

MOST_SERIES = 30
batches = st.lists(
    st.dictionaries(st.integers(0, 40), st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=12),
    min_size=1,
    max_size=5,
)
faults = st.lists(st.sampled_from([None, 400 + 3, 413, 429, 500, 502, 503, "vanish", "hang up", "lie"]), max_size=20)
SOME = settings(max_examples=40)


def made(number: int, watts: dict[int, float]) -> Batch:
    """Watts of pods, and grams of each."""
    rates = [record(value, number=number, tags={"pod": str(pod)}) for pod, value in watts.items()]
    amounts = [
        record(value / 7, "carbon_emission_host", "co2g", number=number, tags={"pod": str(pod)})
        for pod, value in watts.items()
    ]
    return batch(*rates, *amounts, number=number)


def grams(given: Sequence[Batch]) -> float:
    return math.fsum(one.value for item in given for one in item if one.name == "carbon_emission_host")


async def deliver(sender: DatadogExporter, given: Sequence[Batch], clock: SleeplessClock, after_each_try: Step) -> None:
    """Do as the pipeline does, until all is delivered."""
    mailbox, coming, in_flight = Mailbox(MOST_SERIES), [*given], None
    while coming or in_flight or len(mailbox):
        if coming:
            mailbox.put(coming.pop(0))
        one = in_flight or await mailbox.take()
        assert one is not None
        in_flight = None
        try:
            await sender.export(one)
        except DeliveryUnknown:
            in_flight = one
        except RetryableExportError as error:
            mailbox.give_back(error.remaining or one)
        clock.elapse(10.0)
        after_each_try()


def check(given: Sequence[Batch], total: Callable[[str], float]) -> None:
    assert total(JOULES) == pytest.approx(joules(given), rel=1e-9)
    assert total(GRAMS) == pytest.approx(grams(given), rel=1e-9)


@contextmanager
def smaller(monkeypatch_of: dict[Any, dict[str, int]]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module, values in monkeypatch_of.items():
            for name, value in values.items():
                patch.setattr(module, name, value)
        yield


@SOME
@given(batches, faults, st.sampled_from([900, 3000, 100_000]), st.sampled_from(["asyncio", "trio"]))
def test_by_http(watts: list[dict[int, float]], script: list[Fault], size: int, backend: str) -> None:
    given = [made(number, item) for number, item in enumerate(watts)]

    async def run(api: Intake) -> None:
        clock = SleeplessClock(wall=WALL)
        async with exporter(clock, api_key=KEY, api_url=api.url) as sender:
            await deliver(sender, given, clock, lambda: None)

    with intake(Intake([*script])) as api, smaller({_intake: {"MOST_PLAIN_BYTES": size}}):
        anyio.run(run, api, backend=backend)
        assert api.problems == []
        assert all(before == after for before, after in api.overwritten), "a point was replaced by another one"
        check(given, api.total)


@SOME
@given(
    batches,
    st.lists(st.booleans(), max_size=8),
    st.lists(st.integers(1, 12), max_size=4),
    st.sampled_from(["udp", "unix"]),
    st.sampled_from([256, 600, 1432]),
    st.booleans(),
    st.sampled_from(["asyncio", "trio"]),
)
def test_by_dogstatsd(
    watts: list[dict[int, float]],
    is_there: list[bool],
    dies_after: list[int],
    way: str,
    size: int,
    is_unbuffered: bool,
    backend: str,
) -> None:
    """The agent goes and comes between exports, and goes in the middle of some after so many packets."""
    given = [made(number, item) for number, item in enumerate(watts)]

    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        agent = Agent.udp() if way == "udp" else Agent.unix(Path(folder) / "dsd")
        note_sent, lives = _agent.Agent._note_sent, [*dies_after]

        def stop_in_time(self: _agent.Agent, packet: _agent.Packet) -> None:
            note_sent(self, packet)
            agent.receive()
            if lives:
                lives[0] -= 1
                if not lives[0]:
                    del lives[0]
                    agent.stop()

        patch.setattr(_agent.Agent, "_note_sent", stop_in_time)
        presence = [*is_there]

        def come_or_go() -> None:
            agent.receive()
            agent.stop()
            if not presence or presence.pop(0):
                agent.start()

        async def run() -> None:
            clock = SleeplessClock(wall=WALL)
            place: dict[str, Any] = (
                {"agent_host": "127.0.0.1", "agent_port": agent.port}
                if way == "udp"
                else {"socket_path": str(Path(folder) / "dsd")}
            )
            more = {"max_packet_bytes": size, "disable_buffering": is_unbuffered}
            async with exporter(clock, **place, **more) as sender:
                await deliver(sender, given, clock, come_or_go)

        try:
            anyio.run(run, backend=backend)
        finally:
            agent.close()
        check(given, agent.total)

"""To an agent, by UDP and by a Unix socket: what arrives, in which packets, what comes again since it was not sent."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from tracarbon.exceptions import PermanentExportError, RetryableExportError
from tracarbon_exporter_datadog import DatadogExporter, _agent
from tracarbon_exporter_datadog._agent import packed
from tracarbon_exporter_datadog._parcel import NotDelivered, Parcel

from tests.exporter_datadog.batches import GRAMS, HOST, JOULES, batch, exporter, joules, pods, record, usual
from tests.exporter_datadog.receivers import Agent, udp_agent, udp_port_of_nobody, unix_agent

BOTH = pytest.mark.parametrize("way", ["udp", "unix"])


def made(way: str, folder: Path) -> tuple[Agent, AbstractAsyncContextManager[DatadogExporter]]:
    if way == "udp":
        agent = Agent.udp()
        return agent, exporter(agent_host="127.0.0.1", agent_port=agent.port)
    agent = Agent.unix(folder / "dsd.socket")
    return agent, exporter(socket_path=str(folder / "dsd.socket"))


@BOTH
async def test_rates_amounts_and_levels(way: str, tmp_path: Path) -> None:
    agent, made_exporter = made(way, tmp_path)
    with closing(agent):
        async with made_exporter as sender:
            await sender.export(usual(grams=0.1 + 0.2))
        found = {metric.name: (metric.value, metric.kind, metric.tags) for metric in agent.metrics}
    assert found == {
        HOST: (40.0, "g", ("platform:Linux",)),
        JOULES: (400.0, "c", ("platform:Linux",)),
        GRAMS: (0.30000000000000004, "c", ("platform:Linux",)),
        "tracarbon.pods": (3.0, "g", ("platform:Linux",)),
    }


@BOTH
async def test_a_batch_is_split_at_the_borders_of_metrics(way: str, tmp_path: Path) -> None:
    agent, made_exporter = made(way, tmp_path)
    agent.follow()
    with closing(agent):
        async with made_exporter as sender:
            await sender.export(pods(500))
        agent.stop()
        assert agent.total(JOULES) == joules([pods(500)])
        assert len(agent.packets) > 5
        assert len(agent.packets) < 500


async def test_without_buffering_each_metric_has_a_packet() -> None:
    with udp_agent() as agent:
        async with exporter(agent_host="127.0.0.1", agent_port=agent.port, disable_buffering=True) as sender:
            await sender.export(usual())
        assert len(agent.metrics) == len(agent.packets) == 4


async def test_a_metric_too_large_is_dropped_by_name(caplog: pytest.LogCaptureFixture) -> None:
    large = record(name="energy_consumption_pod", tags={f"key{number}": "x" * 190 for number in range(8)})
    with udp_agent() as agent:
        async with exporter(agent_host="127.0.0.1", agent_port=agent.port) as sender:
            await sender.export(batch(large, record()))
            await sender.export(batch(large, record()))
            assert sender._context.component.dropped_records == 2
            with pytest.raises(PermanentExportError, match=r"a packet has 1432"):
                await sender.export(batch(large))
        assert agent.total(JOULES) == 800.0
    said = [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert said == [said[0]]
    assert said[0].startswith("energy_consumption_pod is dropped: it takes ")


@BOTH
async def test_nobody_there_at_first(way: str, tmp_path: Path) -> None:
    agent, made_exporter = made(way, tmp_path)
    with closing(agent):
        agent.stop()
        async with made_exporter as sender:
            with pytest.raises(RetryableExportError, match=r"DogStatsD at .*: (nobody listens|there is no)") as caught:
                await sender.export(usual())
            assert caught.value.remaining is not None
            assert caught.value.remaining.records == usual().records
            agent.start()
            await sender.export(caught.value.remaining)
        assert len(agent.metrics) == 4
        assert agent.total(JOULES) == 400.0


@BOTH
async def test_gone_and_back(way: str, tmp_path: Path) -> None:
    agent, made_exporter = made(way, tmp_path)
    with closing(agent):
        async with made_exporter as sender:
            await sender.export(usual(0))
            agent.stop()
            for _ in range(3):
                with pytest.raises(RetryableExportError):
                    await sender.export(usual(1))
            agent.start()
            await sender.export(usual(1).merged_with(usual(2), 100))
        assert agent.total(JOULES) == 1200.0
        assert agent.total(GRAMS) == 0.75
        assert len(agent.metrics) == 8


@BOTH
async def test_restarted_in_between(way: str, tmp_path: Path) -> None:
    agent, made_exporter = made(way, tmp_path)
    with closing(agent):
        async with made_exporter as sender:
            await sender.export(usual(0))
            agent.stop()
            agent.start()
            await sender.export(usual(1))
        assert agent.total(JOULES) == 800.0


@BOTH
@pytest.mark.parametrize("before", [1, 2, 5, 11])
async def test_gone_in_the_middle_of_a_batch(
    way: str, before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had been taken by then does not come again."""
    agent, made_exporter = made(way, tmp_path)
    sent = 0
    note_sent = _agent.Agent._note_sent

    def stop_after(self: _agent.Agent, packet: _agent.Packet) -> None:
        nonlocal sent
        note_sent(self, packet)
        sent += 1
        agent.receive()
        if sent == before:
            agent.stop()

    monkeypatch.setattr(_agent.Agent, "_note_sent", stop_after)
    with closing(agent):
        async with made_exporter as sender:
            with pytest.raises(RetryableExportError) as caught:
                await sender.export(pods(1000))
            left = caught.value.remaining
            assert left is not None
            arrived = agent.total(JOULES)
            assert 0 < arrived < joules([pods(1000)])
            assert arrived + joules([left]) == joules([pods(1000)])
            agent.start()
            agent.follow()
            await sender.export(left)
        agent.stop()
        assert agent.total(JOULES) == joules([pods(1000)])


async def test_a_receiver_by_udp_with_the_usual_queue_keeps_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into its queue is dropped by the kernel, and nobody tells. It reads while the sender pauses."""
    sleep = anyio.sleep

    async def pause(seconds: float) -> None:
        assert seconds > 0
        agent.receive()
        await sleep(0)

    with udp_agent() as agent:
        agent.shrink(212_992)
        monkeypatch.setattr(anyio, "sleep", pause)
        async with exporter(agent_host="127.0.0.1", agent_port=agent.port) as sender:
            await sender.export(pods(5000))
        agent.stop()
        assert agent.total(JOULES) == joules([pods(5000)])


async def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    with unix_agent(tmp_path / "dsd.socket") as agent:
        agent.follow()
        async with exporter(socket_path=str(tmp_path / "dsd.socket"), disable_buffering=True) as sender:
            await sender.export(pods(300))
        agent.stop()
        assert agent.total(JOULES) == joules([pods(300)])
        assert len(agent.packets) == 600


@contextmanager
def impatient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_agent, "PATIENCE_SECONDS", 0.05)
        yield


async def test_a_queue_that_stays_full(tmp_path: Path) -> None:
    with unix_agent(tmp_path / "dsd.socket") as agent:
        async with exporter(socket_path=str(tmp_path / "dsd.socket"), disable_buffering=True) as sender:
            with impatient(), pytest.raises(RetryableExportError, match="it is full") as caught:
                await sender.export(pods(2000))
            left = caught.value.remaining
            assert left is not None
            assert agent.total(JOULES) + joules([left]) == joules([pods(2000)])
            agent.follow()
            await sender.export(left)
        agent.stop()
        assert agent.total(JOULES) == joules([pods(2000)])


async def test_a_queue_that_stays_full_and_another_agent_at_its_path(tmp_path: Path) -> None:
    """The old agent hangs; its path is the new one's by now."""
    path = tmp_path / "dsd.socket"
    path.symlink_to(tmp_path / "old.socket")
    with unix_agent(tmp_path / "old.socket") as old, unix_agent(tmp_path / "new.socket") as new:
        async with exporter(socket_path=str(path), disable_buffering=True) as sender:
            with impatient(), pytest.raises(RetryableExportError) as caught:
                await sender.export(pods(2000))
            left = caught.value.remaining
            assert left is not None
            path.unlink()
            path.symlink_to(tmp_path / "new.socket")
            new.follow()
            await sender.export(left)
        new.stop()
        assert old.total(JOULES) + new.total(JOULES) == joules([pods(2000)])


async def test_an_export_that_was_cancelled_goes_on_where_it_was(tmp_path: Path) -> None:
    """The pipeline's patience is over; it offers the same batch again."""
    with unix_agent(tmp_path / "dsd.socket") as agent:
        async with exporter(socket_path=str(tmp_path / "dsd.socket"), disable_buffering=True) as sender:
            many = pods(2000)
            async with anyio.create_task_group() as group:
                group.start_soon(sender.export, many)
                while len(agent.packets) < 5:
                    agent.receive_one()
                    await anyio.sleep(0.001)
                group.cancel_scope.cancel()
            assert 0 < agent.total(JOULES) < joules([many])
            agent.follow()
            await sender.export(many)
        agent.stop()
        assert agent.total(JOULES) == joules([pods(2000)])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says which datagram was refused")
async def test_refusals_that_come_late_are_of_packets_that_are_sent_first_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As from another machine: the refusal is seen only when the batch was given for delivered."""
    look = _agent.Agent._look
    with udp_agent() as agent:
        async with exporter(agent_host="127.0.0.1", agent_port=agent.port) as sender:

            async def look_away(self: _agent.Agent, fault: OSError | None = None) -> None:
                return None

            await sender.export(pods(20, 0))
            agent.stop()
            monkeypatch.setattr(_agent.Agent, "_look", look_away)
            await sender.export(pods(20, 1))
            monkeypatch.setattr(_agent.Agent, "_look", look)
            agent.start()
            await sender.export(pods(20, 2))
        assert agent.total(JOULES) == 3 * joules([pods(20)])
        assert len(agent.packets) >= 6
        assert len(agent.metrics) == 120


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says which datagram was refused")
async def test_what_was_refused_at_the_very_end_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def look_away(self: _agent.Agent, fault: OSError | None = None) -> None:
        return None

    monkeypatch.setattr(_agent.Agent, "_look", look_away)
    with udp_port_of_nobody() as port:
        async with exporter(agent_host="127.0.0.1", agent_port=port) as sender:
            await sender.export(usual())
    assert "1 packets of the last windows turned out to be refused" in caplog.text


async def test_where_the_system_does_not_say_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: there is the error alone, and it is that of the packet before."""
    monkeypatch.setattr(_agent, "ask_for_refusals", lambda sock: False)
    agent, made_exporter = made("udp", tmp_path)
    with closing(agent):
        async with made_exporter as sender:
            await sender.export(usual(0))
            agent.stop()
            with pytest.raises(RetryableExportError, match="nobody listens there") as caught:
                await sender.export(usual(1))
            agent.start()
            assert caught.value.remaining is not None
            await sender.export(caught.value.remaining)
        assert agent.total(JOULES) == 800.0


async def test_another_machine_has_some_time_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_agent, "ip_address", lambda text: SimpleNamespace(is_loopback=False))
    with udp_agent() as agent:
        async with exporter(agent_host="127.0.0.1", agent_port=agent.port) as sender:
            agent.stop()
            with pytest.raises(RetryableExportError, match="nobody listens there") as caught:
                await sender.export(pods(20))
            assert caught.value.remaining is not None
            agent.start()
            await sender.export(caught.value.remaining)
        assert agent.total(JOULES) == joules([pods(20)])


async def test_a_cancellation_while_refusals_come_back_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_agent, "ip_address", lambda text: SimpleNamespace(is_loopback=False))
    monkeypatch.setattr(_agent, "GRACE_SECONDS", 60.0)
    with udp_agent() as agent:
        async with exporter(agent_host="127.0.0.1", agent_port=agent.port) as sender:
            agent.stop()
            many = pods(20)
            with anyio.move_on_after(0.3) as scope:
                await sender.export(many)
            assert scope.cancelled_caught
            monkeypatch.setattr(_agent, "GRACE_SECONDS", 0.0)
            agent.start()
            await sender.export(many)
        assert agent.total(JOULES) == joules([many])


async def test_a_name_with_several_addresses() -> None:
    """Each is tried in turn."""
    with udp_agent() as agent, udp_port_of_nobody() as port:
        dead, alive = (socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET, ("127.0.0.1", agent.port))

        async def places() -> list[_agent.Place]:
            return [dead, alive]

        sender = _agent.Agent("it", places, 1432)
        parcels = [Parcel((), (b"a:1|c",))]
        with pytest.raises(NotDelivered, match="it: nobody listens there"):
            await sender.deliver(parcels)
        await sender.deliver(parcels)
        await sender.deliver(parcels)
        assert sender.close() == 0
        assert agent.total("a") == 1.0


async def test_names_are_looked_up_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_agent, "_LOOK_UP_AGAIN_SECONDS", 0.0)
    lookups = 0
    with udp_agent() as agent:

        async def places() -> list[_agent.Place]:
            nonlocal lookups
            lookups += 1
            return [(socket.AF_INET, ("127.0.0.1", agent.port))]

        sender = _agent.Agent("it", places, 1432)
        for _ in range(3):
            await sender.deliver([Parcel((), (b"a:1|c",))])
        sender.close()
        assert agent.total("a") == 3.0
    assert lookups == 3


async def test_a_name_is_looked_up_anew_after_a_refusal() -> None:
    """The agent's pod has moved, and its name with it."""
    with udp_agent() as old, udp_agent() as new:
        places: list[list[_agent.Place]] = [[(socket.AF_INET, ("127.0.0.1", agent.port))] for agent in (old, new)]

        async def look_up() -> list[_agent.Place]:
            return places.pop(0)

        agent, parcels = _agent.Agent("agent", look_up, 1432), [Parcel((), (b"a:1|c",))]
        await agent.deliver([Parcel((), (b"a:1|c",))])
        old.stop()
        with pytest.raises(NotDelivered):
            await agent.deliver(parcels)
        await agent.deliver(parcels)
        assert agent.close() == 0
        assert new.total("a") == 1.0


async def test_localhost_is_ipv4_first() -> None:
    with udp_agent() as agent:
        async with exporter(agent_host="localhost", agent_port=agent.port) as sender:
            await sender.export(usual())
        assert agent.total(JOULES) == 400.0


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
async def test_ipv6() -> None:
    try:
        agent = Agent(socket.AF_INET6, ("::1", 0), 1432)
    except OSError:
        pytest.skip("there is no IPv6 loopback here")
    with closing(agent):
        async with exporter(agent_host="::1", agent_port=agent.port) as sender:
            await sender.export(usual())
        assert agent.total(JOULES) == 400.0
    with udp_port_of_nobody("::1") as port:
        async with exporter(agent_host="::1", agent_port=port) as sender:
            with pytest.raises(RetryableExportError, match="nobody listens there"):
                await sender.export(usual())


async def test_a_name_that_nobody_has() -> None:
    async with exporter(agent_host="no-such-host.invalid") as sender:
        with pytest.raises(RetryableExportError, match=r"DogStatsD at no-such-host\.invalid:8125: "):
            await sender.export(usual())


async def test_a_stream_socket(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as stream:
        stream.bind(str(tmp_path / "dsd.socket"))
        stream.listen()
        async with exporter(socket_path=str(tmp_path / "dsd.socket")) as sender:
            with pytest.raises(RetryableExportError, match="not for datagrams"):
                await sender.export(usual())


def test_packets_are_as_few_as_can_be() -> None:
    parcels = [Parcel((), (b"a" * 40, b"b" * 40)), Parcel((), (b"c" * 18,)), Parcel((), (b"d",)), Parcel((), (b"e",))]
    packets = packed(parcels, 100)
    assert [len(packet.data) for packet in packets] == [100, 3]
    assert [packet.completes for packet in packets] == [parcels[:2], parcels[2:]]


def test_a_packet_has_as_many_bytes_as_it_may_and_not_one_more() -> None:
    for second, count in ((59, 1), (60, 2)):
        parcels = [Parcel((), (b"a" * 40,)), Parcel((), (b"b" * second,))]
        assert len(packed(parcels, 100)) == count


def test_a_parcel_larger_than_a_packet_comes_line_by_line() -> None:
    parcels = [Parcel((), (b"x",)), Parcel((), (b"a" * 90, b"b" * 90)), Parcel((), (b"y",)), Parcel((), (b"z",))]
    packets = packed(parcels, 100)
    assert [packet.data for packet in packets] == [b"x", b"a" * 90, b"b" * 90, b"y\nz"]
    assert [packet.completes for packet in packets] == [parcels[:1], [], parcels[1:2], parcels[2:]]

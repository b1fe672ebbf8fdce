"""The application's own use of the library `datadog` is none of our business, and ours none of its."""

from __future__ import annotations

from datadog import api
from datadog.dogstatsd import base

from tests.exporter_datadog.batches import JOULES, exporter, usual
from tests.exporter_datadog.receivers import KEY, intake, udp_agent


def shared_state() -> dict[str, object]:
    constants = {f"api.{name}": value for name, value in vars(api).items() if name.startswith("_") and name[1] != "_"}
    client = {f"statsd.{name}": repr(value) for name, value in vars(base.statsd).items()}
    return {**constants, **client, "instances": set(base._instances)}


async def test_nothing_shared_changes() -> None:
    base.statsd.constant_tags = ["of:the-application"]
    before = shared_state()
    with udp_agent() as agent, intake() as receiver:
        async with (
            exporter(agent_host="127.0.0.1", agent_port=agent.port) as by_udp,
            exporter(api_key=KEY, api_url=receiver.url) as by_http,
        ):
            await by_udp.export(usual())
            await by_http.export(usual())
            assert shared_state() == before
        assert shared_state() == before
        assert all("of:the-application" not in metric.tags for metric in agent.metrics)
    base.statsd.constant_tags = []


async def test_the_applications_client_goes_on_working() -> None:
    with udp_agent() as agent:
        own = base.DogStatsd(host="127.0.0.1", port=agent.port, disable_telemetry=True)
        async with exporter(agent_host="127.0.0.1", agent_port=agent.port) as sender:
            await sender.export(usual())
        own.count("mine", 1)
        own.close_socket()
        agent.packets = [packet.rstrip(b"\n") for packet in agent.packets]
        agent.receive()
        assert agent.packets[-1].startswith(b"mine:1|c")


async def test_several_in_one_process() -> None:
    with udp_agent() as one, udp_agent() as other:
        async with (
            exporter(agent_host="127.0.0.1", agent_port=one.port) as first,
            exporter(agent_host="127.0.0.1", agent_port=other.port) as second,
        ):
            await first.export(usual(watts=1.0))
            await second.export(usual(watts=2.0))
        assert (one.total(JOULES), other.total(JOULES)) == (10.0, 20.0)

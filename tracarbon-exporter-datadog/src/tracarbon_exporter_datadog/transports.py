"""The two ways to Datadog, as the exporter sees them."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Protocol

from tracarbon.exceptions import TracarbonException
from tracarbon.plugin import PluginContext

from tracarbon_exporter_datadog._agent import UDP_PACKET_BYTES, UNIX_PACKET_BYTES, Agent, Place
from tracarbon_exporter_datadog._intake import Intake
from tracarbon_exporter_datadog._lines import LineWriter
from tracarbon_exporter_datadog._parcel import Parcel, Progress
from tracarbon_exporter_datadog.options import AgentTarget, ApiTarget, DatadogOptions, target_of
from tracarbon_exporter_datadog.series import Delivery


class Transport(Protocol):
    """A way to Datadog; opened and closed any number of times."""

    name: str
    """Where it leads to, for messages."""
    has_own_time: bool
    """Whether points have a time; else the receiver goes by its own clock."""

    @property
    def is_open(self) -> bool:
        """Whether it was opened."""
        ...

    async def open(self, context: PluginContext) -> None:
        """Get ready; nothing is sent. Raises `NotDelivered` where nothing ever could be."""

    def write(self, parcel: Parcel, second: int) -> None:
        """Write the points of a parcel as they are sent; blocks. Raises ValueError where that cannot be."""

    async def deliver(self, parcels: Sequence[Parcel]) -> None:
        """Send what is not done. Raises `NotDelivered`."""

    async def close(self) -> int:
        """Let go of everything; returns how many packets are known to have been lost."""
        ...


class _ToAgent:
    """By DogStatsD. The agent gives points the time at which it gets them."""

    has_own_time = False

    def __init__(self, target: AgentTarget, options: DatadogOptions) -> None:
        self.name = target.name
        self._target = target
        self._options = options
        self._agent: Agent | None = None
        self._writer: LineWriter | None = None

    @property
    def is_open(self) -> bool:
        return self._agent is not None

    async def open(self, context: PluginContext) -> None:
        async def places() -> Sequence[Place]:
            result: Sequence[Place] = await context.run_blocking(_places_of, self._target)
            return result

        default_bytes = UDP_PACKET_BYTES if self._target.path is None else UNIX_PACKET_BYTES
        self._writer = self._writer or await context.run_blocking(LineWriter)
        self._agent = Agent(
            self._target.name,
            places,
            self._options.max_packet_bytes or default_bytes,
            one_line_each=self._options.disable_buffering,
        )

    def write(self, parcel: Parcel, second: int) -> None:
        assert self._writer is not None
        parcel.wire = self._writer.lines(parcel.points)

    async def deliver(self, parcels: Sequence[Parcel]) -> None:
        assert self._agent is not None
        await self._agent.deliver(parcels)

    async def close(self) -> int:
        agent, self._agent = self._agent, None
        return agent.close() if agent is not None else 0


class _ToApi:
    """By HTTP. Points have a time."""

    has_own_time = True

    def __init__(self, target: ApiTarget) -> None:
        self.name = f"Datadog's API at {target.url}"
        self._target = target
        self._intake: Intake | None = None

    @property
    def is_open(self) -> bool:
        return self._intake is not None

    async def open(self, context: PluginContext) -> None:
        target = self._target
        if target.is_readable_on_the_way:
            context.logger.warning("%s is not https: the key crosses the network readably", target.url)
        intake = Intake(target.url, target.headers, target.hostname or socket.gethostname(), context.run_blocking)
        await intake.open()
        self._intake = intake

    def write(self, parcel: Parcel, second: int) -> None:
        assert self._intake is not None
        self._intake.write(parcel, second)

    async def deliver(self, parcels: Sequence[Parcel]) -> None:
        assert self._intake is not None
        await self._intake.deliver(parcels)

    async def close(self) -> int:
        intake, self._intake = self._intake, None
        if intake is not None:
            await intake.close()
        return 0


def made_transport(options: DatadogOptions) -> Transport:
    """Return the way that options and environment say.

    Raises:
        TracarbonException: they say none, or two.
    """
    try:
        target = target_of(options, os.environ)
    except ValueError as error:
        raise TracarbonException(str(error)) from None
    return _ToAgent(target, options) if isinstance(target, AgentTarget) else _ToApi(target)


def write_all(transport: Transport, delivery: Delivery) -> None:
    """Write what is not done; blocks."""
    for parcel in delivery.parcels:
        if parcel.progress is Progress.DONE:
            continue
        try:
            transport.write(parcel, delivery.second)
        except ValueError as error:
            parcel.drop(str(error))


def _places_of(target: AgentTarget) -> Sequence[Place]:
    """Return the addresses of an agent, IPv4 first: that is what it listens on unless told otherwise."""
    if target.path is not None:
        return [(socket.AF_UNIX, target.path)]
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_DGRAM)
    return sorted(
        ((family, address) for family, _, _, _, address in found), key=lambda place: place[0] != socket.AF_INET
    )

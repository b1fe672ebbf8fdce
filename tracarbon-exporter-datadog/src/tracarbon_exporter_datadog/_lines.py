"""Lines of DogStatsD's protocol, as Datadog's own client writes them.

The client has the last word on how a line looks: tags, and the container and entity that the agent goes by to find
where it comes from. Its own socket swallows errors and drops what it could not send, so it gets one that only collects;
who sends, and knows what was sent, is `_agent`. The client is ours alone: the module's `statsd`, which the application
may use, and the hooks for forks are left as they are.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from tracarbon_exporter_datadog._parcel import Point


class LineWriter:
    """Writes points as lines. Blocks while it is made: it imports the client, and looks for the container."""

    def __init__(self) -> None:
        from datadog.dogstatsd.base import DogStatsd

        self._client = DogStatsd(
            host="127.0.0.1",  # never used; without one, the client would look for its own in the environment
            port=8125,
            disable_buffering=True,
            disable_aggregation=True,
            disable_telemetry=True,
            track_instance=False,
        )
        own: Any = [tag for tag in self._client.constant_tags if tag.startswith("dd.internal.")]
        self._client.constant_tags = own
        self._collected = _Collected()
        client: Any = self._client
        client.socket = self._collected

    def lines(self, points: Iterable[Point]) -> tuple[bytes, ...]:
        """Return each point as a line, without its end.

        Raises:
            ValueError: the client would not write one.
        """
        wanted = 0
        for point in points:
            write = self._client.gauge if point.kind == "gauge" else self._client.count
            write(point.name, point.value, tags=list(point.tags))
            wanted += 1
        lines = self._collected.taken()
        if len(lines) != wanted:
            raise ValueError("Datadog's client does not write it")
        return lines


class _Collected:
    """Stands where the client expects its socket, and keeps what it is given."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self._packets: list[bytes] = []

    def getsockopt(self, level: int, option: int) -> int:
        return socket.SOCK_DGRAM

    def send(self, packet: bytes) -> int:
        self._packets.append(packet)
        return len(packet)

    def close(self) -> None:
        """Nothing is open."""

    def taken(self) -> tuple[bytes, ...]:
        packets, self._packets = self._packets, []
        return tuple(packet.rstrip(b"\n") for packet in packets)

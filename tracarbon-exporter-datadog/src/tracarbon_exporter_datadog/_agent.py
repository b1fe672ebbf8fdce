"""Sending to an agent's DogStatsD, by UDP or by a Unix socket, and knowing what was not sent.

A send that goes well says: by a Unix socket, that the datagram is in the receiver's queue; by UDP, that it left. Every
error that the kernel tells, at once or after the fact, is that of one datagram that was not delivered, and it is known
which. What got lost on a network, or in an agent that ended before it read its queue, nobody tells.
Protocol: https://docs.datadoghq.com/extend/dogstatsd/datagram_shell/
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from tracarbon_exporter_datadog._parcel import NotDelivered, Parcel, Progress, undone
from tracarbon_exporter_datadog._refusals import ask_for_refusals, in_words, pending_error, refusals

UDP_PACKET_BYTES = 1432
"""Fits into a frame of Ethernet; Datadog's clients keep to it."""
UNIX_PACKET_BYTES = 8192
"""What an agent reads at once, unless it is told otherwise (`dogstatsd_buffer_size`)."""

PATIENCE_SECONDS = 2.0
"""How long a receiver with a full queue is waited for."""
GRACE_SECONDS = 0.05
"""How long a refusal may take to come back from another machine."""
_FULL_DEVICE_SECONDS = 0.01
_LOOK_UP_AGAIN_SECONDS = 60.0
_TRIES = 3
_BURST_PACKETS = 32
"""As many as fit into the queue of a receiver by UDP, by Linux' default; what does not is dropped without a word."""
_PAUSE_SECONDS = 0.005
_GONE = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE, errno.ENOENT, errno.EDESTADDRREQ})
_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS})

Place: TypeAlias = tuple[int, Any]
"""Family and address of a socket."""


@dataclass(slots=True, eq=False)
class Packet:
    """A datagram.

    Attributes:
        completes: the parcels that have arrived with it.
        part_of: the parcel of which it is a line that is not the last.
    """

    data: bytes
    completes: list[Parcel] = field(default_factory=list)
    part_of: Parcel | None = None


def packed(parcels: Iterable[Parcel], most_bytes: int, *, one_line_each: bool = False) -> list[Packet]:
    """Put the lines of parcels into as few packets as there can be; one that has a line too long is dropped.

    A parcel is in one packet, unless it is larger than any: then its lines are in packets of their own, in order.
    """
    packets: list[Packet] = []
    size = most_bytes
    for parcel in parcels:
        longest = max(map(len, parcel.wire), default=0)
        if longest > most_bytes:
            parcel.drop(f"it takes {longest} bytes, and a packet has {most_bytes}")
            continue
        together = b"\n".join(parcel.wire)
        if one_line_each or len(together) > most_bytes:
            packets += [Packet(line, part_of=parcel) for line in parcel.wire[:-1]]
            packets += [Packet(line) for line in parcel.wire[-1:]]
            size = most_bytes
        elif size + 1 + len(together) > most_bytes:
            packets.append(Packet(together))
            size = len(together)
        else:
            packets[-1].data += b"\n" + together
            size += 1 + len(together)
        packets[-1].completes.append(parcel)
    return packets


class Agent:
    """A DogStatsD server.

    Args:
        name: for messages.
        places: gives the addresses that it may be at.
        most_bytes: of a packet.
        one_line_each: whether each line has a packet of its own.
    """

    def __init__(
        self,
        name: str,
        places: Callable[[], Awaitable[Sequence[Place]]],
        most_bytes: int,
        *,
        one_line_each: bool = False,
    ) -> None:
        self._name = name
        self._places = places
        self._most_bytes = most_bytes
        self._one_line_each = one_line_each
        self._socket: socket.socket | None = None
        self._connected_at = 0.0
        self._tries = 0
        self._has_choice = False
        self._is_udp = False
        self._is_near = True
        self._tells_which = False
        self._sent: list[Packet] = []
        self._owed: list[Packet] = []

    def close(self) -> int:
        """Let go of the socket; returns how many packets were refused after their batch was taken for delivered."""
        self._take_back(self._refused(), is_late=True)
        self._disconnect()
        return len(self._owed)

    async def deliver(self, parcels: Iterable[Parcel]) -> None:
        """Send what was not sent yet.

        Raises:
            NotDelivered: parcels that are not done were not sent.
        """
        self._take_back(self._refused(), is_late=True)
        self._sent.clear()
        if self._is_udp and time.monotonic() - self._connected_at > _LOOK_UP_AGAIN_SECONDS:
            self._disconnect()
        while self._owed:
            await self._send(self._owed[0])
        packets = packed(undone(parcels), self._most_bytes, one_line_each=self._one_line_each)
        for number, packet in enumerate(packets, start=1):
            await self._send(packet)
            if number % _BURST_PACKETS == 0:
                await (anyio.sleep(_PAUSE_SECONDS) if self._is_udp else checkpoint())
        if self._sent and self._is_udp:
            await (checkpoint() if self._is_near else anyio.sleep(GRACE_SECONDS))
            await self._look()

    async def _send(self, packet: Packet) -> None:
        for _ in range(_TRIES):
            sock = await self._connected()
            try:
                sock.send(packet.data)
            except OSError as error:
                fault = error
            else:
                self._note_sent(packet)
                return
            await self._overcome(sock, fault)
        raise self._not_delivered(fault)

    def _note_sent(self, packet: Packet) -> None:
        if self._owed and packet is self._owed[0]:
            del self._owed[0]
        self._sent.append(packet)
        for parcel in packet.completes:
            parcel.progress = Progress.DONE

    async def _overcome(self, sock: socket.socket, fault: OSError) -> None:
        """Return where another try is worth it.

        Raises:
            NotDelivered: it is not.
        """
        if fault.errno in _FULL:
            await self._wait_for_room(sock, fault)
        elif self._is_udp and (fault.errno == errno.ECONNREFUSED or self._tells_which):
            await self._look(fault)  # most errors are those of an earlier packet
            if fault.errno != errno.ECONNREFUSED:
                raise self._not_delivered(fault)
        elif not self._is_udp and fault.errno in _GONE:
            self._disconnect()
        else:
            raise self._not_delivered(fault)

    async def _wait_for_room(self, sock: socket.socket, fault: OSError) -> None:
        with anyio.move_on_after(PATIENCE_SECONDS) as scope:
            await anyio.wait_writable(sock)
            if self._is_udp:
                await anyio.sleep(_FULL_DEVICE_SECONDS)  # the socket has room, what is behind it has not
        if scope.cancelled_caught:
            if not self._is_udp:
                self._disconnect()  # another agent may listen at its path by now
            raise self._not_delivered(fault)

    async def _look(self, fault: OSError | None = None) -> None:
        """Look for refusals.

        Raises:
            NotDelivered: there are some.
        """
        refused = self._refused(fault)
        if not refused:
            return
        self._take_back(refused)
        if not self._is_near:
            await anyio.sleep(GRACE_SECONDS)
            self._take_back(self._refused())
        self._tries += self._has_choice
        self._disconnect()  # its name may lead elsewhere by now
        raise self._not_delivered(fault or OSError(errno.ECONNREFUSED, ""))

    def _refused(self, fault: OSError | None = None) -> list[Packet]:
        """Return the packets that were refused since the last look; `fault` is what a send raised for one of them."""
        if self._socket is None or not self._is_udp:
            return []
        if not self._tells_which:
            # The error of a datagram is there when the next one is sent, or before.
            found = self._sent[-1:] if fault or pending_error(self._socket) else []
        else:
            found = []
            for quoted in refusals(self._socket):
                found += [packet for packet in self._sent if packet not in found and packet.data.startswith(quoted)][:1]
        if found:
            self._sent = [packet for packet in self._sent if packet not in found]
        return found

    def _take_back(self, packets: Sequence[Packet], *, is_late: bool = False) -> None:
        """Note that packets did not arrive. What is late is not the pipeline's any more, so it goes first next time."""
        if not is_late:
            for parcel in (parcel for packet in packets for parcel in packet.completes):
                parcel.progress = Progress.WAITING
        for packet in packets:
            comes_again = packet.completes or (packet.part_of and packet.part_of.progress is not Progress.DONE)
            if is_late or not comes_again:
                self._owed.append(Packet(packet.data))

    async def _connected(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        try:
            places = await self._places()
            family, address = places[self._tries % len(places)]
            self._socket = _connected_socket(family, address)
        except OSError as error:
            fault = error
        else:
            self._has_choice = len(places) > 1
            self._is_udp = family in (socket.AF_INET, socket.AF_INET6)
            self._is_near = not self._is_udp or ip_address(address[0].partition("%")[0]).is_loopback
            self._tells_which = self._is_udp and ask_for_refusals(self._socket)
            self._connected_at = time.monotonic()
            return self._socket
        self._tries += 1
        raise self._not_delivered(fault)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _not_delivered(self, fault: OSError) -> NotDelivered:
        return NotDelivered(f"{self._name}: {in_words(fault)}")


def _connected_socket(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock

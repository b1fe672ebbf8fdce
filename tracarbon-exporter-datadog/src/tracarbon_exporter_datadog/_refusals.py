"""What the kernel tells, after the fact, of UDP datagrams that nobody took.

A datagram that arrives where nobody listens comes back as an ICMP error. Linux keeps those of a socket in its error
queue, each with the datagram that it is about (`man 7 ip`, IP_RECVERR). Elsewhere there is only the error itself.
"""

from __future__ import annotations

import errno
import os
import socket
import sys

# Linux's; Python has no names for them before 3.14.
_IP_RECVERR = 11
_IPV6_RECVERR = 25
_MOST_BYTES = 65_536

_WORDS = {
    errno.ECONNREFUSED: "nobody listens there",
    errno.ENOENT: "there is no such socket",
    errno.EAGAIN: "it is full, and takes nothing more for now",
    errno.EPROTOTYPE: "it is a socket for streams, not for datagrams",
    errno.EACCES: "this user may not write to it",
    errno.EMSGSIZE: "packets are too large: give a smaller max_packet_bytes",
}


def in_words(error: OSError) -> str:
    """Return what an error says of a receiver."""
    number = error.errno or 0
    return _WORDS.get(number) or error.strerror or (os.strerror(number) if number else str(error))


def ask_for_refusals(sock: socket.socket) -> bool:
    """Have the kernel keep refused datagrams of a socket; returns whether it does."""
    if not sys.platform.startswith("linux"):
        return False
    is_ipv6 = sock.family == socket.AF_INET6
    level, option = (socket.IPPROTO_IPV6, _IPV6_RECVERR) if is_ipv6 else (socket.IPPROTO_IP, _IP_RECVERR)
    try:
        sock.setsockopt(level, option, 1)
    except OSError:
        return False
    return True


def refusals(sock: socket.socket) -> list[bytes]:
    """Return what was refused since the last call: the beginning of each datagram, as far as it was sent back."""
    found: list[bytes] = []
    while True:
        try:
            found.append(sock.recvmsg(_MOST_BYTES, 512, socket.MSG_ERRQUEUE)[0])
        except BlockingIOError:
            break
    pending_error(sock)  # the queue has told of it
    return found


def pending_error(sock: socket.socket) -> int:
    """Return the number of the error that the next send would raise, and clear it; 0 where there is none."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

"""Sockets that listen on an address, of whichever families it is."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, TypeAlias

_Address: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]

_BACKLOG = 1024
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_ATTEMPTS = 10


def listen(address: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on all that `address` stands for, and on one port. Blocks while a name is resolved.

    Args:
        address: an address, or a name, whose addresses this machine need not have all; `::` is every address, of IPv4
            too.
        port: 0 for any that is free.

    Raises:
        OSError: none of it can be listened on, or the port is taken.
    """
    if address == "::" and socket.has_dualstack_ipv6():
        listener = socket.create_server((address, port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
        listener.setblocking(False)
        return [listener]
    addresses = _resolved(address)
    for _ in range(_ATTEMPTS - 1):
        try:
            return _listen_on(addresses, port)
        except OSError as error:
            # What is free on the first address may be taken on the second.
            if port != 0 or error.errno != errno.EADDRINUSE:
                raise
    return _listen_on(addresses, port)


def _resolved(name: str) -> list[_Address]:
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except ValueError as error:  # no name can be written so
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from error
    return list(dict.fromkeys((family, where) for family, *_, where in found))


def _listen_on(addresses: Iterable[_Address], port: int) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    missing = OSError(errno.EADDRNOTAVAIL, "it has no address")
    with ExitStack() as opened:
        for family, where in addresses:
            try:
                listener = socket.create_server((where[0], port, *where[2:]), family=family, backlog=_BACKLOG)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
                continue
            listeners.append(opened.enter_context(listener))
            listener.setblocking(False)
            port = listener.getsockname()[1]
        if not listeners:
            raise missing
        opened.pop_all()
    return listeners

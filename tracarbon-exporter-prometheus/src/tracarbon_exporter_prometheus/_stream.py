"""A client's bytes, plain or through TLS."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")

_CHUNK_BYTES = 65_536
_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""On, and no seconds: a close throws away what was not sent, and resets the connection."""


class Stream:
    """A socket that is read when somebody wants to: what nobody asked for stays with the kernel, and with the client.

    Every method may raise `OSError`: the client is gone, or does not speak TLS.
    """

    def __init__(self, client: socket.socket) -> None:
        self._socket = client
        self._is_sending = False
        client.setblocking(False)
        # An answer's body must not wait until the client has acknowledged its head.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def secure(self, context: ssl.SSLContext) -> None:
        """Shake hands; from then on everything goes through TLS."""
        secured = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket = secured
        await self._when_ready(secured.do_handshake, anyio.wait_readable)

    async def receive(self, most_bytes: int) -> bytes:
        """Return what the client has sent; nothing if it will not send any more."""
        return await self._when_ready(partial(self._socket.recv, most_bytes), anyio.wait_readable)

    async def send(self, data: bytes) -> None:
        """Hand everything to the kernel."""
        self._is_sending = True
        rest = memoryview(data)
        while rest:
            send = partial(self._socket.send, rest[:_CHUNK_BYTES])
            rest = rest[await self._when_ready(send, anyio.wait_writable) :]
        self._is_sending = False

    async def drain(self) -> None:
        """Say that there is nothing more to come, and wait for the client to say so.

        A socket that is closed with bytes unread takes back what was sent last.
        """
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while await self.receive(_CHUNK_BYTES):
                pass

    def close(self) -> None:
        """Let go of the client, at once if it has not taken what it was being sent.

        Half an answer is of no use to it, and would stay with the kernel for as long as the client does not read.
        """
        if self._is_sending:
            with suppress(OSError):  # the client is gone already
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()

    async def _when_ready(self, call: Callable[[], T], wait: Callable[[socket.socket], Awaitable[None]]) -> T:
        await anyio.lowlevel.checkpoint()  # others have their turn, however much there is to read
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                await anyio.wait_readable(self._socket)
            except ssl.SSLWantWriteError:
                await anyio.wait_writable(self._socket)
            except BlockingIOError:
                await wait(self._socket)

"""A small HTTP server with an event loop and a thread of its own, so that nobody waits for its clients.

Each connection is a task with deadlines: clients that send nothing, too much or too slowly are let go of, and where
there are too many, the one that has been quiet for longest.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import anyio
import h11
from anyio.abc import TaskGroup
from anyio.lowlevel import current_token

from tracarbon_exporter_prometheus._certificates import CertificateError, Certificates
from tracarbon_exporter_prometheus._http import Connection, Limits, Request, Response
from tracarbon_exporter_prometheus._listening import listen
from tracarbon_exporter_prometheus._stream import Stream


class Server:
    """Serves `respond` on a port.

    Args:
        address: what to listen on; `::` is every address, of IPv4 too.
        port: 0 for any that is free.
        respond: called for each request, in the server's thread; must not wait.
        certificates: for TLS.
        warn: called with what an administrator should know, in the server's thread.
        limits: how much clients may take.
    """

    def __init__(
        self,
        address: str,
        port: int,
        respond: Callable[[Request], Response],
        *,
        certificates: Certificates | None = None,
        warn: Callable[[str], None],
        limits: Limits | None = None,
    ) -> None:
        self._address = address
        self.port = port
        self._respond = respond
        self._certificates = certificates
        self._warn = warn
        self._warned: set[str] = set()
        self._limits = limits or Limits()
        self._error: BaseException | None = None
        self._stop: Callable[[], None] | None = None
        self._is_abandoned = False
        self._connections: dict[Connection, None] = {}
        """Those that have been quiet for longest come first."""

    async def start(self) -> None:
        """Listen; returns once it does, and `port` is known.

        Raises:
            OSError: the address or the port cannot be had.
        """
        call_back = _caller_into_this_loop()
        settled, self._ended = anyio.Event(), anyio.Event()
        tell = partial(call_back, settled.set), partial(call_back, self._ended.set)
        threading.Thread(target=self._run_thread, args=tell, name="tracarbon-prometheus-http", daemon=True).start()
        try:
            await settled.wait()
        except BaseException:
            self._is_abandoned = True
            if self._stop is not None:
                self._stop()
            raise
        if self._error is not None:
            raise self._error

    async def stop(self) -> None:
        """Let go of every client and of the port."""
        if self._stop is not None:
            self._stop()
            await self._ended.wait()

    def _run_thread(self, tell_settled: Callable[[], None], tell_ended: Callable[[], None]) -> None:
        try:
            with ExitStack() as listening:
                listeners = [listening.enter_context(listener) for listener in listen(self._address, self.port)]
                self.port = listeners[0].getsockname()[1]
                anyio.run(self._run, listeners, tell_settled, backend="asyncio")
        except BaseException as error:  # `start` raises it; later, nobody would hear of it
            self._error = error
            if self._stop is not None:
                self._warn(f"the server has ended, nothing is served any more: {_described(error)}")
        tell_settled()
        tell_ended()

    async def _run(self, listeners: Sequence[socket.socket], tell_settled: Callable[[], None]) -> None:
        stopping = anyio.Event()
        self._stop = partial(_caller_into_this_loop(), stopping.set)
        if self._is_abandoned:
            return
        async with anyio.create_task_group() as group:
            for listener in listeners:
                group.start_soon(self._accept, listener, group)
            tell_settled()
            await stopping.wait()
            group.cancel_scope.cancel()

    async def _accept(self, listener: socket.socket, group: TaskGroup) -> None:
        while True:
            await anyio.wait_readable(listener)
            try:
                client, _ = listener.accept()
            except (BlockingIOError, ConnectionError):  # gone before its turn came
                continue
            except OSError as error:  # no file descriptors left, as a rule
                self._warn_once("accept", f"no more connections can be accepted for now: {error.strerror}")
                for connection in [*self._connections][:1]:
                    self._let_go_of(connection)
                await anyio.sleep(self._limits.pause_seconds)
            else:
                group.start_soon(self._serve, client)

    async def _serve(self, client: socket.socket) -> None:
        connection = Connection(Stream(client), self._limits)
        self._connections[connection] = None
        self._make_room()
        try:
            with connection.scope:
                await self._converse(connection)
        except OSError:  # the client is gone, or does not speak TLS
            pass
        except Exception as error:  # one client must not end the server
            self._warn_once(f"client {type(error)}", f"a client was let go of: {_described(error)}")
        finally:
            self._connections.pop(connection, None)
            connection.stream.close()

    async def _converse(self, connection: Connection) -> None:
        if self._certificates is not None and not await self._has_shaken_hands(connection, self._certificates):
            return
        try:
            while (request := await connection.receive()) is not None:
                response = self._answer(request)
                connection.pending_bytes = len(response.body)
                self._connections[connection] = self._connections.pop(connection, None)
                self._make_room()
                if not await connection.send(response):
                    return
                connection.pending_bytes = 0
        except h11.RemoteProtocolError as error:
            await connection.refuse(error)

    async def _has_shaken_hands(self, connection: Connection, certificates: Certificates) -> bool:
        try:
            certificates.refresh()
        except CertificateError as error:
            self._warn(f"the former certificate goes on being used: {error}")
        with anyio.move_on_after(self._limits.request_seconds):
            try:
                await connection.stream.secure(certificates.context)
            except ssl.SSLError:  # the client has been sent a word about why, which it is to read
                await connection.stream.drain()
            else:
                return True
        return False

    def _answer(self, request: Request) -> Response:
        try:
            return self._respond(request)
        except Exception as error:  # a bug of ours must not end the server
            self._warn_once(f"answer {type(error)}", f"{request.path} cannot be answered: {_described(error)}")
            return Response(500, b"internal error\n")

    def _make_room(self) -> None:
        """Where there are too many clients, or their answers are too large, let go of the quietest but the latest."""
        while len(self._connections) > self._limits.connections:
            self._let_go_of(next(iter(self._connections)))
        answering = [connection for connection in self._connections if connection.pending_bytes]
        while len(answering) > 1 and sum(it.pending_bytes for it in answering) > self._limits.pending_bytes:
            self._let_go_of(answering.pop(0))

    def _let_go_of(self, connection: Connection) -> None:
        del self._connections[connection]
        connection.scope.cancel()

    def _warn_once(self, about: str, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            self._warn(message)


def _described(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):  # a task group's
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _caller_into_this_loop() -> Callable[[Callable[[], object]], None]:
    """Return a function with which other threads have something called in the running event loop."""
    loop: Any = current_token().native_token
    call_soon = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon

    def call(function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # that loop has ended
            call_soon(function)

    return call

"""HTTP/1.1 with one client, request by request, within limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

import anyio
import h11

from tracarbon_exporter_prometheus._stream import Stream

_BEFORE_THE_PATH = re.compile(r"\Ahttps?://[^/?#]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may take.

    Attributes:
        request_seconds: for a handshake, and for a request from its first byte on.
        response_seconds: for taking an answer.
        idle_seconds: between two requests.
        request_bytes: of a request's head, and of its body.
        pending_bytes: of the answers that are under way to all clients.
        connections: at the same time.
        pause_seconds: before another try where the system has no room for a connection.
    """

    request_seconds: float = 10.0
    response_seconds: float = 30.0
    idle_seconds: float = 300.0
    request_bytes: int = 16_384
    pending_bytes: int = 33_554_432
    connections: int = 100
    pause_seconds: float = 0.5


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for.

    Attributes:
        path: without the query.
        headers: by lower-case name; they may hold a password.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """What it is answered."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: Sequence[tuple[str, str]] = field(default_factory=list)


class Connection:
    """A client's connection.

    Attributes:
        stream: the client's bytes.
        scope: what is done for the client happens in it; cancelled, the client is let go of.
        pending_bytes: the size of the answer that the client is taking.
    """

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self.stream = stream
        self.scope = anyio.CancelScope()
        self.pending_bytes = 0
        self._limits = limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.request_bytes)
        self._patience_seconds = limits.request_seconds
        self._has_body = True

    async def receive(self) -> Request | None:
        """Return the next request, its body left aside; `None` if the client is gone, or let the time pass.

        Raises:
            OSError: the client is gone.
            h11.RemoteProtocolError: this is no request.
        """
        request: Request | None = None
        body_bytes = 0
        self._has_body = True
        is_idle = not self._http.trailing_data[0]
        with anyio.move_on_after(self._patience_seconds if is_idle else self._limits.request_seconds) as waiting:
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    self._http.receive_data(await self.stream.receive(self._limits.request_bytes))
                    if is_idle:
                        is_idle, waiting.deadline = False, anyio.current_time() + self._limits.request_seconds
                elif isinstance(event, h11.Request):
                    request = _as_request(event)
                    self._has_body = request.method != "HEAD"
                    if self._http.they_are_waiting_for_100_continue:
                        return request
                elif isinstance(event, h11.Data):
                    body_bytes += len(event.data)
                    if body_bytes > self._limits.request_bytes:
                        raise h11.RemoteProtocolError("its body is too large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                else:
                    return request if isinstance(event, h11.EndOfMessage) else None
        return None

    async def send(self, response: Response) -> bool:
        """Answer; returns whether the connection can be used for another request.

        Raises:
            OSError: the client is gone.
        """
        with anyio.move_on_after(self._limits.response_seconds) as waiting:
            await self.stream.send(self._head_of(response))
            if self._has_body:
                self._http.send_with_data_passthrough(h11.Data(data=response.body))
                await self.stream.send(response.body)
            self._http.send(h11.EndOfMessage())
        if waiting.cancelled_caught or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        self._patience_seconds = self._limits.idle_seconds
        return True

    async def refuse(self, error: h11.RemoteProtocolError) -> None:
        """Answer what is no request, as far as that can be.

        Raises:
            OSError: the client is gone.
        """
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self.send(Response(error.error_status_hint, b"this is no request that is understood here\n"))
            with anyio.move_on_after(self._limits.request_seconds):
                await self.stream.drain()

    def _head_of(self, response: Response) -> bytes:
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("Cache-Control", "no-store"),
            *response.headers,
        ]
        if self._http.their_state is not h11.DONE:
            headers.append(("Connection", "close"))
        reason = HTTPStatus(response.status).phrase
        return self._http.send(h11.Response(status_code=response.status, headers=headers, reason=reason)) or b""


def _as_request(event: h11.Request) -> Request:
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    target = _BEFORE_THE_PATH.sub("", event.target.decode("latin-1"), count=1)
    return Request(event.method.decode("latin-1"), target.partition("?")[0] or "/", headers)

"""The exporter's HTTP server under test, and what it must not leave behind."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from tracarbon_exporter_prometheus._certificates import Certificates
from tracarbon_exporter_prometheus._http import Limits, Request, Response
from tracarbon_exporter_prometheus._server import Server

from tests.support.raw_http import DEADLINE_SECONDS

PATIENT = Limits(request_seconds=600, response_seconds=600, idle_seconds=600)
BIG_BYTES = 16 * 2**20
"""More than the kernel takes on its own account."""


def respond(request: Request) -> Response:
    if request.path == "/big":
        return Response(200, bytes(BIG_BYTES))
    if request.method == "CONNECT":
        return Response(405, b"")
    return Response(200, f"{request.method} {request.path}".encode())


@asynccontextmanager
async def serving(
    answer: Callable[[Request], Response] = respond,
    *,
    address: str = "127.0.0.1",
    limits: Limits = PATIENT,
    certificates: Certificates | None = None,
    warnings: list[str] | None = None,
) -> AsyncIterator[Server]:
    """A server that has to stop at once in the end, to have said nothing unasked, and to leave nothing behind."""
    said: list[str] = []
    server = Server(
        address,
        0,
        answer,
        certificates=certificates,
        warn=(said if warnings is None else warnings).append,
        limits=limits,
    )
    await server.start()
    try:
        yield server
    finally:
        with anyio.fail_after(DEADLINE_SECONDS):
            await server.stop()
    assert said == []


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tracarbon-prometheus-http"]

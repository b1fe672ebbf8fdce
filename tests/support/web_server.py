"""A web server on the loopback that answers as a test tells it to: well, late, wrong, or not at all."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

import trustme


class Handler(BaseHTTPRequestHandler):
    """One request, answered as the server was told."""

    server: Server
    body: bytes = b""

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers))
        self.server.respond(self)

    def do_PUT(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_CONNECT(self) -> None:
        self.server.requests.append((self.path, self.headers))
        self.send_error(502)

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


Respond = Callable[[Handler], None]


class LoopbackServer(ThreadingHTTPServer):
    """Any web server of the tests; `ended` is set when the test is over, for handlers that hang until then."""

    daemon_threads = True

    def __init__(
        self,
        handler: type[BaseHTTPRequestHandler],
        certificate: trustme.LeafCert | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)
        self.ended = threading.Event()
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.server_address[1]}"
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            certificate.configure_cert(context)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *args: object) -> None:
        """Clients that leave early are what these tests are about."""


class Server(LoopbackServer):
    """Answers as it is told to, and knows what it was asked."""

    def __init__(
        self, respond: Respond, certificate: trustme.LeafCert | None = None, address: tuple[str, int] = ("127.0.0.1", 0)
    ) -> None:
        super().__init__(Handler, certificate, address)
        self.respond = respond
        self.requests: list[tuple[str, Message]] = []


AnyServer = TypeVar("AnyServer", bound=LoopbackServer)


@contextmanager
def running(server: AnyServer) -> Iterator[AnyServer]:
    """Let a server answer, in a thread, until the block is left."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()


def serving(
    respond: Respond, certificate: trustme.LeafCert | None = None, address: tuple[str, int] = ("127.0.0.1", 0)
) -> AbstractContextManager[Server]:
    """Answer on the loopback."""
    return running(Server(respond, certificate, address))


def json_answer(value: object) -> Respond:
    return lambda handler: handler.answer(json.dumps(value).encode())


def body(content: bytes) -> Respond:
    return lambda handler: handler.answer(content)


def status(code: int) -> Respond:
    return lambda handler: handler.answer(b'{"carbonIntensity": 1, "error": "SECRET-KEY"}', code)


def hang(handler: Handler) -> None:
    handler.server.ended.wait(120)


def trickle(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.ended.wait(0.01):
        handler.wfile.write(b" ")


def close_in_the_middle(handler: Handler) -> None:
    handler.answer(b'{"carbonIntensity"', Content_Length="100")


def echo_instead_of_http(handler: Handler) -> None:
    handler.wfile.write(f"garbage {handler.headers['auth-token']}\r\n\r\n".encode())


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.ended.is_set():
        handler.wfile.write(b" " * 65_536)


def redirect(to: str) -> Respond:
    return lambda handler: handler.answer(b"", 302, Location=to)

"""An HTTP client that may be rude: it sends what a test tells it to, and reads, or not."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

DEADLINE_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A connection; nothing waits longer than the deadline."""

    def __init__(
        self, port: int, *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None, receive_bytes: int = 0
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(DEADLINE_SECONDS)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        try:
            self.socket.connect((host, port))
            if context is not None:
                self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        except BaseException:
            self.socket.close()
            raise
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def say(self, data: bytes) -> Self:
        self.socket.sendall(data)
        return self

    def ask(self, path: str = "/", *, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
        """Send a request and return its answer; an underscore in a header's name is a hyphen."""
        given = {"Host": "localhost", **({"Content-Length": str(len(body))} if body else {}), **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {given[name]}" for name in given)]
        self.say("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        return self.answer(has_body=method != "HEAD")

    def answer(self, *, has_body: bool = True) -> Answer:
        status_line = self._file.readline()
        assert status_line, "no answer came"
        headers = {}
        while line := self._file.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        body = self._file.read(int(headers["content-length"])) if has_body else b""
        return Answer(int(status_line.split()[1]), headers, body)

    def rest(self) -> bytes:
        """Return all that comes until the server lets go."""
        try:
            return self._file.read()
        except ConnectionResetError:
            return b""


def get(port: int, path: str = "/", *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> Answer:
    with Client(port, host=host, context=context) as client:
        return client.ask(path)


def open_files() -> int:
    """Return how many file descriptors this process has; 0 where that cannot be known."""
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return 0

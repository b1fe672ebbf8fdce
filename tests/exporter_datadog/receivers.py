"""Agents and an HTTP intake on the loopback, which take nothing that Datadog's descriptions do not allow."""

from __future__ import annotations

import json
import math
import re
import socket
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

from tests.support.web_server import Handler, serving

KEY = "0123456789abcdef0123456789abcdef"
APP_KEY = "fedcba9876543210fedcba9876543210fedcba98"
MOST_BYTES, MOST_PLAIN_BYTES = 512_000, 5_242_880

_NAME = r"[A-Za-z][A-Za-z0-9_.]{0,199}"
_TAG = r"[^\W\d_][\w\-:/.]{0,199}"
_LINE = re.compile(
    rf"({_NAME}):(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\|([gc])(?:\|#({_TAG}(?:,{_TAG})*))?(\|c:[\w-]+)?(\|e:.+)?"
)


class Metric(NamedTuple):
    """What a line says."""

    name: str
    value: float
    kind: str
    tags: tuple[str, ...]


def parse_packet(packet: bytes, most_bytes: int) -> list[Metric]:
    """Parse a datagram of DogStatsD, by the letter."""
    assert 0 < len(packet) <= most_bytes, f"{len(packet)} bytes"
    return [parse_line(line) for line in packet.decode("utf-8").split("\n")]


def parse_line(line: str) -> Metric:
    found = _LINE.fullmatch(line)
    assert found is not None, f"this is no metric: {line!r}"
    name, value, kind, tags = found.group(1, 2, 3, 4)
    return Metric(name, float(value), kind, tuple(tags.split(",")) if tags else ())


class Agent:
    """Receives datagrams; what has arrived is there as soon as the sender's `send` has returned.

    With `follow`, a thread keeps the queue empty.
    """

    def __init__(self, family: int, address: Any, most_bytes: int) -> None:
        self._family, self._address, self._most_bytes = family, address, most_bytes
        self._socket: socket.socket | None = None
        self._left: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self.packets: list[bytes] = []
        self.start()

    @classmethod
    def udp(cls) -> Self:
        return cls(socket.AF_INET, ("127.0.0.1", 0), 1432)

    @classmethod
    def unix(cls, path: Path) -> Self:
        return cls(socket.AF_UNIX, str(path), 8192)

    @property
    def port(self) -> int:
        port: int = self._address[1]
        return port

    @property
    def metrics(self) -> list[Metric]:
        """Everything that has arrived."""
        self.receive()
        return [metric for packet in self.packets for metric in parse_packet(packet, self._most_bytes)]

    def total(self, name: str) -> float:
        return math.fsum(metric.value for metric in self.metrics if metric.name == name)

    def start(self) -> None:
        self._socket = socket.socket(self._family, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # beside the one that keeps its place
        self._socket.bind(self._address)
        self._socket.setblocking(False)
        self._address = self._socket.getsockname()
        self._give_up_place()

    def _give_up_place(self) -> None:
        if self._left is not None:
            self._left.close()
            self._left = None

    def stop(self) -> None:
        """Go away, as one does that reads its queue first: whatever comes from now on is refused.

        By UDP, the port is kept from other programs until it comes back.
        """
        if self._socket is None:
            return
        self.stop_following()
        if self._family == socket.AF_UNIX:
            Path(self._address).unlink()
            self._socket.shutdown(socket.SHUT_RD)
        else:
            self._socket.connect((self._address[0], 9))  # what others send is nobody's now
        self.receive()
        with self._lock:
            self._left, self._socket = self._socket, None
        if self._family == socket.AF_UNIX:
            self._give_up_place()

    def shrink(self, queue_bytes: int) -> None:
        """Have a smaller queue; Linux takes the number for half of what it allows."""
        assert self._socket is not None
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, queue_bytes // 2)

    def follow(self) -> None:
        self._ending.clear()
        self._thread = threading.Thread(target=self._keep_receiving)
        self._thread.start()

    def stop_following(self) -> None:
        if self._thread is not None:
            self._ending.set()
            self._thread.join()
            self._thread = None

    def _keep_receiving(self) -> None:
        while not self._ending.wait(0.002):
            self.receive()

    def receive(self) -> None:
        """Read what is in the queue."""
        while self.receive_one():
            pass

    def receive_one(self) -> bool:
        with self._lock:
            if self._socket is None:
                return False
            try:
                packet = self._socket.recv(65_536)
            except BlockingIOError:
                return False
            self.packets += [packet] if packet else []
            return bool(packet)

    def forget(self, beginning: bytes = b"") -> None:
        """Forget the packets that begin so."""
        self.receive()
        self.packets = [packet for packet in self.packets if not packet.startswith(beginning)]

    def close(self) -> None:
        self.stop()
        self._give_up_place()


class PostHandler(Handler):
    """Takes what is posted, one request after another on a connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


Fault: TypeAlias = "int | str | None"


@dataclass
class Intake:
    """Datadog's intake of series: it keeps the latest value of each series and second.

    Attributes:
        faults: what to do with the next requests, one after another: a status to refuse them with, or `vanish` (take
            them and hang up), `hang up` (before they are taken), `hang` (take them and say nothing), `lie` (take them
            and say 200), or `None`.
        standing: the same, for all requests while it is set.
        unwanted: what makes a request too large.
        most_bytes: above which it answers 413.
    """

    faults: list[Fault] = field(default_factory=list)
    standing: Fault = None
    unwanted: bytes = b""
    most_bytes: int = MOST_BYTES
    kept: dict[tuple[str, tuple[str, ...], int], float] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    series: list[dict[str, Any]] = field(default_factory=list)
    intervals: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    overwritten: list[tuple[float, float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    requests: int = 0
    hanging: int = 0
    too_large: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def __call__(self, handler: Handler) -> None:
        self.requests += 1
        fault = self.faults.pop(0) if self.faults else self.standing
        if fault == "hang up":
            handler.close_connection = True
            return
        if isinstance(fault, int):
            self._refuse(handler, fault)
            return
        try:
            taken = self._read(handler)
        except AssertionError as error:
            self.problems.append(str(error))
            self._refuse(handler, 400)
            return
        if taken is None:
            self.too_large += 1
            self._refuse(handler, 413)
            return
        self._keep(taken)
        if fault == "vanish":
            handler.close_connection = True
        elif fault == "hang":
            self.hanging += 1
            handler.server.ended.wait(120)
        else:
            handler.answer(b'{"errors":[]}', 200 if fault == "lie" else 202)

    def _refuse(self, handler: Handler, status: int) -> None:
        said = json.dumps({"errors": [f"no: {handler.headers['DD-API-KEY']}"]}).encode()
        extra = {"X_RateLimit_Reset": "7"} if status == 429 else {"Retry_After": "3"} if status == 503 else {}
        handler.answer(said, status, **extra)

    def _read(self, handler: Handler) -> list[dict[str, Any]] | None:
        assert handler.path == "/api/v2/series", handler.path
        assert handler.headers["DD-API-KEY"] == KEY, "the key"
        assert handler.headers["Content-Type"] == "application/json"
        assert handler.headers["Content-Encoding"] == "deflate"
        self.headers = dict(handler.headers.items())
        plain = zlib.decompress(handler.body)
        if len(handler.body) > self.most_bytes or len(plain) > MOST_PLAIN_BYTES:
            return None
        if self.unwanted and self.unwanted in plain:
            return None
        payload = json.loads(plain, parse_constant=_refuse_constant)
        assert payload.keys() == {"series"}
        assert payload["series"], "no series"
        for series in payload["series"]:
            _check(series)
        taken: list[dict[str, Any]] = payload["series"]
        return taken

    def _keep(self, taken: list[dict[str, Any]]) -> None:
        self.series += taken
        for series in taken:
            [point] = series["points"]
            key = (series["metric"], tuple(sorted(map(str.lower, series["tags"]))), point["timestamp"])
            if key in self.kept:
                self.overwritten.append((self.kept[key], point["value"]))
            self.kept[key] = point["value"]
            self.kinds[series["metric"]] = series["type"]
            if series["type"] == 1:
                self.intervals[series["metric"]].append(series["interval"])

    def total(self, name: str) -> float:
        """What Datadog would give as the sum of a count."""
        return math.fsum(value for (metric, _, _), value in self.kept.items() if metric == name)

    @property
    def values(self) -> list[tuple[str, float]]:
        return [(name, value) for (name, _, _), value in self.kept.items()]


def _refuse_constant(constant: str) -> None:
    raise AssertionError(f"{constant} is no number of JSON")


def _check(series: dict[str, Any]) -> None:
    assert series.keys() <= {"metric", "type", "points", "tags", "resources", "interval", "unit"}, series
    assert re.fullmatch(_NAME, series["metric"]), series["metric"]
    assert series["type"] in (1, 3), series
    assert (series["type"] == 1) == ("interval" in series), series
    assert type(series.get("interval", 1)) is int, series
    assert series.get("interval", 1) >= 1, series
    for point in series["points"]:
        assert point.keys() == {"timestamp", "value"}, point
        assert type(point["timestamp"]) is int, point
        assert type(point["value"]) is float, point
    assert all(re.fullmatch(_TAG, tag) for tag in series["tags"]), series["tags"]
    assert len({tag.lower() for tag in series["tags"]}) == len(series["tags"])
    for resource in series["resources"]:
        assert resource.keys() == {"type", "name"}
        assert resource["name"]


@contextmanager
def intake(at: Intake | None = None) -> Iterator[Intake]:
    """Serve an intake."""
    receiver = at or Intake()
    with serving(receiver) as server:
        server.RequestHandlerClass = PostHandler
        receiver.url = server.url
        yield receiver


@contextmanager
def udp_agent() -> Iterator[Agent]:
    with closing(Agent.udp()) as agent:
        yield agent


@contextmanager
def unix_agent(path: Path) -> Iterator[Agent]:
    with closing(Agent.unix(path)) as agent:
        yield agent


@contextmanager
def udp_port_of_nobody(host: str = "127.0.0.1") -> Iterator[int]:
    """Keep a port at which nobody listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as kept:
        kept.bind((host, 0))
        kept.connect((host, 9))  # what others send is nobody's
        port: int = kept.getsockname()[1]
        yield port

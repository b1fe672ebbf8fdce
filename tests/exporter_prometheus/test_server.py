"""The HTTP server among clients that are rude, slow, many, or simply there: over real sockets."""

from __future__ import annotations

import errno
import queue
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracarbon_exporter_prometheus import _http, _listening
from tracarbon_exporter_prometheus._http import Limits, Request, Response
from tracarbon_exporter_prometheus._server import Server

from tests.pipelines.support import wait_until
from tests.support.http_serving import BIG_BYTES, PATIENT, respond, serving, threads
from tests.support.raw_http import DEADLINE_SECONDS, Client, get, open_files

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_is_left_behind")]

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def half_closing(client: Client) -> None:
    client.say(b"GET / HTTP/1.1\r\nHo")
    client.socket.shutdown(socket.SHUT_WR)


def resetting(client: Client) -> None:
    client.say(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


def saying(data: bytes) -> Callable[[Client], object]:
    def attack(client: Client) -> None:
        with suppress(ConnectionError):  # the server may have had enough before all is sent
            client.say(data)

    return attack


HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256))
ATTACKS: dict[str, Callable[[Client], object]] = {
    "silence": lambda client: None,
    "half a request line": saying(b"GET /met"),
    "half a header": saying(b"GET / HTTP/1.1\r\nHo"),
    "endless headers": saying(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: yyyyyyyyyyyy\r\n" * 20_000),
    "an endless line": saying(b"G" * 300_000),
    "a huge body": saying(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000000\r\n\r\n" + bytes(300_000)),
    "a body in chunks that are none": saying(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "the same, and no body wanted": saying(b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "an unknown transfer coding": saying(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
    "two lengths": saying(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
    "no host": saying(b"GET / HTTP/1.1\r\n\r\n"),
    "garbage": saying(bytes(range(256)) * 4),
    "line feeds": saying(b"\r\n" * 20_000),
    "TLS where there is none": saying(HELLO),
    "HTTP/2": saying(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100)),
    "asking without reading": saying(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n" * 100),
    "half-closing": half_closing,
    "resetting": resetting,
    "an expectation": saying(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
    "a tunnel": saying(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + HELLO),
    "another protocol": saying(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" + HELLO),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_a_rude_client_hinders_nobody_and_is_gone_when_the_server_is_told_to_stop(
    attack: Callable[[Client], object],
) -> None:
    with ExitStack() as clients:
        async with serving() as server:
            for _ in range(10):
                client = clients.enter_context(Client(server.port))
                attack(client)
                assert get(server.port).status == 200


async def test_nor_do_500_of_every_kind() -> None:
    with ExitStack() as clients:
        async with serving() as server:
            attacks = [*ATTACKS.values()]
            for number in range(500):
                with suppress(ConnectionError):
                    attacks[number % len(attacks)](clients.enter_context(Client(server.port)))
            for _ in range(10):
                assert get(server.port).status == 200
            assert open_files() < 800


async def test_clients_that_never_stop_asking_do_not_keep_others_from_being_served() -> None:
    def ask_on_and_on(client: Client) -> None:
        with suppress(OSError):
            while True:
                client.say(GET * 1000)

    def take_all(client: Client) -> None:
        with suppress(OSError):
            while client.socket.recv(2**20):
                pass

    with ExitStack() as clients:
        async with serving() as server:
            for _ in range(3):
                client = clients.enter_context(Client(server.port))
                for pump in (ask_on_and_on, take_all):
                    thread = threading.Thread(target=pump, args=(client,))
                    thread.start()
                    clients.callback(thread.join)
            for _ in range(10):
                assert get(server.port).status == 200


PREFIXES = st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"HEAD / HTTP/1.1\r\nHost: a\r\n", GET, GET[:-2], b"GET "])
PIECES = st.sampled_from(
    [b"\r\n", b"\r\n\r\n", b": ", b"Expect: 100-continue\r\n", b"Content-Length: 3\r\n", b"HTTP/1.0", b"abc", b"0\r\n",
     b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Upgrade: x\r\n", b"CONNECT ", b"http://a/", GET]
)  # fmt: skip


async def test_whatever_bytes_come_an_answer_is_http_and_the_next_client_gets_its_own() -> None:
    async with serving() as server:

        @settings(max_examples=150)
        @given(PREFIXES, st.lists(PIECES | st.binary(max_size=8), max_size=8))
        def check(prefix: bytes, pieces: list[bytes]) -> None:
            with Client(server.port) as client:
                client.say(prefix + b"".join(pieces))
                client.socket.shutdown(socket.SHUT_WR)
                answers = client.rest()
            assert answers == b"" or answers.startswith(b"HTTP/1.1 ")
            assert get(server.port, "/x").body == b"GET /x"

        check()


async def test_what_a_client_floods_in_beside_an_answer_it_never_reads_stays_with_the_client() -> None:
    async with serving(limits=replace(PATIENT, response_seconds=0.5)) as server:
        with Client(server.port, receive_bytes=65_536) as client:
            client.say(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            sent = 0
            with pytest.raises(ConnectionError):
                while True:
                    sent += client.socket.send(bytes(65_536))
            assert sent < 2 * BIG_BYTES, "the server read on, and kept it"


class Asked:
    """Answers, and counts."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, request: Request) -> Response:
        self.times += 1
        return respond(request)

    def big(self, client: Client) -> None:
        """Have a client ask for more than it takes, and wait until the server knows."""
        before = self.times
        client.say(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: self.times > before, "its request")


async def test_the_answers_that_nobody_fetches_are_bounded_together() -> None:
    asked = Asked()
    async with serving(asked, limits=replace(PATIENT, pending_bytes=2 * BIG_BYTES + 1)) as server:
        with ExitStack() as clients:
            first, second, third = (clients.enter_context(Client(server.port, receive_bytes=65_536)) for _ in range(3))
            for client in (first, second, third):
                asked.big(client)
            assert len(first.rest()) < BIG_BYTES
            assert len(second.answer().body) == BIG_BYTES
            assert len(third.answer().body) == BIG_BYTES


STALLED = {
    "silence": b"",
    "half a request line": b"GET /met",
    "half a head": b"GET / HTTP/1.1\r\nHo",
    "half a body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
}


@pytest.mark.parametrize("data", STALLED.values(), ids=STALLED)
async def test_a_client_that_stalls_is_let_go_of(data: bytes) -> None:
    async with serving(limits=Limits(request_seconds=0.1)) as server:
        with Client(server.port) as client:
            assert client.say(data).rest() == b""


async def test_one_byte_at_a_time_is_no_way_to_stay() -> None:
    """The time is that of a whole request."""
    async with serving(limits=Limits(request_seconds=0.2, request_bytes=10**9)) as server:
        with Client(server.port) as client, pytest.raises(ConnectionError):
            while True:
                client.say(b"x")


def hurry(server: Server, **limits: float) -> None:
    """Let limits hold from now on: who has not asked yet would have to be quick otherwise."""
    server._limits = replace(server._limits, **limits)
    for connection in server._connections:
        connection._limits = server._limits


async def test_a_connection_may_be_idle_for_long_but_not_stall_in_a_request() -> None:
    async with serving() as server:
        with Client(server.port) as client, Client(server.port) as other:
            assert client.ask().status == other.ask().status == 200
            hurry(server, request_seconds=0.2)
            assert client.say(GET[:-1]).rest() == b""
            other.say(GET + GET[:5])
            assert other.answer().status == 200
            assert other.rest() == b""


async def test_an_idle_connection_stays_for_longer_than_a_request_may_take() -> None:
    async with serving() as server:
        with Client(server.port) as client:
            assert client.ask().status == 200
            hurry(server, request_seconds=0.1)
            assert client.ask().status == 200
            for _ in range(2):
                with Client(server.port) as silent:
                    assert silent.rest() == b""
            assert client.ask().status == 200


async def test_an_idle_connection_is_let_go_of_in_the_end() -> None:
    async with serving(limits=replace(PATIENT, idle_seconds=0.1)) as server:
        with Client(server.port) as client:
            assert client.ask().status == 200
            assert client.rest() == b""


async def test_an_answer_has_to_be_taken_in_time() -> None:
    asked = Asked()
    async with serving(asked, limits=replace(PATIENT, response_seconds=0.1)) as server:
        with Client(server.port, receive_bytes=65_536) as client:
            asked.big(client)
            wait_until(lambda: not server._connections, "the end of the connection")
            with pytest.raises(ConnectionResetError):
                client.answer()


async def test_with_too_many_the_one_that_asked_longest_ago_is_let_go_of() -> None:
    limits = replace(PATIENT, connections=3)
    async with serving(limits=limits) as server:
        with Client(server.port) as first, Client(server.port) as second, Client(server.port) as third:
            for client in (first, second, third, first):
                assert client.ask().status == 200
            for _ in range(2):
                with Client(server.port) as one_more:
                    assert one_more.ask().status == 200
                wait_until(lambda: len(server._connections) < limits.connections, "room")
            assert second.rest() == b""
            assert first.ask().status == third.ask().status == 200


async def test_who_reads_no_answer_is_let_go_of_for_others_as_well() -> None:
    asked = Asked()
    async with serving(asked, limits=replace(PATIENT, connections=2)) as server:
        with Client(server.port) as first, Client(server.port) as second:
            for client in (first, second):
                asked.big(client)
            assert get(server.port).status == 200
            assert len(first.rest()) < BIG_BYTES


async def test_a_scraper_gets_its_next_scrape_on_the_same_connection() -> None:
    async with serving() as server:
        with Client(server.port) as client:
            for number in range(5):
                answer = client.ask(f"/{number}")
                assert (answer.status, answer.body) == (200, f"GET /{number}".encode())
                assert answer.headers.keys() == {"date", "content-type", "content-length", "cache-control"}


async def test_requests_in_a_pipeline_are_answered_in_their_order() -> None:
    async with serving() as server:
        with Client(server.port) as client:
            client.say(b"".join(GET.replace(b"/ ", b"/%d " % number) for number in range(50)))
            assert [client.answer().body for _ in range(50)] == [b"GET /%d" % number for number in range(50)]


async def test_http_1_0_has_its_answer_and_the_end_of_the_connection() -> None:
    async with serving() as server:
        with Client(server.port) as client:
            answer = client.say(b"GET /x HTTP/1.0\r\n\r\n").answer()
            assert (answer.body, answer.headers["connection"], client.rest()) == (b"GET /x", "close", b"")


async def test_a_connection_ends_when_the_client_wants_it_to() -> None:
    async with serving() as server:
        with Client(server.port) as client:
            assert client.ask(Connection="close").headers["connection"] == "close"
            assert client.rest() == b""


async def test_who_closes_his_half_after_asking_gets_his_answer() -> None:
    async with serving() as server:
        with Client(server.port) as client:
            client.say(GET)
            client.socket.shutdown(socket.SHUT_WR)
            assert client.answer().status == 200
            assert client.rest() == b""


async def test_head_is_answered_without_a_body() -> None:
    async with serving() as server:
        with Client(server.port) as client:
            answer = client.ask("/x", method="HEAD")
            assert (answer.status, answer.headers["content-length"]) == (200, str(len("HEAD /x")))
            assert client.ask("/y").body == b"GET /y"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/metrics?a=b&c=/d", "/metrics"),
        ("http://a:80/metrics?x", "/metrics"),
        ("HTTPS://[::1]:80/metrics", "/metrics"),
        ("http://a", "/"),
        ("http://[/metrics", "/metrics"),
        ("/http://a/metrics", "/http://a/metrics"),
        ("*", "*"),
        ("/caf%C3%A9", "/caf%C3%A9"),
    ],
)
async def test_the_path_of_a_target(target: str, path: str) -> None:
    async with serving() as server:
        assert get(server.port, target).body == f"GET {path}".encode()


async def test_who_asks_before_sending_a_body_is_answered_without_it() -> None:
    async with serving() as server:
        with Client(server.port) as client:
            answer = client.ask("/x", method="PUT", Content_Length="5", Expect="100-continue")
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert client.rest() == b""


async def test_a_small_body_is_left_aside() -> None:
    async with serving() as server:
        with Client(server.port) as client:
            assert client.ask(method="POST", body=bytes(16_000)).body == b"POST /"
            client.say(b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            assert client.answer().body == b"POST /c"
            assert client.ask("/z").body == b"GET /z"


REFUSED = {
    "a large body": (413, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + bytes(900_000)),
    "a long head": (431, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: yyyyyyyyyyyy\r\n" * 2_000),
    "a long target": (431, b"GET /" + b"x" * 30_000),
    "no HTTP": (400, b"EHLO example\r\n\r\n"),
    "TLS": (400, HELLO),
    "an unknown transfer coding": (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "an end too early": (400, b"GET / HTTP/1.1\r\nHost"),
}


@pytest.mark.parametrize(("status", "data"), REFUSED.values(), ids=REFUSED)
async def test_what_is_no_request_is_refused_and_the_client_can_read_why(status: int, data: bytes) -> None:
    async with serving() as server:
        with Client(server.port) as client:
            client.say(data)
            client.socket.shutdown(socket.SHUT_WR)
            answer = client.answer()
            assert (answer.status, answer.headers["connection"]) == (status, "close")
            assert client.rest() == b""


async def test_what_is_refused_after_a_head_has_its_body() -> None:
    async with serving() as server:
        with Client(server.port) as client:
            assert client.ask(method="HEAD").status == 200
            client.say(b"garbage\r\n\r\n")
            assert client.answer().body == b"this is no request that is understood here\n"


async def test_a_head_may_be_as_long_as_the_limits_say() -> None:
    for bytes_allowed, status in ((64, 431), (4096, 200), (65_536, 200)):
        async with serving(limits=replace(PATIENT, request_bytes=bytes_allowed)) as server:
            with Client(server.port) as client:
                # In two pieces: what comes at once is looked at as a whole.
                client.say(
                    b"GET / HTTP/1.1\r\nHost: a\r\nX: "
                    + b"y" * (bytes_allowed - 100 if status == 200 else bytes_allowed)
                )
                client.say(b"\r\n\r\n") if status == 200 else client.socket.shutdown(socket.SHUT_WR)
                assert client.answer().status == status


async def test_a_header_that_comes_twice_is_one_list() -> None:
    seen: queue.Queue[Request] = queue.Queue()

    def note(request: Request) -> Response:
        seen.put(request)
        return Response(200, b"")

    async with serving(note) as server:
        with Client(server.port) as client:
            client.say(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: b\r\nACCEPT: c\r\nAuthorization: Basic SECRET\r\n\r\n")
            assert client.answer().status == 200
    request = seen.get_nowait()
    assert request.headers["accept"] == "b, c"
    assert "SECRET" not in repr(request)


async def test_a_bug_in_an_answer_is_said_once_and_the_server_goes_on() -> None:
    def fail(request: Request) -> Response:
        if request.path == "/bug":
            raise RuntimeError("broken")
        return respond(request)

    warnings: list[str] = []
    async with serving(fail, warnings=warnings) as server:
        with Client(server.port) as client:
            assert [client.ask(path).status for path in ("/bug", "/bug", "/", "/bug")] == [500, 500, 200, 500]
    assert warnings == ["/bug cannot be answered: RuntimeError: broken"]


async def test_a_bug_in_a_conversation_is_said_once_and_ends_that_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: _http.Connection, response: Response) -> bytes:
        raise RuntimeError("broken")

    warnings: list[str] = []
    async with serving(warnings=warnings) as server:
        with monkeypatch.context() as patch:
            patch.setattr(_http.Connection, "_head_of", fail)
            for _ in range(2):
                with Client(server.port) as client:
                    assert client.say(GET).rest() == b""
        assert get(server.port).status == 200
    assert warnings == ["a client was let go of: RuntimeError: broken"]


async def test_the_end_of_the_server_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(listener: socket.socket) -> None:
        raise RuntimeError("no loop")

    said: queue.Queue[str] = queue.Queue()
    server = Server("127.0.0.1", 0, respond, warn=said.put, limits=PATIENT)
    await server.start()
    monkeypatch.setattr(anyio, "wait_readable", fail)
    with suppress(ConnectionError):  # it may have ended already, or just now
        Client(server.port).close()
    assert (
        said.get(timeout=DEADLINE_SECONDS) == "the server has ended, nothing is served any more: RuntimeError: no loop"
    )
    with anyio.fail_after(DEADLINE_SECONDS):
        await server.stop()


async def test_a_port_is_free_at_once_after_the_stop() -> None:
    address = "127.0.0.2"  # where no other program takes the port meanwhile
    async with serving(address=address) as server:
        port = server.port
        client = Client(port, host=address)
        assert client.ask().status == 200
    with client:
        for _ in range(20):
            again = Server(address, port, respond, warn=pytest.fail)
            await again.start()
            assert (again.port, get(port, host=address).status) == (port, 200)
            await again.stop()
            await again.stop()


async def test_a_port_that_is_taken_is_an_error() -> None:
    async with serving() as server:
        with pytest.raises(OSError) as caught:
            await Server("127.0.0.1", server.port, respond, warn=pytest.fail).start()
        assert caught.value.errno == errno.EADDRINUSE
        assert get(server.port).status == 200


needs_ipv6 = pytest.mark.skipif(
    not socket.has_dualstack_ipv6() or not Path("/proc/net/if_inet6").exists(), reason="there is no IPv6 here"
)


@needs_ipv6
@pytest.mark.parametrize(
    ("address", "hosts"),
    [("::1", ["::1"]), ("::", ["::1", "127.0.0.1"]), ("0.0.0.0", ["127.0.0.1"]), ("127.0.0.1", ["127.0.0.1"])],
)
async def test_an_address_is_listened_on_and_no_other(address: str, hosts: list[str]) -> None:
    async with serving(address=address) as server:
        for host in ("::1", "127.0.0.1"):
            if host in hosts:
                assert get(server.port, host=host).status == 200
            else:
                with pytest.raises(ConnectionRefusedError):
                    get(server.port, host=host)


@pytest.mark.parametrize("address", ["::", "127.0.0.1"])
def test_accepting_never_waits(address: str) -> None:
    """A client may be gone between the word that it is there and its turn."""
    with ExitStack() as listening:
        listeners = [listening.enter_context(listener) for listener in _listening.listen(address, 0)]
        assert [listener.getblocking() for listener in listeners] == [False]


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let the name `here.test` stand for addresses."""
    resolve = socket.getaddrinfo

    def look_up(host: str, port: int, **how: int) -> list[object]:
        hosts = addresses if host == "here.test" else [host]
        return [found for host in hosts for found in resolve(host, port, **how)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@needs_ipv6
async def test_a_name_is_all_of_its_addresses_on_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "127.0.0.1", "::1", "127.0.0.2", "127.0.0.1")
    async with serving(address="here.test") as server:
        for host in ("127.0.0.1", "127.0.0.2", "::1"):
            assert get(server.port, host=host).status == 200


async def test_addresses_of_a_name_that_are_not_here_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "192.0.2.1", "127.0.0.1")
    async with serving(address="here.test") as server:
        assert get(server.port).status == 200


async def test_a_free_port_is_free_on_every_address_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "127.0.0.1", "127.0.0.2")
    create = socket.create_server
    taken: list[socket.socket] = []

    def collide(where: tuple[str, int], **how: Any) -> socket.socket:
        if where[0] == "127.0.0.2" and len(taken) < 3:
            taken.append(create(where))
        return create(where, **how)

    monkeypatch.setattr(socket, "create_server", collide)
    async with serving(address="here.test") as server:
        assert get(server.port).status == get(server.port, host="127.0.0.2").status == 200
        assert server.port not in [other.getsockname()[1] for other in taken]
    for other in taken:
        other.close()


async def test_localhost_is_here() -> None:
    async with serving(address="localhost") as server:
        assert get(server.port).status == 200


@pytest.mark.parametrize("address", ["a..b", "x" * 300, "a\0b"])
async def test_what_cannot_be_a_name_is_an_error_of_resolving(address: str) -> None:
    with pytest.raises(socket.gaierror):
        await Server(address, 0, respond, warn=pytest.fail).start()


async def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(OSError) as caught:
        await Server("192.0.2.1", 0, respond, warn=pytest.fail).start()
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_a_start_that_is_cancelled_while_a_name_is_looked_up_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up, go_on = threading.Event(), threading.Event()
    resolve = socket.getaddrinfo

    def wait(*where: str, **how: int) -> object:
        looked_up.set()
        go_on.wait(DEADLINE_SECONDS)
        return resolve("127.0.0.1", 0, **how)

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    server = Server("slow.test", 0, respond, warn=pytest.fail)
    async with anyio.create_task_group() as group:
        group.start_soon(server.start)
        while not looked_up.is_set():
            await anyio.sleep(0.001)
        group.cancel_scope.cancel()
    go_on.set()
    wait_until(lambda: not threads(), "the end of the server's thread")
    with pytest.raises(ConnectionRefusedError):
        get(server.port)


async def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing() -> None:
    """Threads and descriptors are counted after the test."""
    for delay in range(40):
        server = Server("127.0.0.1", 0, respond, warn=pytest.fail)
        with anyio.move_on_after(delay / 20_000):
            await server.start()
            await server.stop()


SCRIPT = textwrap.dedent("""
    import anyio, os, queue, resource, socket, sys, threading
    from tests.support.http_serving import respond
    from tests.support.raw_http import Client, open_files
    from tracarbon_exporter_prometheus._http import Limits
    from tracarbon_exporter_prometheus._server import Server

    warnings, tries, sleep = [], threading.Semaphore(0), anyio.sleep

    async def counted(seconds):
        tries.release()
        await sleep(seconds)

    def fill():
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            return taken

    def ask(client, port):
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")

    async def main():
        server = Server("127.0.0.1", 0, respond, warn=warnings.append, limits=Limits(pause_seconds=0.001))
        await server.start()
        clients = [socket.socket() for _ in range(3)]
        for client in clients:
            client.settimeout(60)
        for client in clients[:2]:
            at_rest = open_files()
            taken = fill()
            anyio.sleep = counted
            ask(client, server.port)
            for _ in range(5):
                assert tries.acquire(timeout=60)
            for descriptor in taken:
                os.close(descriptor)
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            client.close()
            while open_files() >= at_rest:  # with the client's socket, the server's is closed
                await sleep(0.001)
        with Client(server.port) as idle:
            assert idle.ask().status == 200
            taken = fill()
            ask(clients[2], server.port)
            assert clients[2].recv(1000).startswith(b"HTTP/1.1 200"), "nobody had to go"
            assert idle.rest() == b""
        clients[2].close()
        await server.stop()

    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 30,) * 2)
    anyio.run(main)
    print(warnings)
""")


@pytest.mark.once
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors as Linux does")
def test_without_descriptors_it_says_so_once_lets_the_quietest_go_and_recovers() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.stderr, done.stdout) == ("", "['no more connections can be accepted for now: Too many open files']\n")

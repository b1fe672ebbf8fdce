"""`Location.request` against a real server that fails in every way."""

from __future__ import annotations

import gzip
import re
import socket
import sys
import threading
import traceback
from functools import cache
from pathlib import Path

import httpx
import pytest
import trustme
from tracarbon.exceptions import TracarbonException
from tracarbon.locations import _http
from tracarbon.locations.country import Country

from tests.support.web_server import (
    Handler,
    Respond,
    body,
    close_in_the_middle,
    echo_instead_of_http,
    endless,
    hang,
    json_answer,
    redirect,
    serving,
    status,
    trickle,
)

pytestmark = pytest.mark.anyio

KEY = "SECRET-KEY"
HEADERS = {"auth-token": KEY}


def encoded(encoding: str) -> Respond:
    """A megabyte and more in a thousandth of that."""
    content = gzip.compress(b'{"a": "' + b" " * _http.MAX_BODY_BYTES + b'"}')
    return lambda handler: handler.answer(content, Content_Encoding=encoding)


FAULTS: dict[str, tuple[Respond, str]] = {
    "401": (status(401), "HTTP 401 Unauthorized$"),
    "429": (status(429), "HTTP 429 Too Many Requests$"),
    "500": (status(500), "HTTP 500 Internal Server Error$"),
    "599": (status(599), "HTTP 599$"),
    "redirection to nowhere": (status(302), "HTTP 302 Found$"),
    "garbage": (body(b"<html>"), "the answer is no JSON$"),
    "nothing": (body(b""), "the answer is no JSON$"),
    "no UTF-8": (body(b'{"a": "\xff"}'), "the answer is no JSON$"),
    "NaN": (body(b'{"carbonIntensity": NaN}'), "the answer is no JSON$"),
    "too deep": (body(b"[" * 500_000), "the answer is no JSON$"),
    "list": (json_answer([1]), "the answer is JSON, but no object$"),
    "closed in the middle": (close_in_the_middle, r"spoke no HTTP \(RemoteProtocolError\)$"),
    "no HTTP": (echo_instead_of_http, r"spoke no HTTP \(RemoteProtocolError\)$"),
    "huge": (endless, "the answer is longer than 1000000 bytes$"),
    "compressed": (encoded("gzip"), "the answer is compressed, which it was asked not to be$"),
    "compressed twice": (encoded(f"identity, {KEY}"), "the answer is compressed, which it was asked not to be$"),
    "redirections without end": (redirect("/again"), "more than 5 redirections$"),
    "redirection to another scheme": (redirect("ftp://127.0.0.1/"), "this is no address of http or https$"),
    "redirection to no port": (redirect("http://127.0.0.1:99999/"), "this is no address of http or https$"),
    "hang": (hang, "no answer within 0.3 s$"),
    "trickle": (trickle, "no answer within 0.3 s$"),
}


@cache
def _taken() -> socket.socket:
    """A socket that has a port, keeps it from everybody else, and does not listen."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken


def refused_address() -> str:
    return f"http://127.0.0.1:{_taken().getsockname()[1]}"


def everything_shown(error: BaseException) -> str:
    """A traceback with the locals of every frame, and every error in the chain."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "TOTAL_SECONDS", 60.0)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


async def failure_of(url: str) -> TracarbonException:
    with pytest.raises(TracarbonException) as caught:
        await Country.request(url, HEADERS)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert KEY not in everything_shown(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


async def test_the_json_object_is_returned_and_the_headers_are_sent() -> None:
    with serving(json_answer({"carbonIntensity": 12, "zone": "FR"})) as server:
        assert await Country.request(f"{server.url}/latest?zone=FR", HEADERS) == {"carbonIntensity": 12, "zone": "FR"}
        assert await Country.request(server.url)
    [(path, headers), (_, bare)] = server.requests
    assert (path, headers["auth-token"]) == ("/latest?zone=FR", KEY)
    assert "auth-token" not in bare


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
async def test_an_answer_that_says_it_is_not_compressed(encoding: str) -> None:
    with serving(lambda handler: handler.answer(b'{"a": 1}', Content_Encoding=encoding)) as server:
        assert await Country.request(server.url) == {"a": 1}


@pytest.mark.parametrize("name", FAULTS)
async def test_every_fault_is_one_line_without_secrets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    respond, said = FAULTS[name]
    if "within" in said:
        monkeypatch.setattr(_http, "TOTAL_SECONDS", 0.3)
    with serving(respond) as server:
        error = await failure_of(f"{server.url}/latest?token=QUERY")
    assert str(error).startswith(f"GET {server.url}/latest: ")
    assert "QUERY" not in str(error)
    assert re.search(said, str(error))


async def test_nobody_listens() -> None:
    address = refused_address()
    assert str(await failure_of(address)).startswith(f"GET {address}: no connection: ")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://127.0.0.1/x", "this is no address of http or https"),
        ("latest", "this is no address of http or https"),
        ("http://[::1/x?q=QUERY", "an address that is none"),
        ("http://127.0.0.1:99999/x?q=QUERY", "http://127.0.0.1:99999/x: "),
        ("http://name:PASSWORD@127.0.0.1:99999/x", "GET http://127.0.0.1:99999/x: "),
    ],
)
async def test_what_is_no_address(url: str, said: str) -> None:
    text = str(await failure_of(url))
    assert said in text
    assert "QUERY" not in text
    assert "PASSWORD" not in text


@pytest.mark.parametrize("key", ["SECRET-KEY\n", "SECRET-KEY\u00e9"])
async def test_a_key_that_no_header_can_hold_is_not_shown(key: str) -> None:
    with pytest.raises(TracarbonException, match="the value of header auth-token has characters") as caught:
        await Country.request("http://127.0.0.1:1", {"auth-token": key})
    assert caught.value.__context__ is None
    assert "SECRET" not in str(caught.value)


async def test_a_redirection_keeps_the_headers_on_the_same_host_alone() -> None:
    with serving(json_answer({"ok": True})) as other, serving(redirect(f"{other.url}/there")) as server:
        assert await Country.request(server.url, HEADERS) == {"ok": True}
        assert server.requests[0][1]["auth-token"] == KEY
        [(path, headers)] = other.requests
        assert path == "/there"
        assert KEY not in str(headers)

        answers = iter([redirect("/second"), json_answer({"ok": True})])

        def respond(handler: Handler) -> None:
            next(answers)(handler)

        server.respond = respond
        assert await Country.request(server.url, HEADERS) == {"ok": True}
        assert (server.requests[-1][0], server.requests[-1][1]["auth-token"]) == ("/second", KEY)


async def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    known = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(known))
    with serving(json_answer({"ok": True}), authority.issue_cert("127.0.0.1")) as server:
        error = await failure_of(server.url)
        assert "certificate verify failed" in str(error)
        assert server.requests == []

        monkeypatch.setenv("SSL_CERT_FILE", str(known))
        assert await Country.request(server.url, HEADERS) == {"ok": True}
        server.respond = redirect("http://127.0.0.1:1/")
        assert "without encryption" in str(await failure_of(server.url))

        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
        assert "SSL_CERT_FILE" in str(await failure_of(server.url))


async def test_proxies_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(hang) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        error = await failure_of("https://service.invalid/latest?zone=FR")
    assert "no connection: 502" in str(error)
    [(path, headers)] = proxy.requests
    assert path == "service.invalid:443"
    assert KEY not in str(headers)


async def test_without_httpx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(TracarbonException, match=r"pip install 'tracarbon-core\[live\]'") as caught:
        await Country.request("http://127.0.0.1:1", HEADERS)
    assert caught.value.__context__ is None


async def test_errors_that_are_no_fault_of_the_network_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(httpx, "AsyncClient", broken)
    with pytest.raises(ZeroDivisionError):
        await Country.request("http://127.0.0.1:1")


def test_the_outcome_of_an_own_loop_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    uncaught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)

    async def ask() -> int:
        return 1

    def done(outcome: object) -> None:
        told.append(outcome)
        raise ZeroDivisionError

    _http.in_own_loop(ask, done).join()
    assert told == [1]
    assert len(uncaught) == 1

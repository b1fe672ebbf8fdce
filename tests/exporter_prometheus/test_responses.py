"""What is answered to whom, over real sockets: formats, compression, passwords, health."""

from __future__ import annotations

import base64
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon_exporter_prometheus._exposition import (
    CLASSIC_CONTENT_TYPE,
    OPENMETRICS_CONTENT_TYPE,
    accepts_gzip,
    wants_openmetrics,
)
from tracarbon_exporter_prometheus._responses import Credentials, Responses
from tracarbon_exporter_prometheus._server import Server

from tests.support.http_serving import serving
from tests.support.raw_http import Client, get

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_is_left_behind")]

CLASSIC, OPENMETRICS = b"# classic\n" * 200, b"# openmetrics\n" * 200


@dataclass
class Pipeline:
    """What the answers are about."""

    classic: bytes = CLASSIC
    why_unhealthy: str = ""
    is_ready: bool = True
    broken: bool = False

    def render(self, openmetrics: bool) -> bytes:
        if self.broken:
            raise ValueError("no figures")
        return OPENMETRICS if openmetrics else self.classic


@asynccontextmanager
async def answering(
    pipeline: Pipeline | None = None, credentials: Credentials | None = None, warnings: list[str] | None = None
) -> AsyncIterator[Server]:
    about = pipeline or Pipeline()
    responses = Responses(
        render=about.render,
        why_unhealthy=lambda: about.why_unhealthy,
        is_ready=lambda: about.is_ready,
        credentials=credentials,
    )
    async with serving(responses, warnings=warnings) as server:
        yield server


PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_3_PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6," + PROMETHEUS_3
)
PROMETHEUS_CLASSIC_ONLY = "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
ACCEPTS = {
    "Prometheus 2.42": (PROMETHEUS_2_42, True),
    "Prometheus 3": (PROMETHEUS_3, True),
    "Prometheus 3 with native histograms": (PROMETHEUS_3_PROTOBUF, True),
    "Prometheus told to use the classic format": (PROMETHEUS_CLASSIC_ONLY, False),
    "curl": ("*/*", False),
    "a browser": (FIREFOX, False),
    "nothing": ("", False),
    "OpenMetrics alone": ("application/openmetrics-text", True),
    "in capitals, with a quoted version": ('Application/OpenMetrics-Text; Version="1.0.0"; Q=0.5', True),
    "a version of the future": ("application/openmetrics-text;version=2.0.0", False),
    "not at all": ("application/openmetrics-text;q=0", False),
    "rather the classic one": ("application/openmetrics-text;q=0.4, text/plain;q=0.5", False),
    "rather OpenMetrics": ("text/plain;q=0.4, application/openmetrics-text;q=0.5", True),
    "both alike": ("text/plain, application/openmetrics-text", True),
    "a weight that is none": ("application/openmetrics-text;q=much", False),
    "not a number": ("application/openmetrics-text;q=nan, text/plain;q=0.1", False),
    "too heavy": ("application/openmetrics-text;q=inf, text/plain;q=0.1", False),
    "something else": ("application/json", False),
}


@pytest.mark.parametrize(("accept", "is_openmetrics"), ACCEPTS.values(), ids=ACCEPTS)
async def test_the_format_is_what_the_client_prefers(accept: str, is_openmetrics: bool) -> None:
    async with answering() as server:
        with Client(server.port) as client:
            answer = client.ask("/metrics", Accept=accept)
    assert answer.headers["content-type"] == (OPENMETRICS_CONTENT_TYPE if is_openmetrics else CLASSIC_CONTENT_TYPE)
    assert answer.body == (OPENMETRICS if is_openmetrics else CLASSIC)
    assert answer.headers["vary"] == "Accept, Accept-Encoding"


ENCODINGS = {
    "Prometheus": ("gzip", True),
    "a browser": ("gzip, deflate, br, zstd", True),
    "nothing": ("", False),
    "anything": ("*", True),
    "none": ("identity", False),
    "no gzip": ("gzip;q=0", False),
    "no gzip, with spaces": ("deflate, gzip ; Q = 0 , br".replace(" = ", "="), False),
    "anything but gzip": ("*, gzip;q=0.0", False),
    "gzip, and nothing else": ("gzip, *;q=0", True),
    "rather none": ("identity, gzip;q=0.5", False),
    "rather gzip": ("identity;q=0.5, gzip", True),
    "none is not good enough": ("identity;q=0, *", True),
    "another one": ("br", False),
}


@pytest.mark.parametrize(("accept_encoding", "is_compressed"), ENCODINGS.values(), ids=ENCODINGS)
async def test_a_long_answer_is_compressed_for_who_likes_that(accept_encoding: str, is_compressed: bool) -> None:
    async with answering() as server:
        with Client(server.port) as client:
            answer = client.ask("/metrics", Accept_Encoding=accept_encoding)
    assert answer.headers.get("content-encoding") == ("gzip" if is_compressed else None)
    assert (gzip.decompress(answer.body) if is_compressed else answer.body) == CLASSIC


async def test_a_short_answer_is_never_compressed() -> None:
    async with answering(Pipeline(classic=b"x 1\n")) as server:
        with Client(server.port) as client:
            answer = client.ask("/metrics", Accept_Encoding="gzip")
    assert (answer.body, answer.headers.get("content-encoding")) == (b"x 1\n", None)


@given(st.text() | st.text(alphabet='gzip*;q=,. "/01-', max_size=30))
def test_whatever_a_client_says_that_it_takes_there_is_an_answer(header: str) -> None:
    assert wants_openmetrics(header) in (True, False)
    assert accepts_gzip(header) in (True, False)


async def test_the_addresses_there_are() -> None:
    async with answering() as server:
        with Client(server.port) as client:
            assert client.ask("/metrics?name=x").body == CLASSIC
            assert client.ask("/-/healthy").body == b"healthy\n"
            assert client.ask("/-/ready").body == b"ready\n"
            assert b'href="/metrics"' in client.ask("/").body
            for path in ("/metrics/", "//metrics", "/METRICS", "/favicon.ico", "/-/", "/metrics%00"):
                answer = client.ask(path)
                assert (answer.status, answer.body) == (404, b"there is nothing here; the metrics are at /metrics\n")
            head = client.ask("/metrics", method="HEAD")
            assert (head.status, head.headers["content-length"]) == (200, str(len(CLASSIC)))
            for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"):
                answer = client.ask("/metrics", method=method)
                assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_health_follows_the_pipeline() -> None:
    pipeline = Pipeline()
    async with answering(pipeline) as server:
        assert get(server.port, "/-/healthy").status == get(server.port, "/-/ready").status == 200
        pipeline.why_unhealthy, pipeline.is_ready = "the last tick was 300 s ago", False
        unhealthy, unready = get(server.port, "/-/healthy"), get(server.port, "/-/ready")
    assert (unhealthy.status, unhealthy.body) == (503, b"the last tick was 300 s ago\n")
    assert (unready.status, unready.body) == (503, b"there are no figures yet\n")


async def test_a_failure_to_render_is_said_and_passes() -> None:
    pipeline, warnings = Pipeline(broken=True), list[str]()
    async with answering(pipeline, warnings=warnings) as server:
        assert [get(server.port, "/metrics").status for _ in range(3)] == [500] * 3
        assert get(server.port, "/-/healthy").status == 200
        pipeline.broken = False
        assert get(server.port, "/metrics").body == CLASSIC
    assert warnings == ["/metrics cannot be answered: ValueError: no figures"]


def basic(username: str, password: str, *, encoding: str = "utf-8", scheme: str = "Basic") -> str:
    return f"{scheme} {base64.b64encode(f'{username}:{password}'.encode(encoding)).decode()}"


RIGHT = [("scraper", "s3cret"), ("Jürgen", "geheim:ß€🔑"), ("a", ""), ("a", ":" * 300), (" a ", " b ")]


@pytest.mark.parametrize(("username", "password"), RIGHT)
async def test_who_knows_the_password_sees_the_metrics(username: str, password: str) -> None:
    async with answering(credentials=Credentials(username, password)) as server:
        for scheme in ("Basic", "basic", "BASIC"):
            with Client(server.port) as client:
                answer = client.ask("/metrics", Authorization=basic(username, password, scheme=scheme))
                assert (answer.status, answer.body) == (200, CLASSIC)


WRONG = {
    "none": None,
    "empty": "",
    "the scheme alone": "Basic",
    "another name": basic("scrapers", "geheim-ß"),
    "another password": basic("scraper", "geheim-ss"),
    "a beginning": basic("scraper", "geheim-"),
    "no password": basic("scraper", ""),
    "in capitals": basic("scraper", "GEHEIM-ß"),
    "in latin-1": basic("scraper", "geheim-ß", encoding="latin-1"),
    "not encoded": "Basic scraper:geheim-ss",
    "no base64": "Basic \xe9\xff====",
    "another scheme": basic("scraper", "geheim-ß", scheme="Bearer"),
    "no scheme": basic("scraper", "geheim-ß", scheme=""),
    "and more": basic("scraper", "geheim-ß") + ", Basic x",
    "digest": 'Digest username="scraper", realm="tracarbon", response="00"',
}


@pytest.mark.parametrize("authorization", WRONG.values(), ids=WRONG)
async def test_who_does_not_is_asked_and_sees_health_alone(authorization: str | None) -> None:
    given: dict[str, Any] = {} if authorization is None else {"Authorization": authorization}
    async with answering(credentials=Credentials("scraper", "geheim-ß")) as server:
        with Client(server.port) as client:
            for method in ("GET", "HEAD"):
                answer = client.ask("/metrics", method=method, **given)
                assert answer.status == 401
                assert answer.headers["www-authenticate"] == 'Basic realm="tracarbon", charset="UTF-8"'
                assert CLASSIC not in answer.body
            assert client.ask("/-/healthy", **given).status == client.ask("/-/ready", **given).status == 200
            good = client.ask("/metrics", Authorization=basic("scraper", "geheim-ß"))
            assert good.status == 200


async def test_every_comparison_takes_as_long_whatever_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time cannot be tested; that it is `compare_digest` which compares can."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, right: bytes) -> bool:
        compared.append((given, right))
        return given == right

    monkeypatch.setattr("hmac.compare_digest", compare)
    async with answering(credentials=Credentials("a", "b")) as server:
        with Client(server.port) as client:
            assert client.ask("/metrics", Authorization=basic("a", "c")).status == 401
    assert compared == [(basic("a", "c").encode(), basic("a", "b").encode())]


async def test_a_password_in_whatever_bytes_works_and_is_never_shown() -> None:
    """A variable that is no UTF-8 comes with surrogates; encoding those strictly raises, and shows them."""
    password = b"SECRET-\xff".decode("utf-8", "surrogateescape")
    credentials = Credentials("a", password)
    assert "SECRET" not in f"{credentials!r} {credentials}"
    header = "Basic " + base64.b64encode(b"a:SECRET-\xff").decode()
    async with answering(credentials=credentials) as server:
        with Client(server.port) as client:
            assert client.ask("/metrics", Authorization=header).status == 200


async def test_a_fault_while_a_password_is_at_hand_does_not_show_it() -> None:
    warnings: list[str] = []
    header = basic("a", "SECRET")
    async with answering(Pipeline(broken=True), Credentials("a", "SECRET"), warnings) as server:
        with Client(server.port) as client:
            answer = client.ask("/metrics", Authorization=header)
    assert answer.status == 500
    everything = f"{warnings} {answer}"
    assert "SECRET" not in everything and header.split()[1] not in everything

"""What is answered to whom: metrics, health, and who may see them."""

from __future__ import annotations

import base64
import gzip
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from tracarbon_exporter_prometheus._exposition import (
    CLASSIC_CONTENT_TYPE,
    OPENMETRICS_CONTENT_TYPE,
    accepts_gzip,
    wants_openmetrics,
)
from tracarbon_exporter_prometheus._http import Request, Response

_GZIP_LEVEL = 1
_NOT_WORTH_COMPRESSING_BYTES = 1000
_INDEX = b"""<!doctype html>
<title>tracarbon</title>
<h1>tracarbon</h1>
<p><a href="/metrics">metrics</a>, <a href="/-/healthy">healthy</a>, <a href="/-/ready">ready</a>
"""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password; never shown."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "<Credentials>"

    @property
    def header(self) -> str:
        """The value of `Authorization` that proves them (RFC 7617, in UTF-8)."""
        # A variable that is no UTF-8 comes with surrogates; back to its bytes, and no error that shows the password.
        pair = f"{self.username}:{self.password}".encode("utf-8", "surrogateescape")
        return f"Basic {base64.b64encode(pair).decode('ascii')}"


class Responses:
    """Answers requests.

    Args:
        render: the metrics, as OpenMetrics or in the classic format.
        why_unhealthy: why the pipeline does not go on; empty if it does.
        is_ready: whether there are figures.
        credentials: what a client has to know to see metrics; health is anybody's to see.
    """

    def __init__(
        self,
        *,
        render: Callable[[bool], bytes],
        why_unhealthy: Callable[[], str],
        is_ready: Callable[[], bool],
        credentials: Credentials | None = None,
    ) -> None:
        self._render = render
        self._why_unhealthy = why_unhealthy
        self._is_ready = is_ready
        self._authorization = credentials.header.encode() if credentials else None

    def __call__(self, request: Request) -> Response:
        """Return the answer to a request."""
        answer: Callable[[Request], Response] | None = {
            "/metrics": self._metrics,
            "/-/healthy": self._healthy,
            "/-/ready": self._ready,
            "/": lambda _: Response(200, _INDEX, "text/html; charset=utf-8"),
        }.get(request.path)
        if answer is None:
            return Response(404, b"there is nothing here; the metrics are at /metrics\n")
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"use GET\n", headers=[("Allow", "GET, HEAD")])
        return answer(request)

    def _metrics(self, request: Request) -> Response:
        if not self._is_authorized(request):
            challenge = 'Basic realm="tracarbon", charset="UTF-8"'
            return Response(401, b"who are you?\n", headers=[("WWW-Authenticate", challenge)])
        openmetrics = wants_openmetrics(request.headers.get("accept", ""))
        body, headers = self._render(openmetrics), [("Vary", "Accept, Accept-Encoding")]
        if len(body) > _NOT_WORTH_COMPRESSING_BYTES and accepts_gzip(request.headers.get("accept-encoding", "")):
            body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
            headers.append(("Content-Encoding", "gzip"))
        return Response(200, body, OPENMETRICS_CONTENT_TYPE if openmetrics else CLASSIC_CONTENT_TYPE, headers)

    def _is_authorized(self, request: Request) -> bool:
        if self._authorization is None:
            return True
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = f"{scheme.capitalize()} {token.strip()}".encode("latin-1")
        return hmac.compare_digest(given, self._authorization)

    def _healthy(self, request: Request) -> Response:
        why_not = self._why_unhealthy()
        return Response(503, f"{why_not}\n".encode()) if why_not else Response(200, b"healthy\n")

    def _ready(self, request: Request) -> Response:
        return Response(200, b"ready\n") if self._is_ready() else Response(503, b"there are no figures yet\n")

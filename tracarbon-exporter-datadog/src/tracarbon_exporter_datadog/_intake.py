"""Posting to Datadog's HTTP API, and knowing what may have arrived.

Nothing can have arrived before a request's body was sent; so whatever goes wrong until then is not delivered. After
that, only an answer tells; where none comes, or one that may mean either, the same points are sent again, with the same
time: Datadog keeps the latest value of a series and second, so that they count once.
API: https://docs.datadoghq.com/api/latest/metrics/#submit-metrics (v2)

The headers hold keys, and httpx's errors hold the request. So what is raised here is raised outside the `except` that
caught such an error, and no text of an answer is quoted.
"""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from tracarbon_exporter_datadog._parcel import NotDelivered, Parcel, Point, Progress, undone

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 512_000
"""What the API takes, compressed."""
MOST_PLAIN_BYTES = 2_000_000
"""What we put into a request, uncompressed; the API takes 5 MiB."""
REQUEST_SECONDS = 10.0
CONNECT_SECONDS = 5.0

_ENCODING = {"Content-Type": "application/json", "Content-Encoding": "deflate"}
_TYPES = {"count": 1, "gauge": 3}
_OPENING, _CLOSING = b'{"series":[', b"]}"
_LONGEST_WISH_SECONDS = 3600.0
_DRAINED_BYTES = 65_536
_DRAIN_SECONDS = 1.0
_WISHING = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_HINTS = {
    200: ": Datadog says 202; look at api_url",
    401: ": api_key is not valid at this site",
    403: ": api_key is not valid at this site",
    404: ": this is not the API; look at site and api_url",
}


_MOST_LEFT = 3
"""Series too large for a request of their own, after which it is the API that takes nothing."""


class Verdict(Enum):
    """What an answer says of a request."""

    ACCEPTED = auto()
    REFUSED = auto()
    """Nothing of it was taken; later it may be."""
    TOO_LARGE = auto()
    MALFORMED = auto()
    """Nothing of it was taken, and nothing ever will be."""
    UNKNOWN = auto()


def verdict_on(status: int) -> Verdict:
    """Return what a status means. A server error may come after the points were taken, but for 503."""
    if status == HTTPStatus.ACCEPTED:
        return Verdict.ACCEPTED
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Verdict.TOO_LARGE
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY):
        return Verdict.MALFORMED
    if 300 <= status < 500 or status == HTTPStatus.SERVICE_UNAVAILABLE:
        return Verdict.REFUSED
    return Verdict.UNKNOWN


@dataclass(frozen=True, slots=True)
class _Answer:
    verdict: Verdict
    words: str
    wish_seconds: float | None = None


class _RunBlocking(Protocol):
    async def __call__(self, function: Callable[..., Any], /, *args: Any) -> Any: ...


class Intake:
    """The HTTP API.

    Args:
        url: of the API, without a path.
        headers: with the keys.
        hostname: of this machine, in Datadog.
        run_blocking: calls a function in a thread.
    """

    def __init__(self, url: str, headers: Mapping[str, str], hostname: str, run_blocking: _RunBlocking) -> None:
        self._url = url
        self._headers = headers
        self._hostname = hostname
        self._run_blocking = run_blocking
        self._client: httpx.AsyncClient | None = None
        self._most_plain_bytes = MOST_PLAIN_BYTES

    def __repr__(self) -> str:
        return f"<Intake {self._url}>"

    async def close(self) -> None:
        """Close its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def write(self, parcel: Parcel, second: int) -> None:
        """Put the points of a parcel into JSON, as of a second since the epoch."""
        parcel.wire = tuple(json.dumps(self._series(point, second)).encode() for point in parcel.points)

    def _series(self, point: Point, second: int) -> dict[str, object]:
        series: dict[str, object] = {
            "metric": point.name,
            "type": _TYPES[point.kind],
            "points": [{"timestamp": second, "value": point.value}],
            "tags": list(point.tags),
            "resources": [{"type": "host", "name": self._hostname}],
        }
        return series | ({"interval": point.interval_seconds} if point.kind == "count" else {})

    async def deliver(self, parcels: Iterable[Parcel]) -> None:
        """Post what was not accepted yet, in as many requests as it takes.

        Raises:
            NotDelivered: parcels that are not done were not accepted, or nobody said whether they were.
        """
        waiting, left = undone(parcels), 0
        while waiting:
            some = self._fitting(waiting)
            body = await self._run_blocking(compressed, some)
            if len(body) > MOST_BYTES and len(some) > 1:
                self._most_plain_bytes = _plain_bytes(some) // 2
                continue
            answer = await self._posted(body, some)
            if answer.verdict is Verdict.TOO_LARGE and len(some) == 1:
                left += 1  # the others may get through
                waiting = waiting[1:]
                if waiting and left < _MOST_LEFT:
                    continue
            self._deal_with(answer, some)
            waiting = undone(waiting)
        self._most_plain_bytes = min(MOST_PLAIN_BYTES, self._most_plain_bytes * 2)
        if left:
            raise NotDelivered(f"{self._url}: {_status_in_words(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)}")

    def _fitting(self, waiting: Sequence[Parcel]) -> list[Parcel]:
        """Return as many of the first as fit into a request, and at least one."""
        room, count = self._most_plain_bytes, 0
        for parcel in waiting:
            room -= sum(map(len, parcel.wire))
            if room < 0 and count:
                break
            count += 1
        return [*waiting[:count]]

    def _deal_with(self, answer: _Answer, parcels: Sequence[Parcel]) -> None:
        if answer.verdict is Verdict.ACCEPTED:
            for parcel in parcels:
                parcel.progress = Progress.DONE
        elif answer.verdict is Verdict.MALFORMED:
            for parcel in parcels:
                parcel.drop(answer.words)
        elif answer.verdict is Verdict.TOO_LARGE and len(parcels) > 1:
            self._most_plain_bytes = _plain_bytes(parcels) // 2
        else:
            raise NotDelivered(f"{self._url}: {answer.words}", answer.wish_seconds)

    async def _posted(self, body: bytes, parcels: Sequence[Parcel]) -> _Answer:
        """Post a request. From when its body is sent until an answer says otherwise, its parcels are unknown."""
        before = [parcel.progress for parcel in parcels]

        def note_sent() -> None:
            for parcel in parcels:
                parcel.progress = Progress.UNKNOWN

        answer = await self._answer(body, note_sent)
        if answer.verdict is not Verdict.UNKNOWN:
            for parcel, progress in zip(parcels, before, strict=True):
                parcel.progress = progress
        return answer

    async def _answer(self, body: bytes, note_sent: Callable[[], None]) -> _Answer:
        import httpx

        client = self._client
        assert client is not None, "it was not opened"

        async def trace(event: str, _: Mapping[str, object]) -> None:
            if event.endswith("send_request_body.started"):
                note_sent()

        answer: _Answer | None = None
        try:
            with anyio.fail_after(REQUEST_SECONDS):
                request = client.build_request(
                    "POST", f"{self._url}/api/v2/series", content=body, extensions={"trace": trace}
                )
                response = await client.send(request, stream=True)
                try:
                    answer = _answer_of(response)
                    await _drain(response)
                finally:
                    with anyio.CancelScope(shield=True):
                        await response.aclose()
        except TimeoutError:
            fault = f"no answer within {REQUEST_SECONDS:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            fault = _in_words(error)
        return answer or _Answer(Verdict.UNKNOWN, fault)

    async def open(self) -> None:
        """Get ready; nothing is sent.

        Raises:
            NotDelivered: nothing can be, with what the environment says of proxies and certificates.
        """
        fault, self._client = await self._run_blocking(self._made_client)
        if self._client is None:
            raise NotDelivered(
                f"the environment's proxies or certificates (HTTPS_PROXY, SSL_CERT_FILE …) are no good: {fault}"
            )

    def _made_client(self) -> tuple[str, httpx.AsyncClient | None]:
        import httpx

        try:
            timeout = httpx.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS)
            return "", httpx.AsyncClient(headers={**self._headers, **_ENCODING}, timeout=timeout)
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            return str(error), None


def compressed(parcels: Iterable[Parcel]) -> bytes:
    """Return the body of a request, as `Content-Encoding: deflate` has it."""
    return zlib.compress(_OPENING + b",".join(series for parcel in parcels for series in parcel.wire) + _CLOSING)


def _plain_bytes(parcels: Iterable[Parcel]) -> int:
    return sum(len(series) for parcel in parcels for series in parcel.wire)


def _answer_of(response: httpx.Response) -> _Answer:
    status, headers = response.status_code, response.headers
    wish = _seconds(headers.get("retry-after", "")) or _seconds(headers.get("x-ratelimit-reset", ""))
    return _Answer(verdict_on(status), _status_in_words(status), wish if status in _WISHING else None)


async def _drain(response: httpx.Response) -> None:
    """Read a short answer to its end, so that the connection can be used again."""
    if int(response.headers.get("content-length", _DRAINED_BYTES)) < _DRAINED_BYTES:
        with anyio.move_on_after(_DRAIN_SECONDS):
            await response.aread()


def _seconds(text: str) -> float | None:
    """Return a number of seconds, or those until a date; `None` where it is neither."""
    try:
        seconds = float(text) if text[:1].isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(seconds, _LONGEST_WISH_SECONDS) if math.isfinite(seconds) and seconds > 0 else None


def _status_in_words(status: int) -> str:
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return f"HTTP {status}{phrase}{_HINTS.get(status, '')}"


def _in_words(error: Exception) -> str:
    """Say what went wrong; the text of most errors may quote what was sent or received."""
    import httpx

    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {REQUEST_SECONDS:g} s"
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return f"no connection: {error}"
    return f"the connection broke ({type(error).__name__})"

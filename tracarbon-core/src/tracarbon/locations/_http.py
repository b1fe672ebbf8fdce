"""One GET that answers with a JSON object, by httpx, which is imported only here and only when it is used.

The headers hold keys, and httpx's errors hold the request with its headers. So what is raised here is raised outside
the `except` that caught such an error: neither its text nor its chain nor the frames of its traceback can show a key.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import anyio

from tracarbon._addresses import is_web_address
from tracarbon._text import Secret
from tracarbon.exceptions import TracarbonException

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

TOTAL_SECONDS = 10.0
CONNECT_SECONDS = 10.0
MAX_BODY_BYTES = 1_000_000
MAX_REDIRECTS = 5


class StatusError(TracarbonException):
    """The answer has another status than 2xx.

    Attributes:
        status: which.
        retry_after_seconds: how long the service asked to be left alone; `None` where it did not.
    """

    def __init__(self, message: str, status: int, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class _NoAnswer(Exception):
    """Why there is no answer, in words that hold no secret; with status and wish, where those are the reason."""

    def __init__(self, words: str, status: int | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


def require_httpx() -> None:
    """Import httpx.

    Raises:
        TracarbonException: it is not installed; says what to install.
    """
    try:
        import httpx  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "httpx":
            raise
    else:
        return
    raise TracarbonException("asking over the network needs httpx: pip install 'tracarbon-core[live]'")


async def get_json(
    url: str, headers: Mapping[str, Secret] | None = None, *, total_seconds: float | None = None
) -> dict[str, Any]:
    """Return the JSON object at an address.

    Args:
        url: of http or https. Proxies and certificates are what the environment says (`HTTPS_PROXY`, `SSL_CERT_FILE`).
        headers: sent to the host of `url` alone; a redirection to another host goes without them.
        total_seconds: for everything, redirections included; by default `TOTAL_SECONDS`.

    Raises:
        TracarbonException: there is no such answer; says why, names the address without its query, and no header. A
            `StatusError` where the status is not 2xx.
    """
    require_httpx()
    import httpx

    seconds = TOTAL_SECONDS if total_seconds is None else total_seconds
    status = retry_after_seconds = None
    try:
        with anyio.fail_after(seconds):
            return _json_object(await _get(url, headers or {}, seconds))
    except TimeoutError:
        fault = f"no answer within {seconds:g} s"
    except (_NoAnswer, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        fault, status = _in_words(error, seconds), getattr(error, "status", None)
        retry_after_seconds = getattr(error, "retry_after_seconds", None)
    message = f"GET {without_query(url)}: {fault}"
    raise TracarbonException(message) if status is None else StatusError(message, status, retry_after_seconds)


def without_query(url: str) -> str:
    """Return an address without what may be secret in it: user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return "an address that is none"


def in_own_loop(ask: Callable[[], Awaitable[T]], done: Callable[[T | Exception], object]) -> threading.Thread:
    """Run `ask` in an event loop of its own, in a daemon thread, whatever becomes of the caller and its loop.

    `done` is called once, in that thread, with what `ask` returned or raised, before the loop is taken down: that may
    have to wait for a name server that hangs.
    """
    is_done = False

    async def ask_and_tell() -> None:
        nonlocal is_done
        outcome: T | Exception
        try:
            outcome = await ask()
        except Exception as error:  # handed over, whatever it is
            outcome = error
        is_done = True
        done(outcome)

    def run() -> None:
        try:
            anyio.run(ask_and_tell)
        except Exception as error:  # such as no file descriptors left for a loop
            if is_done:
                raise
            done(error)

    thread = threading.Thread(target=run, name="tracarbon-request", daemon=True)
    thread.start()
    return thread


async def _get(url: str, headers: Mapping[str, Secret], seconds: float) -> bytes:
    _check_headers(headers)
    _check_address(url)
    async with _client(seconds) as client:
        request = client.build_request("GET", url, headers=headers)
        for _ in range(MAX_REDIRECTS + 1):
            response = await client.send(request, stream=True)
            try:
                if response.next_request is None:
                    return await _body(response)
                _check_address(str(response.next_request.url))
                request = _redirected(request, response.next_request, headers)
            finally:
                await response.aclose()
    raise _NoAnswer(f"more than {MAX_REDIRECTS} redirections")


def _check_address(url: str) -> None:
    if not is_web_address(url):
        raise _NoAnswer("this is no address of http or https")


def _check_headers(headers: Mapping[str, Secret]) -> None:
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise _NoAnswer(f"the value of header {name} has characters that no header can have")


def _client(seconds: float) -> httpx.AsyncClient:
    import httpx

    try:
        return httpx.AsyncClient(
            timeout=httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        raise _NoAnswer(
            f"the environment's proxies or certificates (HTTPS_PROXY, SSL_CERT_FILE …) are of no use: {error}"
        ) from None


def _redirected(before: httpx.Request, after: httpx.Request, headers: Mapping[str, Secret]) -> httpx.Request:
    """Return the next request, without the headers when it goes elsewhere: httpx takes out `Authorization` alone."""
    if before.url.scheme == "https" and after.url.scheme != "https":
        raise _NoAnswer("redirected from https to an address without encryption")
    if (before.url.scheme, before.url.host, before.url.port) != (after.url.scheme, after.url.host, after.url.port):
        for name in headers:
            after.headers.pop(name, None)
    return after


async def _body(response: httpx.Response) -> bytes:
    if not response.is_success:
        wish = _retry_after_seconds(response.headers.get("retry-after", ""))
        raise _NoAnswer(_status_in_words(response.status_code), response.status_code, wish)
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        # A small answer may decode to one that no memory holds.
        raise _NoAnswer("the answer is compressed, which it was asked not to be")
    body = bytearray()
    with anyio.CancelScope() as scope:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                scope.cancel()  # ends the generators within httpx too, which leaving the loop would not
    if len(body) > MAX_BODY_BYTES:
        raise _NoAnswer(f"the answer is longer than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _retry_after_seconds(text: str) -> float | None:
    """Return what `Retry-After` says, as seconds or as a date; `None` where it says nothing that makes sense."""
    if text.strip().isascii() and text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _status_in_words(status: int) -> str:
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return f"HTTP {status}{phrase}"


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise _NoAnswer("the answer is no JSON") from None
    if not isinstance(answer, dict):
        raise _NoAnswer("the answer is JSON, but no object")
    return answer


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _in_words(error: Exception, seconds: float) -> str:
    """Say what went wrong. The text of most errors may quote what was sent or received, so it is left out."""
    import httpx

    if isinstance(error, _NoAnswer | httpx.InvalidURL):
        return str(error)
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {min(seconds, CONNECT_SECONDS):g} s"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {seconds:g} s"
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return f"no connection: {_tls_error(error) or error}"
    return f"the connection broke or spoke no HTTP ({type(error).__name__})"


def _tls_error(error: BaseException) -> str:
    """Return what TLS had to object to; under trio it is deep in the chain."""
    import ssl

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return ""

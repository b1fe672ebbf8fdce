"""Asking the API server: bytes for a path, and lists page by page.

Configuration, credentials, TLS and proxies are the official client's; its typed models, retries and redirects are not
used. Everything here blocks: call it in a worker thread.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Protocol, TypeVar
from urllib.parse import urlencode, urlsplit

from tracarbon_k8s._bodies import ListMetadata, decode_status
from tracarbon_k8s._cluster import SERVICE_ACCOUNT, authorisation, connect
from tracarbon_k8s._errors import ApiAbsent, ApiDenied, ApiError, ApiGarbled, ApiGone, ApiUnreachable

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from urllib3 import BaseHTTPResponse

PAGE_ITEMS: Final = 500
"""What the official tools ask for at once."""
MOST_PAGES: Final = 1000
MOST_BYTES: Final = 32 * 2**20
"""Of one answer: some ten times what 500 pods take, and metrics of 30,000. More would not fit into a small pod."""
_CHUNK_BYTES: Final = 2**20
_METRICS_GROUP: Final = "metrics.k8s.io"


class Page(Protocol):
    """A decoded page of a list."""

    @property
    def metadata(self) -> ListMetadata:
        """Where the next one is."""


PageT = TypeVar("PageT", bound=Page)


class _Answer(NamedTuple):
    status: int
    body: bytes
    credentials: tuple[str, ...]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.status})"


class Api:
    """A cluster's API server. Constructing it does no I/O; the first request loads the configuration.

    Args:
        kubeconfig: the user's file; by default one's own cluster's service account, else `KUBECONFIG` or
            `~/.kube/config`.
        context: which of the file's, unless its current one.
        timeout_seconds: how long a connection, and the beginning of an answer, may take each, and then the rest of it:
            a request ends after three times that at the latest.
        client: an official client to use as it is, instead of a configuration of our own. It is not closed.
        service_account: the folder of the pod's credentials.
        most_bytes: how large an answer may be.
    """

    def __init__(
        self,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        timeout_seconds: float = 10.0,
        client: ApiClient | None = None,
        service_account: Path = SERVICE_ACCOUNT,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._kubeconfig, self._context, self._service_account = kubeconfig, context, service_account
        self._timeout_seconds, self._most_bytes = timeout_seconds, most_bytes
        self._given, self._client = client, client
        self._lock = threading.Lock()

    def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """Return the body of an answer.

        A 401 makes it load the configuration anew, once: the token may have been replaced.

        Args:
            path: such as `/api/v1/pods`.
            query: what comes after the question mark.

        Raises:
            ApiUnconfigured: there is no cluster to ask.
            ApiUnreachable: refused, too late, broken off, TLS, or 429 and 5xx.
            ApiDenied: 401 or 403.
            ApiAbsent: 404 of the metrics API.
            ApiGone: 410.
            ApiGarbled: the answer is too large, or compressed though nobody asked for it.
            ApiError: any other status.
        """
        target = path + (f"?{urlencode(query)}" if query else "")
        client = self._connected()
        answer = self._exchange(client, target)
        if answer.status == 401 and self._given is None:
            answer = self._exchange(self._renewed(client), target)
        if answer.status != 200:
            _refuse(answer, path, self._server)
        return answer.body

    def get_pages(
        self, path: str, query: Mapping[str, str], decode: Callable[[bytes], PageT], page_items: int = PAGE_ITEMS
    ) -> list[PageT]:
        """Return all pages of a list, or none: a list that is gone in the middle (410) is begun once more.

        Args:
            path: of the list.
            query: selectors and, for the first page only, a `resourceVersion`.
            decode: what makes a page of a body; raises `ApiGarbled`.
            page_items: how many the server is asked to put on a page. It may put all on one.

        Raises:
            ApiError: as of `get`; `ApiGarbled` also for a list without an end.
        """
        try:
            return self._pages(path, query, decode, page_items)
        except ApiGone:
            return self._pages(path, query, decode, page_items)

    def close(self) -> None:
        """Let go of connections. It may be used again."""
        with self._lock:
            client, self._client = self._client, self._given
        if client is not None and client is not self._given:
            _close(client)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._server})"

    def _pages(
        self, path: str, query: Mapping[str, str], decode: Callable[[bytes], PageT], page_items: int
    ) -> list[PageT]:
        first = {**query, "limit": str(page_items)}
        rest = {key: value for key, value in first.items() if key != "resourceVersion"}
        pages = [decode(self.get(path, first))]
        while token := pages[-1].metadata.continue_:
            if len(pages) == MOST_PAGES:
                raise ApiGarbled(f"{self._server}: the list {path} has no end after {MOST_PAGES} pages")
            pages.append(decode(self.get(path, {**rest, "continue": token})))
        return pages

    @property
    def _server(self) -> str:
        if self._client is None:
            return "the API server"
        parts = urlsplit(self._client.configuration.host)
        return f"the API server {parts.netloc.rpartition('@')[2]}"

    def _connected(self) -> ApiClient:
        with self._lock:
            if self._client is None:
                self._client = connect(self._kubeconfig, self._context, self._service_account)
            return self._client

    def _renewed(self, refused: ApiClient) -> ApiClient:
        with self._lock:
            if self._client is refused:  # no other thread was faster
                self._client = connect(self._kubeconfig, self._context, self._service_account)
                _close(refused)
            renewed = self._client
        return renewed or self._connected()

    def _exchange(self, client: ApiClient, target: str) -> _Answer:
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        credentials = authorisation(client)
        headers = {"Accept": "application/json", "User-Agent": "tracarbon-k8s", **credentials}
        seconds = self._timeout_seconds
        timeout = Timeout(connect=seconds, read=seconds)
        try:
            response = client.rest_client.pool_manager.request(
                "GET",
                client.configuration.host + target,
                headers=headers,
                preload_content=False,
                timeout=timeout,
                retries=False,  # nor redirects: the token is for this server alone
            )
            try:
                return _Answer(response.status, self._body(response), tuple(credentials.values()))
            finally:
                response.close()  # a body that was read to its end has given its connection back already
        except (HTTPError, OSError, ValueError) as error:
            said = words_of(error, seconds)
        raise ApiUnreachable(f"{self._server}: {said}")

    def _body(self, response: BaseHTTPResponse) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ApiGarbled(f"{self._server}: the answer is compressed, which nobody asked for")
        deadline = time.monotonic() + self._timeout_seconds
        chunks, size = [], 0
        while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
            chunks.append(chunk)
            size += len(chunk)
            if size > self._most_bytes:
                raise ApiGarbled(f"{self._server}: the answer is larger than {self._most_bytes} bytes")
            if time.monotonic() > deadline:
                raise ApiUnreachable(f"{self._server}: the answer is not complete after {self._timeout_seconds:g} s")
        return b"".join(chunks)


def _close(client: Any) -> None:
    client.close()
    client.rest_client.pool_manager.clear()  # some versions of the client leave it to the garbage collector


def _refuse(answer: _Answer, path: str, server: str) -> NoReturn:
    status, said = answer.status, _said(answer)
    where = f"{server} answers {status} to {path}"
    message = f"{where}: {said}" if said else where
    if status == 401:
        raise ApiDenied(f"{message}; the token or the client certificate is not accepted (any more)")
    if status == 403:
        raise ApiDenied(f"{message}; what is missing is {_rule(path)}")
    if status == 404 and f"/apis/{_METRICS_GROUP}/" in path:
        raise ApiAbsent(f"{message}; metrics-server is not installed, and usage = 'cgroup' needs none")
    if status == 410:
        raise ApiGone(message)
    if status == 429 or status >= 500:
        raise ApiUnreachable(message)
    raise ApiError(message)


def _said(answer: _Answer) -> str:
    """Return the words of a Status, if it is one, without what they may repeat of the credentials."""
    try:
        message = decode_status(answer.body).message or ""
    except ApiGarbled:
        return ""
    for secret in answer.credentials:
        message = message.replace(secret.split()[-1], "***")
    return "".join(letter if letter.isprintable() else " " for letter in message[:500])


def _rule(path: str) -> str:
    """Return what a role would have to say for a list to be allowed."""
    parts = path.strip("/").split("/")
    group = "" if parts[0] == "api" else parts[1]
    within = f" in the namespace {parts[-2]}" if parts[-3] == "namespaces" else ""
    return f'the rule apiGroups: ["{group}"], resources: ["{parts[-1]}"], verbs: ["list"]{within}'


def words_of(error: Exception, seconds: float) -> str:
    """Say what went wrong. The error's own words are not repeated: some quote what was sent, or what came back."""
    from urllib3 import exceptions as http

    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, http.NameResolutionError):
            return "its name is not known"
        if isinstance(cause, http.NewConnectionError):
            continue  # which is a time-out to urllib3, whatever the reason
        if isinstance(cause, http.TimeoutError | TimeoutError):
            return f"no answer within {seconds:g} s"
        if isinstance(cause, ssl.SSLError):
            return f"TLS fails: {getattr(cause, 'verify_message', None) or cause.reason or 'it is not told why'}"
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    if isinstance(error, ValueError) and not isinstance(error, http.HTTPError):
        return "the request cannot be made: the credentials or the address are malformed"
    return "the connection broke before the end of the answer"


def _causes(error: Any) -> list[BaseException]:
    found: list[BaseException] = []
    waiting = [error]
    while waiting and len(found) < 20:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and each not in found:
            found.append(each)
            waiting += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
    return found

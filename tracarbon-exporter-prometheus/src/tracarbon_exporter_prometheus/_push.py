"""Pushing to a Pushgateway, for runs that are over before anybody scrapes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import NOT_FOUND, HTTPException
from urllib.error import HTTPError

from prometheus_client import push_to_gateway
from prometheus_client.exposition import basic_auth_handler, default_handler
from prometheus_client.registry import Collector

from tracarbon_exporter_prometheus._responses import Credentials

_TIMEOUT_SECONDS = 10.0
_PASSING_STATUSES = (408, 425, 429)
_MOST_SAID = 200


class PushError(Exception):
    """The gateway did not take it.

    What cannot be printed of its words is shown escaped: they go to logs and terminals.

    Attributes:
        is_final: whether it never will.
    """

    def __init__(self, message: str, *, is_final: bool) -> None:
        super().__init__(_printable(message))
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class Gateway:
    """A Pushgateway, and the group there that is ours.

    Attributes:
        url: such as `http://127.0.0.1:9091`.
        job: the group's label `job`.
        grouping: its other labels.
    """

    url: str
    job: str
    grouping: Mapping[str, str]
    credentials: Credentials | None = None

    def push(self, collector: Collector) -> None:
        """Replace what the group holds; blocks.

        Raises:
            PushError: it did not arrive.
        """
        try:
            push_to_gateway(
                self.url,
                job=self.job,
                registry=collector,
                grouping_key=dict(self.grouping),
                timeout=_TIMEOUT_SECONDS,
                handler=self._handler,
            )
        except HTTPError as error:
            said = _said(error)
            is_final = 400 <= error.code < 500 and error.code not in _PASSING_STATUSES
            hint = "; push_url is the gateway's own address, without a path" if error.code == NOT_FOUND else ""
            raise PushError(f"{self.url}: {error.code} {said or error.reason}{hint}", is_final=is_final) from None
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror or error
            raise PushError(f"{self.url}: {reason}", is_final=False) from error
        except HTTPException as error:
            # Its text is not shown: what does not speak HTTP may well echo the request, password included.
            why = f"no answer that is HTTP ({type(error).__name__}); push_url has to be the address of a Pushgateway"
            raise PushError(f"{self.url}: {why}", is_final=False) from None

    def _handler(
        self, url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        if self.credentials is None:
            return default_handler(url, method, timeout, headers, data)
        return basic_auth_handler(
            url, method, timeout, headers, data, self.credentials.username, self.credentials.password
        )


def _said(error: HTTPError) -> str:
    """Return the beginning of an answer's text; nothing where it does not arrive."""
    try:
        with error:
            return " ".join(error.read(_MOST_SAID).decode("utf-8", "replace").split())
    except (OSError, HTTPException):
        return ""


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)

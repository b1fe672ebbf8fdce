"""Asking a service on the internet for the country of this machine's IP address."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from tracarbon._text import Secret
from tracarbon.exceptions import CountryIsMissing, TracarbonException
from tracarbon.locations._http import get_json, in_own_loop, require_httpx, without_query

_KNOWS_HTTPS = "ipinfo.io"


def ask_for_country(url: str, timeout_seconds: float, token: str = "") -> str:
    """Return the code that a service answers with, in lower case. Blocks, also inside a running event loop.

    Args:
        url: of the service.
        timeout_seconds: for everything.
        token: for the service, if it wants one.

    Raises:
        CountryIsMissing: there is no such answer; says why, and what to set.
    """
    address = over_https(url)
    outcome = _answer(address, timeout_seconds, token)
    if isinstance(outcome, TracarbonException):
        fault = str(outcome)
    elif isinstance(outcome, Exception):
        raise outcome
    else:
        code = outcome.get("country")
        if isinstance(code, str) and len(code) == 2 and code.isascii() and code.isalpha():
            return code.lower()
        fault = f"GET {without_query(address)}: the answer names no country"
    raise CountryIsMissing(
        f"the country of this machine's IP address is unknown: {fault}. "
        "Set country in [location], --country, or TRACARBON_COUNTRY"
    )


def over_https(url: str) -> str:
    """Return the address with https where the service is known to have it; others are left alone."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname == _KNOWS_HTTPS and parts.port in (None, 80):
            return parts._replace(scheme="https", netloc=_KNOWS_HTTPS).geturl()
    except ValueError:  # no address at all, which the request will say
        pass
    return url


def _answer(address: str, timeout_seconds: float, token: str) -> dict[str, Any] | Exception:
    try:
        require_httpx()
    except TracarbonException as error:
        return error
    outcomes: SimpleQueue[dict[str, Any] | Exception] = SimpleQueue()
    headers = {"Authorization": Secret(f"Bearer {token}")} if token else {}
    in_own_loop(lambda: get_json(address, headers, total_seconds=timeout_seconds), outcomes.put)
    return outcomes.get()

"""What an address, a key and a zone of a live service have to be like, for without that no request can ever go well."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tracarbon._addresses import is_web_address
from tracarbon._text import has_gaps
from tracarbon.exceptions import TracarbonException

if TYPE_CHECKING:
    from pydantic import SecretStr


def checked_url(url: str) -> str:
    """Return an address as it is.

    Raises:
        ValueError: it is none of http or https, or has blanks or control characters; does not quote it.
    """
    if has_gaps(url):
        raise ValueError("the address has blanks or control characters")
    if not is_web_address(url):
        raise ValueError("this is no address such as https://example.org/intensity")
    return url


def checked_prefix(url: str) -> str:
    """Return an address that a zone is put after.

    Raises:
        ValueError: as of `checked_url`, or what is put after it would become a part of the host.
    """
    parts = urlsplit(checked_url(url))
    if not (parts.path or parts.query):
        raise ValueError("the zone is put right after the address, and would change its host; add a / or a query to it")
    return url


def checked_key(key: str) -> str:
    """Return a key without blanks around it.

    Raises:
        ValueError: no header can have it; does not quote it.
    """
    stripped = key.strip()
    if not key.isascii() or has_gaps(stripped):
        raise ValueError("the key has blanks or characters that no key has; copy it once more")
    return stripped


def checked_secret(key: SecretStr) -> SecretStr:
    """Return a key as it is.

    Raises:
        ValueError: as of `checked_key`.
    """
    checked_key(key.get_secret_value())
    return key


def checked_zone(zone: str) -> str:
    """Return a zone without blanks around it.

    Raises:
        ValueError: no service can know it.
    """
    stripped = zone.strip()
    if not stripped or has_gaps(stripped):
        raise ValueError("a zone is like FR or US-CAL-CISO, without blanks")
    if stripped.lower() == "world":
        raise ValueError("there is no live intensity of the world; give a zone such as FR or US-CAL-CISO")
    return stripped


def require(check: Callable[[str], str], name: str, value: str) -> None:
    """Check an argument in code as an option is checked.

    Raises:
        TracarbonException: it makes no sense; names it.
    """
    try:
        check(value)
    except ValueError as error:
        raise TracarbonException(f"{name}: {error}") from None

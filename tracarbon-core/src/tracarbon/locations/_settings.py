"""What an address, a key and a zone of a live service have to be like, for without that no request can ever go well."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tracarbon.exceptions import TracarbonException

if TYPE_CHECKING:
    from pydantic import SecretStr

KEY_FAULT = "the key has blanks or characters that no key has; copy it once more"


def is_web_address(url: str) -> bool:
    """Whether it has http or https, a host, and a port that there is, or none."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # such as a port of 99999
        return False


def checked_url(url: str) -> str:
    """Return an address as it is.

    Raises:
        ValueError: it is none of http or https, or has blanks or control characters; does not quote it.
    """
    if _has_gaps(url):
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


def is_key(key: str) -> bool:
    """Whether a header can have it, but for blanks around it."""
    return key.isascii() and not _has_gaps(key.strip())


def checked_key(key: SecretStr) -> SecretStr:
    """Return a key as it is.

    Raises:
        ValueError: no header can have it; does not quote it.
    """
    if not is_key(key.get_secret_value()):
        raise ValueError(KEY_FAULT)
    return key


def checked_zone(zone: str) -> str:
    """Return a zone without blanks around it.

    Raises:
        ValueError: no service can know it.
    """
    stripped = zone.strip()
    if not stripped or _has_gaps(stripped):
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


def _has_gaps(text: str) -> bool:
    return any(character.isspace() or not character.isprintable() for character in text)

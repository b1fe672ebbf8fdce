"""What a user may write into `[exporters.prometheus]`."""

from __future__ import annotations

import logging
import os
import re
from typing import Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr, model_validator
from tracarbon.exceptions import TracarbonException
from tracarbon.plugin import PluginOptions

logger = logging.getLogger("tracarbon")

_LAST_PORT = 65_535
_OF_SERVING = frozenset({"address", "port", "certfile", "keyfile", "client_cafile", "client_capath"})
_OF_PUSHING = frozenset({"push_job", "push_grouping"})


class PrometheusOptions(PluginOptions):
    """Options of `[exporters.prometheus]`."""

    address: str = Field(
        default="127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 or :: is every address"
    )
    port: int = Field(default=8081, ge=0, le=_LAST_PORT, description="port to listen on; 0 is any that is free")
    certfile: str | None = Field(default=None, min_length=1, description="the server's certificate (PEM), for TLS")
    keyfile: str | None = Field(default=None, min_length=1, description="its private key (PEM), without a passphrase")
    client_cafile: str | None = Field(
        default=None, min_length=1, description="authorities (PEM) that clients' certificates are checked against"
    )
    client_capath: str | None = Field(default=None, min_length=1, description="the same, as a folder of OpenSSL's")
    client_auth_required: bool = Field(default=False, description="turn clients without a certificate away")
    username: str | None = Field(
        default=None, min_length=1, description="name that a client has to give; with push_url, the gateway's"
    )
    password: SecretStr | None = Field(default=None, description='its password, such as { env = "SCRAPE_PASSWORD" }')
    max_series: int = Field(
        default=10_000, ge=1, description="most series; those beyond are added up by metric, labelled overflow"
    )
    linger_seconds: float = Field(
        default=300.0, ge=0, allow_inf_nan=False, description="how long totals are served of what is gone"
    )
    push_url: str | None = Field(
        default=None, min_length=1, description="a Pushgateway to push to, instead of being scraped"
    )
    push_job: str = Field(default="tracarbon", min_length=1, description="label job of what is pushed")
    push_grouping: dict[str, str] = Field(
        default={}, description="further labels of what is pushed, or another instance than the host's name"
    )

    @model_validator(mode="after")
    def _check_what_goes_together(self) -> Self:
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("certfile and keyfile go together")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.password is not None and not self.password.get_secret_value():
            raise ValueError("password is empty")
        if self.username is not None and ":" in self.username:
            raise ValueError("username has a colon, which HTTP does not allow there")
        has_authorities = self.client_cafile is not None or self.client_capath is not None
        if has_authorities and self.certfile is None:
            raise ValueError("client_cafile and client_capath need certfile and keyfile: there is no TLS without them")
        if self.client_auth_required and not has_authorities:
            raise ValueError("client_auth_required needs client_cafile or client_capath: whose certificates are good?")
        return self

    @model_validator(mode="after")
    def _check_pushing(self) -> Self:
        if self.push_url is None:
            if given := sorted(_OF_PUSHING & self.model_fields_set):
                raise ValueError(f"{' and '.join(given)} {'needs' if len(given) == 1 else 'need'} push_url")
            return self
        if given := sorted(_OF_SERVING & self.model_fields_set):
            verb = "is" if len(given) == 1 else "are"
            raise ValueError(f"{' and '.join(given)} {verb} for being scraped; with push_url nothing is served")
        for name in self.push_grouping:
            if name == "job" or re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) is None:
                raise ValueError(f"push_grouping has {name!r}: {'say push_job' if name == 'job' else 'no label name'}")
        _check_url(self.push_url)
        return self


def _check_url(url: str) -> None:
    """Refuse what nothing could ever be pushed to; `urlsplit` overlooks some of it. The address itself is not shown."""
    if not all("!" <= character <= "~" for character in url):
        raise ValueError("push_url has a blank or a character that is not printable ASCII")
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
    except ValueError:  # such as brackets that do not close, or two dots in a row
        host = b""
    if not host or parts.scheme not in ("http", "https"):
        raise ValueError("push_url is no address such as http://127.0.0.1:9091")
    if not _has_good_port(parts):
        raise ValueError(f"push_url has a port that is no number from 1 to {_LAST_PORT}")
    if "@" in parts.netloc:
        raise ValueError("push_url has a name or a password; they belong into username and password")
    if parts.query or parts.fragment:
        raise ValueError("push_url has more than scheme, host, port and path")


def _has_good_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def is_port(value: object) -> bool:
    """Whether it is a number that a port may have."""
    return isinstance(value, int) and 0 <= value <= _LAST_PORT


def with_variables(options: PrometheusOptions) -> PrometheusOptions:
    """Return options with what the environment says of address and port, which wins over a file.

    Raises:
        TracarbonException: `PROMETHEUS_PORT` is no port.
    """
    said = {
        "address": os.environ.get("PROMETHEUS_ADDRESS"),
        "port": _port_of(os.environ.get("PROMETHEUS_PORT")),
    }
    return options.model_copy(update={name: value for name, value in said.items() if value not in (None, "")})


def _port_of(text: str | None) -> int | None:
    if not text:
        return None
    if text.startswith("tcp://"):
        # Kubernetes gives every pod such a variable for a service that is called prometheus.
        logger.info("exporter prometheus: PROMETHEUS_PORT is %s, a service of Kubernetes, and not a port for us", text)
        return None
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not is_port(port):
        raise TracarbonException(f"PROMETHEUS_PORT is {text!r}, which is no port; give a number from 0 to 65535")
    return port

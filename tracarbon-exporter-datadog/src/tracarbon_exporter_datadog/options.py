"""What a user may write into `[exporters.datadog]`, and what Datadog's variables add to it."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, SecretStr, model_validator
from tracarbon.plugin import PluginOptions

Transport: TypeAlias = Literal["dogstatsd", "http"]

DEFAULT_AGENT_HOST = "localhost"
DEFAULT_AGENT_PORT = 8125
DEFAULT_SITE = "datadoghq.com"

_OF_DOGSTATSD = ("agent_host", "agent_port", "socket_path", "max_packet_bytes", "disable_buffering")
_OF_HTTP = ("api_key", "app_key", "site", "api_url", "hostname")
_TRUE = frozenset({"True", "true", "yes", "1"})
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_PATH = 107 if sys.platform == "linux" else 103
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?")
_SITE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


class DatadogOptions(PluginOptions):
    """Options of `[exporters.datadog]`."""

    model_config = ConfigDict(hide_input_in_errors=True)

    transport: Transport | None = Field(
        default=None, description="dogstatsd: to an agent; http: to Datadog's API. By default http where there is a key"
    )
    api_key: SecretStr | None = Field(
        default=None, description='the API key, such as { env = "DD_API_KEY" }, which is also the default'
    )
    app_key: SecretStr | None = Field(
        default=None, description="an application key, sent along; submitting metrics does not need one"
    )
    site: str | None = Field(default=None, min_length=1, description="the site, such as datadoghq.eu, or DD_SITE")
    api_url: str | None = Field(
        default=None, min_length=1, description="address of the API, in place of https://api.SITE"
    )
    hostname: str | None = Field(
        default=None,
        min_length=1,
        description="this machine's name in Datadog, or DD_HOSTNAME; the agent knows its own",
    )
    agent_host: str | None = Field(
        default=None, min_length=1, description="where the agent is, or DD_AGENT_HOST; localhost by default"
    )
    agent_port: int | None = Field(
        default=None, ge=1, le=65_535, description="its UDP port, or DD_DOGSTATSD_PORT; 8125"
    )
    socket_path: str | None = Field(
        default=None, min_length=1, description="its Unix socket of datagrams, in place of UDP, or DD_DOGSTATSD_SOCKET"
    )
    disable_buffering: bool = Field(default=False, description="send each metric in a packet of its own")
    max_packet_bytes: int | None = Field(
        default=None, ge=256, le=65_507, description="most bytes of a packet: 1432 by UDP, 8192 by a Unix socket"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        target_of(self, os.environ)
        return self


@dataclass(frozen=True, slots=True)
class AgentTarget:
    """An agent to send to.

    Attributes:
        host: where it listens for UDP; not looked at where there is a path.
        path: its Unix socket.
    """

    host: str
    port: int
    path: str | None

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"DogStatsD at {self.path or f'{self.host}:{self.port}'}"


@dataclass(frozen=True, slots=True, repr=False)
class ApiTarget:
    """The HTTP API to post to.

    Attributes:
        url: of the API, without a path.
        headers: with the keys.
        hostname: this machine's name; `None` for what the system says.
    """

    url: str
    headers: Mapping[str, str]
    hostname: str | None

    @property
    def is_readable_on_the_way(self) -> bool:
        """Whether the keys cross a network unencrypted."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")


def target_of(options: DatadogOptions, environ: Mapping[str, str]) -> AgentTarget | ApiTarget:
    """Return where to send to: what the options say, and the variables where those say nothing.

    Raises:
        ValueError: they say two things, or nothing that could work.
    """
    if _transport(options, environ) == "http":
        _refuse(options, _OF_DOGSTATSD, "http")
        return _api(options, environ)
    _refuse(options, _OF_HTTP, "dogstatsd")
    return _agent(options, environ)


def _transport(options: DatadogOptions, environ: Mapping[str, str]) -> Transport:
    if options.transport is not None:
        return options.transport
    given = options.model_fields_set
    has_key = options.api_key is not None
    agent = sorted(given & {"agent_host", "agent_port", "socket_path"})
    if has_key and agent:
        raise ValueError(f"api_key is for Datadog's API and {agent[0]} for an agent: take one of them out")
    if has_key or agent:
        return "http" if has_key else "dogstatsd"
    if given & {"app_key", "site", "api_url", "hostname"}:
        return "http"
    of_key, _ = _first(environ, "DATADOG_API_KEY", "DD_API_KEY")
    of_agent, _ = _first(environ, "DD_DOGSTATSD_URL", "DD_DOGSTATSD_SOCKET", "DD_AGENT_HOST")
    if of_key and of_agent:
        raise ValueError(f'both {of_key} and {of_agent} are set: say transport = "dogstatsd" or transport = "http"')
    return "http" if of_key else "dogstatsd"


def _refuse(options: DatadogOptions, names: tuple[str, ...], transport: Transport) -> None:
    fields = type(options).model_fields
    for name in names:
        if getattr(options, name) != fields[name].default:
            other = "dogstatsd" if transport == "http" else "http"
            raise ValueError(f'{name} is for transport = "{other}", and this is "{transport}"')


def _api(options: DatadogOptions, environ: Mapping[str, str]) -> ApiTarget:
    api_key = _key("api_key", options.api_key, environ, "API_KEY")
    if not api_key:
        raise ValueError('there is no API key: give api_key = { env = "DD_API_KEY" }, or set DD_API_KEY')
    app_key = _key("app_key", options.app_key, environ, "APP_KEY")
    headers = {"DD-API-KEY": api_key} | ({"DD-APPLICATION-KEY": app_key} if app_key else {})
    return ApiTarget(_url(options, environ), headers, _hostname(options, environ))


def _key(name: str, given: SecretStr | None, environ: Mapping[str, str], suffix: str) -> str:
    if given is not None:
        key = given.get_secret_value()
        if not key:
            raise ValueError(f"{name} is empty")
    else:
        name, text = _first(environ, f"DATADOG_{suffix}", f"DD_{suffix}")
        key = text.strip()
        if text and not key:
            raise ValueError(f"{name} is empty")
    if key and not _KEY.fullmatch(key):
        raise ValueError(f"{name} is no key: those of Datadog are of letters and digits alone")
    return key


def _hostname(options: DatadogOptions, environ: Mapping[str, str]) -> str | None:
    name, text = ("hostname", options.hostname) if options.hostname else _first(environ, "DD_HOSTNAME")
    if text and not _HOST_NAME.fullmatch(text):
        raise ValueError(f"{name} is {text!r}; give a name of letters, digits, dots and dashes, at most 255 of them")
    return text or None


def _url(options: DatadogOptions, environ: Mapping[str, str]) -> str:
    if options.site is not None and options.api_url is not None:
        raise ValueError("site and api_url both say where the API is: take one of them out")
    url = options.api_url or ("" if options.site is not None else environ.get("DATADOG_HOST", ""))
    if url:
        return _checked_url("api_url" if options.api_url else "DATADOG_HOST", url)
    name, site = ("site", options.site) if options.site else _first(environ, "DD_SITE")
    site = site or DEFAULT_SITE
    if not _SITE.fullmatch(site) or site.startswith(("app.", "api.")):
        raise ValueError(f"{name} is {site!r}; give one such as datadoghq.eu, as in the address of Datadog's pages")
    return f"https://api.{site}"


def _checked_url(name: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError(f"{name} is no address such as https://api.datadoghq.eu")
    if parts.path.rstrip("/").endswith("/api/v2/series"):
        raise ValueError(f"{name} is without the path /api/v2/series, which is added to it")
    if parts.username or parts.password or parts.query:
        raise ValueError(f"{name} has a name, a password or a query; keys belong into api_key and app_key")
    return url.rstrip("/")


def _agent(options: DatadogOptions, environ: Mapping[str, str]) -> AgentTarget:
    if environ.get("DD_DOGSTATSD_DISABLE") in _TRUE:
        raise ValueError("DD_DOGSTATSD_DISABLE is set: nothing would be sent")
    if options.socket_path is not None and (options.agent_host is not None or options.agent_port is not None):
        raise ValueError("socket_path is in place of agent_host and agent_port: take one of them out")
    if options.socket_path is not None:
        return _at_path("socket_path", options.socket_path)
    if options.agent_host is None and options.agent_port is None:
        if url := environ.get("DD_DOGSTATSD_URL"):
            return _at_url(url)
        if path := environ.get("DD_DOGSTATSD_SOCKET"):
            return _at_path("DD_DOGSTATSD_SOCKET", path)
    name, host = ("agent_host", options.agent_host) if options.agent_host else _first(environ, "DD_AGENT_HOST")
    if host and not _is_host(host):
        raise ValueError(f"{name} is {host!r}; give a name or an address alone: the port is agent_port's")
    port = options.agent_port or _port(environ.get("DD_DOGSTATSD_PORT"))
    return AgentTarget(host or DEFAULT_AGENT_HOST, port, None)


def _is_host(text: str) -> bool:
    if _HOST_NAME.fullmatch(text):
        return True
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _port(text: str | None) -> int:
    if not text:
        return DEFAULT_AGENT_PORT
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535):
        raise ValueError(f"DD_DOGSTATSD_PORT is {text!r}, which is no port; give a number from 1 to 65535")
    return int(text)


def _at_url(url: str) -> AgentTarget:
    if url.startswith("unix"):
        return _at_path("DD_DOGSTATSD_URL", url)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme != "udp" or port == 0 or parts.path.strip("/"):
        raise ValueError(f"DD_DOGSTATSD_URL is {url!r}; give udp://HOST:PORT or unix:///PATH")
    return AgentTarget(host, port or DEFAULT_AGENT_PORT, None)


def _at_path(name: str, text: str) -> AgentTarget:
    if text.startswith("unixstream:"):
        raise ValueError(f"{name}: sockets of streams are not spoken here; give the agent's socket of datagrams")
    if not hasattr(socket, "AF_UNIX"):
        raise ValueError(f"{name}: there are no Unix sockets here; give agent_host")
    path = text.removeprefix("unixgram://").removeprefix("unix://")
    if not path.startswith("/"):
        raise ValueError(f"{name} is {text!r}; give the whole path, such as /var/run/datadog/dsd.socket")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ValueError(f"{name} is longer than the {_LONGEST_PATH} bytes that a socket's path may have")
    return AgentTarget("", 0, path)


def _first(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    """Return the first variable that is set, with its value; two empty texts where none is."""
    return next(((name, environ[name]) for name in names if environ.get(name)), ("", ""))

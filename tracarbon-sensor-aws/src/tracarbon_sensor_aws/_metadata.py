"""The instance metadata service of EC2, version 2: a token is put, then paths are got with it."""

from __future__ import annotations

import errno
import http.client
import re
import socket
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

IPV4, IPV6 = "http://169.254.169.254", "http://[fd00:ec2::254]"

_ADDRESS = re.compile(r"http://(\[[0-9A-Fa-f:.%]+\]|[\w.-]+)(:\d+)?/?", re.ASCII)
_TOKEN_SECONDS = "60"
_TOKEN = re.compile(r"[A-Za-z0-9+/=_-]+")
_LONGEST_ANSWER = 1024


class MetadataError(Exception):
    """The service did not say; the text says why, and what would help."""


class _UnreachableError(MetadataError):
    """Nobody answers at an address; another one may do."""


def endpoints(given: str | None, environment: Mapping[str, str]) -> list[str]:
    """Return the addresses to ask, in turn: the given one, that of the AWS SDKs' variables, or both that there are.

    Raises:
        MetadataError: the variables say that the service is not to be asked, or give an address that is none.
    """
    if given:
        return [given]
    if environment.get("AWS_EC2_METADATA_DISABLED", "").strip().lower() == "true":
        raise MetadataError("AWS_EC2_METADATA_DISABLED keeps the instance metadata service from being asked")
    chosen = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "").strip()
    if chosen:
        try:
            check_endpoint(chosen)
        except ValueError as error:
            raise MetadataError(f"AWS_EC2_METADATA_SERVICE_ENDPOINT: {error}") from None
        return [chosen]
    mode = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").strip()
    modes = {"": [IPV4, IPV6], "ipv4": [IPV4], "ipv6": [IPV6]}
    if mode.lower() not in modes:
        raise MetadataError(f"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE: {mode!r} is neither IPv4 nor IPv6")
    return modes[mode.lower()]


def check_endpoint(url: str) -> str:
    """Return an address of the service.

    Raises:
        ValueError: it is none.
    """
    match = _ADDRESS.fullmatch(url)
    if match is None or urlsplit(url).port == 0:  # which raises where the port is none, or the address
        raise ValueError(f"{_without_password(url)!r} is no address of a metadata service; it is like {IPV4}")
    return url


def _without_password(url: str) -> str:
    return re.sub(r"//[^/]*@", "//...@", url)


def ask(path: str, addresses: Iterable[str], timeout_seconds: float) -> str:
    """Return what the service says at a path below `/latest/meta-data/`.

    No proxy is used: the service is on the machine's own link. Blocks for twice the time-out at each address at most.

    Raises:
        MetadataError: it does not say.
    """
    faults = []
    for address in addresses:
        try:
            return _ask_at(address, path, timeout_seconds)
        except _UnreachableError as error:
            faults.append(str(error))
    raise MetadataError("; ".join(faults))


def _ask_at(address: str, path: str, timeout_seconds: float) -> str:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_seconds)
    try:
        token = _token(connection, address)
        headers = {"X-aws-ec2-metadata-token": token}
        status, answer = _exchange(connection, "GET", f"/latest/meta-data/{path}", headers)
    except TimeoutError:
        raise _UnreachableError(
            f"{address} did not answer within {timeout_seconds:g} s. In a container, the hop limit of the metadata "
            "service has to be 2: aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise _unusable(address, error) from None
    finally:
        connection.close()
    if status != HTTPStatus.OK:
        raise MetadataError(f"{address} answered {status} for {path}")
    return answer


def _token(connection: http.client.HTTPConnection, address: str) -> str:
    headers = {"X-aws-ec2-metadata-token-ttl-seconds": _TOKEN_SECONDS, "Content-Length": "0"}
    status, token = _exchange(connection, "PUT", "/latest/api/token", headers)
    if status == HTTPStatus.FORBIDDEN:
        raise MetadataError(
            f"the instance metadata service is turned off ({address} answered 403): "
            "aws ec2 modify-instance-metadata-options --http-endpoint enabled"
        )
    if status != HTTPStatus.OK or not _TOKEN.fullmatch(token):
        raise MetadataError(f"what answers at {address} is no metadata service of EC2: it gave no token ({status})")
    return token


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, headers: Mapping[str, str]
) -> tuple[int, str]:
    connection.request(method, path, headers=dict(headers))
    answer = connection.getresponse()
    content = answer.read(_LONGEST_ANSWER + 1)
    if len(content) > _LONGEST_ANSWER:
        raise MetadataError(f"the answer for {path} is too long to be one of a metadata service")
    if answer.length:  # what it said would come has not
        raise http.client.IncompleteRead(content)
    answer.close()
    return answer.status, content.decode("utf-8", "replace").strip()


def _unusable(address: str, error: Exception) -> MetadataError:
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror):
        reason = errno.errorcode.get(error.errno or 0, "") and (error.strerror or "")
        return _UnreachableError(f"nobody answers at {address}: {reason or type(error).__name__}")
    return MetadataError(f"what answers at {address} is no metadata service: {type(error).__name__}")

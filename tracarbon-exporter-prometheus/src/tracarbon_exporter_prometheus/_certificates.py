"""Server-side TLS whose certificates may be renewed while they are in use."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]

_CERTIFICATE = b"CERTIFICATE-----"
_PRIVATE_KEY = b"PRIVATE KEY-----"
_NAME_OF_AUTHORITY = re.compile(r"[0-9a-f]{8}\.\d+")
_REASONS = {"KEY_VALUES_MISMATCH": "the key is not that certificate's"}


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where the certificates are.

    Attributes:
        certfile: the server's certificate and its chain, PEM.
        keyfile: its private key, PEM, without a passphrase.
        client_cafile: the authorities that client certificates are checked against, in a file.
        client_capath: the same, in a folder as OpenSSL's `rehash` leaves it.
        client_auth_required: whether clients without a certificate are turned away.
    """

    certfile: str
    keyfile: str
    client_cafile: str | None = None
    client_capath: str | None = None
    client_auth_required: bool = False


class CertificateError(Exception):
    """A certificate or its key cannot be used; says which file and why."""


class Certificates:
    """What a server needs for TLS; follows its files.

    Attributes:
        context: for the next handshake.

    Raises:
        CertificateError: something is wrong with the files.
    """

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._stamp = _stamp(files)
        self.context = _context(files)

    def refresh(self) -> None:
        """Load everything anew if a file has changed; handshakes from now on see it.

        Raises:
            CertificateError: the new ones cannot be used; the former go on being used. Said once for each change.
        """
        stamp = _stamp(self._files)
        if stamp != self._stamp:
            self._stamp = stamp
            self.context = _context(self._files)


def _context(files: CertificateFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    _check("certfile", files.certfile, _CERTIFICATE, "certificate")
    _check("keyfile", files.keyfile, _PRIVATE_KEY, "private key")
    try:
        context.load_cert_chain(files.certfile, files.keyfile, _no_passphrase(files.keyfile))
    except OSError as error:
        where = f"certfile {files.certfile} and keyfile {files.keyfile}"
        raise CertificateError(f"{where} cannot be used: {_reason(error)}") from error
    if files.client_cafile is not None or files.client_capath is not None:
        _load_authorities(context, files)
    return context


def _load_authorities(context: ssl.SSLContext, files: CertificateFiles) -> None:
    if files.client_cafile is not None:
        _check("client_cafile", files.client_cafile, _CERTIFICATE, "certificate")
    if files.client_capath is not None:
        _check_folder(files.client_capath)
    try:
        context.load_verify_locations(files.client_cafile, files.client_capath)
    except OSError as error:
        raise CertificateError(f"client_cafile {files.client_cafile} cannot be used: {_reason(error)}") from error
    context.verify_mode = ssl.CERT_REQUIRED if files.client_auth_required else ssl.CERT_OPTIONAL


def _check(option: str, path: str, mark: bytes, what: str) -> None:
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise CertificateError(_unreadable(option, path, error)) from error
    if mark not in content:
        raise CertificateError(f"{option} {path} holds no {what} in PEM")


def _check_folder(path: str) -> None:
    try:
        names = os.listdir(path)  # noqa: PTH208 - names are all that is asked for
    except (OSError, ValueError) as error:
        raise CertificateError(_unreadable("client_capath", path, error)) from error
    if not any(map(_NAME_OF_AUTHORITY.fullmatch, names)):
        raise CertificateError(f"client_capath {path} holds no certificates as `openssl rehash` names them")


def _unreadable(option: str, path: str, error: OSError | ValueError) -> str:
    return f"{option} {path} cannot be read: {getattr(error, 'strerror', None) or error}"


def _no_passphrase(keyfile: str) -> Callable[[], str]:
    def refuse() -> str:
        # Without this OpenSSL would ask at the terminal, and wait.
        raise CertificateError(f"keyfile {keyfile} has a passphrase; give a key without one")

    return refuse


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or ""
    if not reason or "PEM" in reason:
        return "the PEM is damaged"
    return _REASONS.get(reason, reason.replace("_", " ").lower())


def _stamp(files: CertificateFiles) -> _Stamp:
    paths = (files.certfile, files.keyfile, files.client_cafile, files.client_capath)
    return tuple(_stamp_of(path) for path in paths if path is not None)


def _stamp_of(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - asked at every handshake
    except (OSError, ValueError):
        return 0, 0, 0
    return status.st_ino, status.st_size, status.st_mtime_ns

"""TLS with certificates of an authority made for the test: who is let in, renewals, and files that are no good."""

from __future__ import annotations

import itertools
import os
import pty
import select
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trustme
from tracarbon_exporter_prometheus._certificates import CertificateError, CertificateFiles, Certificates

from tests.pipelines.support import wait_until
from tests.support.http_serving import PATIENT, serving
from tests.support.overlay import NOBODY
from tests.support.raw_http import DEADLINE_SECONDS, Client, get

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_is_left_behind")]


@cache
def authority(name: str) -> trustme.CA:
    return trustme.CA(organization_name=name)


@cache
def certificate(number: int = 0) -> trustme.LeafCert:
    return authority("ours").issue_cert("localhost", common_name=f"server {number}")


_seconds = itertools.count()


def renewed(path: Path) -> None:
    """Let a file be younger than all before it: the kernel's own time is as coarse as some milliseconds."""
    os.utime(path, (1_700_000_000 + next(_seconds),) * 2)


@dataclass(frozen=True)
class Files:
    """A folder with a certificate and its key."""

    folder: Path

    @property
    def options(self) -> CertificateFiles:
        return CertificateFiles(str(self.folder / "cert.pem"), str(self.folder / "key.pem"))

    def write(self, number: int) -> None:
        self.write_certificate(number)
        certificate(number).private_key_pem.write_to_path(self.folder / "key.pem")
        renewed(self.folder / "key.pem")

    def write_certificate(self, number: int) -> None:
        chain = b"".join(blob.bytes() for blob in certificate(number).cert_chain_pems)
        (self.folder / "cert.pem").write_bytes(chain)
        renewed(self.folder / "cert.pem")

    def write_clients_of(self, name: str) -> None:
        authority(name).cert_pem.write_to_path(self.folder / "clients.pem")
        renewed(self.folder / "clients.pem")

    def with_clients_of(self, name: str, *, required: bool) -> Certificates:
        self.write_clients_of(name)
        cafile = str(self.folder / "clients.pem")
        return Certificates(replace(self.options, client_cafile=cafile, client_auth_required=required))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path)
    made.write(0)
    return made


def trusting(name: str = "ours", *, client_of: str | None = None) -> ssl.SSLContext:
    """A client's side; with a certificate of its own, if it has an authority."""
    context = ssl.create_default_context()
    authority(name).configure_trust(context)
    if client_of is not None:
        authority(client_of).issue_cert("client@example.org").configure_cert(context)
    return context


def served_serial(port: int, context: ssl.SSLContext) -> int:
    with Client(port, context=context) as client:
        assert client.ask().status == 200
        assert isinstance(client.socket, ssl.SSLSocket)
        shown = client.socket.getpeercert()
    assert shown is not None
    return int(str(shown["serialNumber"]), 16)


def serial(number: int) -> int:
    pem = certificate(number).cert_chain_pems[0].bytes()
    text = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=pem, capture_output=True, check=True).stdout
    return int(text.decode().strip().removeprefix("serial="), 16)


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


async def test_a_scraper_that_trusts_the_authority_is_answered_again_and_again(files: Files) -> None:
    async with serving(certificates=Certificates(files.options)) as server:
        with Client(server.port, context=trusting()) as client:
            for number in range(3):
                assert client.ask(f"/{number}").body == f"GET /{number}".encode()
            assert len(client.ask("/big").body) == 16 * 2**20


async def test_who_does_not_trust_it_turns_away_and_nobody_else_minds(files: Files) -> None:
    async with serving(certificates=Certificates(files.options)) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            get(server.port, context=trusting("theirs"))
        assert get(server.port, context=trusting()).status == 200


async def test_slow_handshakes_and_what_is_no_tls_hold_up_nobody(files: Files) -> None:
    """The server stops with all of them connected."""
    with ExitStack() as clients:
        async with serving(certificates=Certificates(files.options)) as server:
            for data in [
                b"",
                b"\x16",
                b"\x16\x03\x01\x02\x00\x01",
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                bytes(100_000),
            ] * 4:
                clients.enter_context(Client(server.port)).say(data)
                assert get(server.port, context=trusting()).status == 200


async def test_why_a_handshake_failed_reaches_who_goes_on_sending(files: Files) -> None:
    async with serving(certificates=Certificates(files.options)) as server:
        with Client(server.port) as client:
            client.say(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00" + bytes(100_000))
            client.socket.shutdown(socket.SHUT_WR)
            alert = client.rest()
            assert alert[:2] == b"\x15\x03" and len(alert) == 7


async def test_a_handshake_has_to_be_over_in_time(files: Files) -> None:
    limits = replace(PATIENT, request_seconds=0.1)
    async with serving(certificates=Certificates(files.options), limits=limits) as server:
        with Client(server.port) as client:
            assert client.say(b"\x16\x03\x01").rest() == b""


async def test_after_the_handshake_garbage_ends_that_client_alone(files: Files) -> None:
    async with serving(certificates=Certificates(files.options)) as server:
        with Client(server.port, context=trusting()) as client:
            assert client.ask().status == 200
            with socket.socket(fileno=os.dup(client.socket.fileno())) as raw:
                raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            wait_until(lambda: not server._connections, "the end of the connection")
        assert get(server.port, context=trusting()).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_the_old_versions_of_tls_are_refused(files: Files, version: ssl.TLSVersion) -> None:
    context = trusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = version
        context.maximum_version = version
    async with serving(certificates=Certificates(files.options)) as server:
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version|no protocols available"):
            get(server.port, context=context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("client_of", "required", "let_in"),
    [
        (None, False, True),
        ("clients", False, True),
        ("theirs", False, False),
        (None, True, False),
        ("clients", True, True),
        ("theirs", True, False),
    ],
)
async def test_who_is_let_in(
    files: Files, version: ssl.TLSVersion, client_of: str | None, required: bool, let_in: bool
) -> None:
    context = trusting(client_of=client_of)
    context.minimum_version = context.maximum_version = version
    async with serving(certificates=files.with_clients_of("clients", required=required)) as server:
        if let_in:
            assert get(server.port, context=context).status == 200
        else:
            # The alert says why: a connection that is merely cut would not.
            with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required|unknown.ca|handshake.failure"):
                get(server.port, context=context)
        good = trusting(client_of="clients")
        assert get(server.port, context=good).status == 200


async def test_who_comes_back_to_a_session_is_let_in_again(files: Files) -> None:
    context = trusting(client_of="clients")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(certificates=files.with_clients_of("clients", required=True)) as server:
        place = ("127.0.0.1", server.port)
        with context.wrap_socket(
            socket.create_connection(place, DEADLINE_SECONDS), server_hostname="localhost"
        ) as first:
            session = first.session
        again = socket.create_connection(place, DEADLINE_SECONDS)
        with context.wrap_socket(again, server_hostname="localhost", session=session) as second:
            assert second.session_reused
            second.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert second.recv(1000).startswith(b"HTTP/1.1 200")


@needs_openssl
async def test_authorities_may_lie_in_a_folder(files: Files) -> None:
    folder = files.folder / "authorities"
    folder.mkdir()
    authority("clients").cert_pem.write_to_path(folder / "clients.pem")
    subprocess.run(["openssl", "rehash", folder], check=True)
    options = replace(files.options, client_capath=str(folder), client_auth_required=True)
    async with serving(certificates=Certificates(options)) as server:
        assert get(server.port, context=trusting(client_of="clients")).status == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(server.port, context=trusting())


@needs_openssl
async def test_a_renewed_certificate_is_served_to_the_next_and_the_others_stay(files: Files) -> None:
    async with serving(certificates=Certificates(files.options)) as server:
        with Client(server.port, context=trusting()) as older:
            assert older.ask().status == 200
            files.write(1)
            assert served_serial(server.port, trusting()) == serial(1)
            assert older.ask().status == 200


@needs_openssl
async def test_a_renewal_by_links_as_kubernetes_makes_them_is_seen(files: Files, tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / f"..{number}").mkdir()
        Files(tmp_path / f"..{number}").write(number)
    (tmp_path / "..data").symlink_to("..0")
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to(Path("..data") / name)
    async with serving(certificates=Certificates(files.options)) as server:
        assert served_serial(server.port, trusting()) == serial(0)
        (tmp_path / "..next").symlink_to("..1")
        (tmp_path / "..next").replace(tmp_path / "..data")
        assert served_serial(server.port, trusting()) == serial(1)


async def test_renewed_authorities_are_seen_too(files: Files) -> None:
    async with serving(certificates=files.with_clients_of("clients", required=True)) as server:
        files.write_clients_of("theirs")
        assert get(server.port, context=trusting(client_of="theirs")).status == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(server.port, context=trusting(client_of="clients"))


Breakage = Callable[[Files], object]
BROKEN: dict[str, tuple[Breakage, str]] = {
    "the key has not come yet": (
        lambda files: files.write_certificate(1),
        "certfile {folder}/cert.pem and keyfile {folder}/key.pem cannot be used: the key is not that certificate's",
    ),
    "an empty file": (
        lambda files: (files.folder / "cert.pem").write_bytes(b""),
        "certfile {folder}/cert.pem holds no certificate in PEM",
    ),
    "no file": (
        lambda files: (files.folder / "key.pem").unlink(),
        "keyfile {folder}/key.pem cannot be read: No such file or directory",
    ),
}


@needs_openssl
@pytest.mark.parametrize(("break_it", "message"), BROKEN.values(), ids=BROKEN)
async def test_a_broken_renewal_is_said_once_and_the_former_is_served_until_it_is_mended(
    files: Files, break_it: Breakage, message: str
) -> None:
    said: list[str] = []
    async with serving(certificates=Certificates(files.options), warnings=said) as server:
        break_it(files)
        for _ in range(3):
            assert served_serial(server.port, trusting()) == serial(0)
        assert said == [f"the former certificate goes on being used: {message.format(folder=files.folder)}"]
        files.write(1)
        assert served_serial(server.port, trusting()) == serial(1)
    assert len(said) == 1


DAMAGED = b"-----BEGIN CERTIFICATE-----\nzzzz\n-----END CERTIFICATE-----\n"
DAMAGED_KEY = b"-----BEGIN PRIVATE KEY-----\nzzzz\n-----END PRIVATE KEY-----\n"
NO_GOOD: dict[str, tuple[str, bytes | None, str]] = {
    "no certificate": ("certfile", None, "certfile {path} cannot be read: No such file or directory"),
    "no key": ("keyfile", None, "keyfile {path} cannot be read: No such file or directory"),
    "no authorities": ("client_cafile", None, "client_cafile {path} cannot be read: No such file or directory"),
    "no folder": ("client_capath", None, "client_capath {path} cannot be read: No such file or directory"),
    "a file for a folder": ("client_capath", b"", "client_capath {path} cannot be read: Not a directory"),
    "garbage": ("certfile", b"\0garbage", "certfile {path} holds no certificate in PEM"),
    "garbage for a key": ("keyfile", b"garbage", "keyfile {path} holds no private key in PEM"),
    "a certificate for a key": ("keyfile", DAMAGED, "keyfile {path} holds no private key in PEM"),
    "garbage for authorities": ("client_cafile", b"", "client_cafile {path} holds no certificate in PEM"),
    "a damaged certificate": (
        "certfile",
        DAMAGED,
        "certfile {path} and keyfile {folder}/key.pem cannot be used: the PEM is damaged",
    ),
    "a damaged key": (
        "keyfile",
        DAMAGED_KEY,
        "certfile {folder}/cert.pem and keyfile {path} cannot be used: the PEM is damaged",
    ),
    "damaged authorities": ("client_cafile", DAMAGED, "client_cafile {path} cannot be used: the PEM is damaged"),
}


def message_about(options: CertificateFiles) -> str:
    with pytest.raises(CertificateError) as caught:
        Certificates(options)
    return str(caught.value)


@pytest.mark.parametrize(("option", "content", "message"), NO_GOOD.values(), ids=NO_GOOD)
def test_what_is_wrong_with_a_file_is_said_with_its_name(
    files: Files, option: str, content: bytes | None, message: str
) -> None:
    path = files.folder / "other.pem"
    if content is not None:
        path.write_bytes(content)
    options: dict[str, Any] = {option: str(path)}
    said = message_about(replace(files.options, **options))
    assert said == message.format(path=path, folder=files.folder)


def test_the_key_of_another_certificate_is_refused(files: Files) -> None:
    certificate(1).private_key_pem.write_to_path(files.folder / "key.pem")
    assert message_about(files.options) == (
        f"certfile {files.options.certfile} and keyfile {files.options.keyfile} cannot be used: "
        "the key is not that certificate's"
    )


def test_a_folder_is_no_file_and_an_empty_one_has_no_authorities(files: Files) -> None:
    folder = str(files.folder)
    assert message_about(replace(files.options, certfile=folder)) == f"certfile {folder} cannot be read: Is a directory"
    assert message_about(replace(files.options, client_capath=folder)) == (
        f"client_capath {folder} holds no certificates as `openssl rehash` names them"
    )


def test_a_name_that_no_file_can_have(files: Files) -> None:
    assert message_about(replace(files.options, certfile="a\0b")) == "certfile a\0b cannot be read: embedded null byte"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becoming another user takes root")
def test_an_unreadable_key_is_named() -> None:
    # The folders that pytest makes are closed to others.
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder))
        files.folder.chmod(0o755)
        files.write(0)
        key = Path(files.options.keyfile)
        key.chmod(0o600)
        os.seteuid(NOBODY)
        try:
            said = message_about(files.options)
        finally:
            os.seteuid(0)
    assert said == f"keyfile {key} cannot be read: Permission denied"


@needs_openssl
@pytest.mark.once
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a terminal as Linux makes it")
def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(files: Files) -> None:
    key = files.folder / "closed.pem"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", files.options.keyfile, "-out", key, "-passout", "pass:SECRET"], check=True
    )
    script = (
        "import sys; from tracarbon_exporter_prometheus._certificates import *\n"
        "try: Certificates(CertificateFiles(*sys.argv[1:]))\n"
        "except CertificateError as error: print(error)"
    )
    terminal, ours = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, files.options.certfile, str(key)],
            stdin=ours,
            stderr=ours,
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
            start_new_session=True,
            # Made the terminal of the session: that is where OpenSSL would ask.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        assert done.stdout == f"keyfile {key} has a passphrase; give a key without one\n"
        assert select.select([terminal], [], [], 0)[0] == [], os.read(terminal, 1000)
    finally:
        os.close(terminal)
        os.close(ours)

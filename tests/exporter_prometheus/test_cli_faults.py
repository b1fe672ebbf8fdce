"""The installed command, when the exporter cannot serve as it was told to: one clear message, and no traceback."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent

import pytest
import trustme

from tests.pipelines.support import TRACARBON, Program, environment, run, start
from tests.support.raw_http import Client

pytestmark = pytest.mark.once

FILE = "pipeline.toml"


def written(folder: Path, options: str) -> Path:
    (folder / FILE).write_text(
        f"[exporters.prometheus]\n{dedent(options)}\n[sensors.estimate]\n[location]\ncountry = 'FR'\n"
    )
    return folder


def said_by_check(folder: Path, options: str, *, of: str = "prometheus", **variables: str) -> str:
    """Return the one problem that `check` finds, with the exporter `of`."""
    result = run("check", "-c", FILE, cwd=written(folder, options), env=environment(**variables))
    assert (result.status, result.stdout) == (2, "")
    return problem(result.stderr, of)


def problem(stderr: str, of: str = "prometheus") -> str:
    lines = stderr.splitlines()
    place = next(number for number, line in enumerate(lines) if line == f"{FILE}: 1 problem")
    assert re.fullmatch(r" +prometheus, from tracarbon-exporter-prometheus [\d.]+", lines[place + 2])
    assert len(lines) == place + 3
    where, _, message = lines[place + 1].partition("   ")
    assert where.lstrip().startswith("line ") and f"exporters.{of}" in where
    return message


def said_by_run(folder: Path, options: str, **variables: str) -> str:
    result = run("run", "-c", FILE, cwd=written(folder, options), env=environment(**variables))
    assert "Traceback" not in result.stderr
    assert (result.status, result.stdout) == (2, "")
    return result.stderr.splitlines()[-1]


@pytest.fixture
def certificate(tmp_path: Path) -> trustme.CA:
    """A certificate, its key, and another key; returns the authority."""
    authority = trustme.CA()
    ours, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in ours.cert_chain_pems))
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    other.private_key_pem.write_to_path(tmp_path / "other.pem")
    return authority


OPTIONS = {
    "half a certificate": ("certfile = 'x'", "certfile and keyfile go together"),
    "a key alone": ("keyfile = 'x'", "certfile and keyfile go together"),
    "a name without a password": ("username = 'x'", "username and password go together"),
    "a password without a name": ("password = 'SECRET'", "username and password go together"),
    "a name with a colon": ("username = 'a:b'\npassword = 'SECRET'", "username has a colon"),
    "nobody to vouch for clients": (
        "certfile = 'x'\nkeyfile = 'y'\nclient_auth_required = true",
        "client_auth_required needs client_cafile or client_capath",
    ),
    "clients' certificates without TLS": ("client_cafile = 'x'", "client_cafile and client_capath need certfile"),
    "pushing and serving": ("push_url = 'http://127.0.0.1:9091'\nport = 80", "port .*for being scraped"),
    "pushing to nowhere": ("push_url = '127.0.0.1:9091'", "push_url is no address such as http://"),
    "pushing to no port": ("push_url = 'http://127.0.0.1:99999'", "push_url has a port that is no number from 1 to"),
    "a job without pushing": ("push_job = 'x'", "push_job needs? push_url"),
    "no port": ("port = 70000", ".* 65535"),
    "a password that is none": ("username = 'x'\npassword = ['SECRET']", ".*string"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS)
def test_options_that_do_not_go_together_are_said_before_anything_runs(
    tmp_path: Path, options: str, message: str
) -> None:
    said = said_by_check(tmp_path, options)
    assert re.match(message, said)
    assert "SECRET" not in said


def test_run_says_what_check_says(tmp_path: Path) -> None:
    result = run("run", "-c", FILE, cwd=written(tmp_path, "certfile = 'x'"))
    assert (result.status, problem(result.stderr)) == (2, "certfile and keyfile go together")


@pytest.mark.parametrize("port", ["abc", "-1", "65536", "80.5"])
def test_a_variable_that_is_no_port_is_said_before_anything_runs(tmp_path: Path, port: str) -> None:
    said = said_by_check(tmp_path, "", PROMETHEUS_PORT=port)
    assert said == f"PROMETHEUS_PORT is {port!r}, which is no port; give a number from 0 to 65535"


def serving_program(folder: Path, options: str, **variables: str) -> Program:
    return start("run", "-c", FILE, cwd=written(folder, options), env=environment(**variables))


def port_of(program: Program) -> int:
    said = program.wait_for(r"the metrics are at .*", "stderr")
    found = re.search(r"the metrics are at https?://\S+:(\d+)/metrics", said)
    assert found
    return int(found[1])


def test_a_variable_that_kubernetes_makes_for_a_service_is_no_port_of_ours(tmp_path: Path) -> None:
    with serving_program(tmp_path, "port = 0", PROMETHEUS_PORT="tcp://10.0.0.1:9090") as program:
        with Client(port_of(program)) as client:
            assert client.ask("/-/healthy").status == 200
        result = program.stop(signal.SIGTERM)
    assert result.status == 0
    assert "a service of Kubernetes" in result.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = said_by_run(tmp_path, f"port = {port}")
    assert said == (
        f"tracarbon: exporter prometheus: port {port} of 127.0.0.1 is taken already; give another one: "
        "option port, or PROMETHEUS_PORT"
    )


def test_two_exporters_of_one_file_on_one_port(tmp_path: Path) -> None:
    more = "port = 9000\n[exporters.again]\nplugin = 'prometheus'\nport = 9000\n"
    said = said_by_check(tmp_path, more, of="again")
    assert said.startswith("port 9000 of 127.0.0.1 is that of exporters.prometheus already; give each another one")


def test_two_exporters_of_one_file_that_a_variable_puts_on_one_port(tmp_path: Path) -> None:
    more = "port = 9000\n[exporters.again]\nplugin = 'prometheus'\nport = 9001\n"
    said = said_by_check(tmp_path, more, of="again", PROMETHEUS_PORT="9002")
    assert "is that of exporters.prometheus already" in said and "without the variable PROMETHEUS_PORT" in said


@pytest.mark.parametrize("other", ["port = 9001", "address = '127.0.0.2'", "push_url = 'http://127.0.0.1:9091'"])
def test_two_exporters_of_one_file_in_two_places(tmp_path: Path, other: str) -> None:
    port = "" if other.startswith("push_url") else "port = 9000\n"
    second = other if other.startswith("port") else f"{port}{other}"
    written(tmp_path, f"port = 9000\n[exporters.again]\nplugin = 'prometheus'\n{second}\n")
    result = run("check", "-c", FILE, cwd=tmp_path, env=environment())
    assert result.status == 0, result.stderr


def why_every_port_is_free() -> str:
    """Why no port is privileged here; empty where some are."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except OSError:
        return "it cannot be known which ports are privileged"
    if first <= 81:
        return f"every port from {first} on is anybody's here"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "setpriv is not installed"
    return ""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or bool(why_every_port_is_free()), reason=why_every_port_is_free()
)
def test_a_privileged_port(tmp_path: Path) -> None:
    written(tmp_path, "port = 81")
    # What root may do beyond others, without the right that is wanted: files stay readable.
    less = ["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service", "--"]
    result = subprocess.run(
        [*(less if os.geteuid() == 0 else []), TRACARBON, "run", "-c", FILE],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in result.stderr
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "tracarbon: exporter prometheus: port 81 is privileged: give one from 1024 on, or the capability "
        "CAP_NET_BIND_SERVICE"
    )


ADDRESSES = {
    "a name that cannot be": ("a..b", "there is no address called 'a..b' here"),
    "an address of another machine": ("192.0.2.1", "this machine does not have the address 192.0.2.1"),
}


@pytest.mark.parametrize(("address", "message"), ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_that_is_not_here(tmp_path: Path, address: str, message: str) -> None:
    said = said_by_run(tmp_path, f"address = '{address}'")
    assert said.startswith(f"tracarbon: exporter prometheus: {message}; give ")


CERTIFICATES = {
    "missing": (("none.pem", "key.pem"), "certfile none.pem cannot be read: No such file or directory"),
    "another key": (
        ("cert.pem", "other.pem"),
        "certfile cert.pem and keyfile other.pem cannot be used: the key is not that certificate's",
    ),
    "no PEM": (("pipeline.toml", "key.pem"), "certfile pipeline.toml holds no certificate in PEM"),
}


@pytest.mark.parametrize(("names", "message"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_a_certificate_that_is_no_good(
    tmp_path: Path, certificate: trustme.CA, names: tuple[str, str], message: str
) -> None:
    said = said_by_run(tmp_path, f"port = 0\ncertfile = '{names[0]}'\nkeyfile = '{names[1]}'")
    assert said == f"tracarbon: exporter prometheus: {message}"


def test_it_stops_at_once_whoever_is_connected_and_never_shows_the_password(
    tmp_path: Path, certificate: trustme.CA
) -> None:
    context = ssl.create_default_context()
    certificate.configure_trust(context)
    options = """
        port = 0
        certfile = "cert.pem"
        keyfile = "key.pem"
        username = "scraper"
        password = { env = "SCRAPE_PASSWORD" }
    """
    variables = {"SCRAPE_PASSWORD": "s3cret", "TRACARBON_LOG_LEVEL": "DEBUG"}
    with ExitStack() as clients, serving_program(tmp_path, options, **variables) as program:
        port = port_of(program)
        for data in (b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n") * 10:
            clients.enter_context(Client(port)).say(data)
        with Client(port, context=context) as client:
            assert client.ask("/metrics").status == 401
            # base64 of scraper:s3cret
            answer = client.ask("/metrics", Authorization="Basic c2NyYXBlcjpzM2NyZXQ=")
            assert answer.status == 200 and b"tracarbon_up" in answer.body
            result = program.stop(signal.SIGTERM)
    assert result.status == 0
    assert "Traceback" not in result.stderr
    for text in (result.stdout, result.stderr, answer.body.decode()):
        assert "s3cret" not in text and "c2NyYXBlcjpzM2NyZXQ=" not in text

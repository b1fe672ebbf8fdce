"""Pushing: to a real Pushgateway, and to ones that refuse, hang, or are not there."""

from __future__ import annotations

import base64
import re
import shutil
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tracarbon import PrometheusExporter
from tracarbon.exceptions import PermanentExportError, RetryableExportError
from tracarbon.plugin import PluginContext, Pulse

from tests.exporter_prometheus.test_ledger import batch, record
from tests.pipelines.support import read_records, run
from tests.support.prometheus_server import running
from tests.support.web_server import Handler, Respond, serving, status

PUSHGATEWAY = shutil.which("prometheus-pushgateway")
JOULES = "energy_consumption_host_joules_total"


def pushing_to(url: str, **options: Any) -> PrometheusExporter:
    return PrometheusExporter(options=PrometheusExporter.Options(push_url=url, **options))


def value_of(text: str, name: str) -> float:
    [value] = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    ]
    return value


class Keeping:
    """A gateway that keeps what was pushed last, unless it is told to answer otherwise."""

    def __init__(self) -> None:
        self.text = ""
        self.statuses: list[int] = []

    def __call__(self, handler: Handler) -> None:
        code = self.statuses.pop(0) if self.statuses else 200
        if code == 200:
            self.text = handler.body.decode()
        handler.answer(b"inconsistent metrics\n" if code == 400 else b"", code)


async def test_each_push_has_the_whole_state() -> None:
    gateway = Keeping()
    with serving(gateway) as server:
        async with pushing_to(server.url, push_job="nightly", push_grouping={"instance": "a/b"}) as exporter:
            assert exporter.url is None
            await exporter.export(batch(0, record(number=0)))
            await exporter.export(batch(1, record(number=1)))
    assert value_of(gateway.text, JOULES) == 800.0
    grouping = base64.urlsafe_b64encode(b"a/b").decode()
    assert {path for path, _ in server.requests} == {f"/metrics/job/nightly/instance@base64/{grouping}"}


async def test_machines_do_not_overwrite_one_another() -> None:
    with serving(Keeping()) as server:
        async with pushing_to(server.url) as exporter:
            await exporter.export(batch(0, record()))
    [(path, _)] = server.requests
    assert path == f"/metrics/job/tracarbon/instance/{socket.gethostname()}"


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_what_was_not_taken_now_is_counted_when_it_is(code: int) -> None:
    gateway = Keeping()
    gateway.statuses = [code]
    with serving(gateway) as server:
        async with pushing_to(server.url) as exporter:
            lost = batch(0, record())
            with pytest.raises(RetryableExportError, match=rf"http://127.0.0.1:\d+: {code} "):
                await exporter.export(lost)
            await exporter.export(lost.merged_with(batch(1, record(number=1)), 100))
    assert value_of(gateway.text, JOULES) == 800.0


async def test_what_is_refused_for_good_is_in_the_totals_of_the_next_push() -> None:
    gateway = Keeping()
    gateway.statuses = [400]
    with serving(gateway) as server:
        async with pushing_to(server.url) as exporter:
            with pytest.raises(PermanentExportError, match="400 inconsistent metrics"):
                await exporter.export(batch(0, record()))
            await exporter.export(batch(1, record(number=1)))
    assert value_of(gateway.text, JOULES) == 800.0


async def test_nobody_there() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        async with pushing_to(f"http://127.0.0.1:{port}") as exporter:
            with pytest.raises(RetryableExportError, match=f"http://127.0.0.1:{port}: .*refused"):
                await exporter.export(batch(0, record()))


async def test_credentials_are_sent_and_never_shown() -> None:
    with serving(status(401)) as server:
        async with pushing_to(server.url, username="ci", password="S3CRET") as exporter:
            with pytest.raises(PermanentExportError) as raised:
                await exporter.export(batch(0, record()))
    [(_, headers)] = server.requests
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"ci:S3CRET").decode()
    assert "S3CRET" not in str(raised.value) + repr(raised.value.__cause__) + repr(exporter._gateway)


def echo_instead_of_http(handler: Handler) -> None:
    handler.wfile.write(f"garbage {handler.headers['authorization']}\r\n\r\n".encode())


def headers_without_end(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200)


@pytest.mark.parametrize("respond", [echo_instead_of_http, headers_without_end])
async def test_what_does_not_speak_http_is_named_and_not_quoted(respond: Respond) -> None:
    with serving(respond) as server:
        async with pushing_to(server.url, username="ci", password="S3CRET") as exporter:
            remedy = "push_url has to be the address of a Pushgateway"
            with pytest.raises(RetryableExportError, match=rf"^{server.url}: .* HTTP \(\w+\); {remedy}$") as raised:
                await exporter.export(batch(0, record()))
    [(_, headers)] = server.requests
    assert headers["Authorization"].partition(" ")[2] not in str(raised.value) + repr(raised.value.__cause__)


async def test_what_cannot_be_printed_is_escaped() -> None:
    """It would go to logs and terminals, which obey it."""
    with serving(lambda handler: handler.answer("\x1b[2Jgone\x07 \u202ebé\n".encode(), 400)) as server:
        async with pushing_to(server.url) as exporter:
            with pytest.raises(PermanentExportError) as raised:
                await exporter.export(batch(0, record()))
    assert str(raised.value) == rf"{server.url}: 400 \x1b[2Jgone\x07 \u202ebé"


async def test_a_refusal_whose_text_does_not_arrive() -> None:
    def refuse(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n")

    with serving(refuse) as server:
        async with pushing_to(server.url) as exporter:
            with pytest.raises(PermanentExportError, match="400 Bad Request"):
                await exporter.export(batch(0, record()))


@pytest.fixture(scope="module")
def pushgateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if PUSHGATEWAY is None:
        pytest.skip("prometheus-pushgateway is not installed")
    folder = tmp_path_factory.mktemp("gateway")
    # Debian's has a file of its own otherwise, in which the last run is still there.
    with running([PUSHGATEWAY, f"--persistence.file={folder / 'kept'}"], folder / "log") as url:
        yield url


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        text: str = answer.read().decode()
        return text


@pytest.mark.once
def test_a_short_run_is_there_when_it_is_over(pushgateway: str, tmp_path: Path) -> None:
    """The unmodified command, a real Pushgateway: all that the report says is in the totals."""
    (tmp_path / "pipeline.toml").write_text(
        f'interval = "10s"\n[location]\ncountry = "fr"\n[exporters.prometheus]\npush_url = "{pushgateway}"\n'
        '[exporters.json]\npath = "records.jsonl"\n'
    )
    done = run("run", "-c", "pipeline.toml", "--duration", "700ms", cwd=tmp_path)
    assert done.status == 0, done.stderr
    kept = read(f"{pushgateway}/metrics")
    pushed = value_of(kept, "tracarbon_energy_consumption_host_joules_total")
    watt_hours = float(done.stderr.partition("energy_consumption_host ")[2].split()[0])
    assert pushed == pytest.approx(3600 * watt_hours, rel=1e-3)
    windows = {record["timestamp"] for record in read_records(tmp_path / "records.jsonl")}
    assert value_of(kept, "tracarbon_tick_duration_seconds_count") == len(windows)


@pytest.mark.once
def test_what_could_not_be_pushed_is_said(tmp_path: Path) -> None:
    with serving(status(503)) as server:
        (tmp_path / "pipeline.toml").write_text(f'[exporters.prometheus]\npush_url = "{server.url}"\n')
        done = run("run", "-c", "pipeline.toml", "--duration", "200ms", cwd=tmp_path, env={"TRACARBON_COUNTRY": "fr"})
    assert "Traceback" not in done.stderr
    assert f"exporter prometheus failed {server.url}: 503" in done.stderr.replace("failed:", "failed")
    lost = r"\d+ records \(.* s, .* Wh\)(, of which \d+ may have arrived,)? were not delivered within 10 s and are lost"
    assert re.search(lost, done.stderr)
    assert re.search(r"^  exporter prometheus: \d+ records did not arrive$", done.stderr, re.MULTILINE)


@pytest.mark.once
def test_a_grouping_label_may_be_called_env(tmp_path: Path) -> None:
    """A table of one key `env` is a reference, where the option is no table itself."""
    (tmp_path / "pipeline.toml").write_text(
        '[exporters.prometheus]\npush_url = "http://127.0.0.1:1"\npush_grouping = { env = "prod" }\n'
    )
    done = run("check", "-c", "pipeline.toml", cwd=tmp_path, env={"TRACARBON_COUNTRY": "fr"})
    assert done.status == 0, done.stdout + done.stderr


async def test_what_is_true_for_a_moment_only_is_not_pushed() -> None:
    gateway = Keeping()
    with serving(gateway) as server:
        async with pushing_to(server.url) as exporter:
            context = PluginContext("prometheus", pulse=Pulse(ticks=1, last_tick_at=1.0))
            exporter.attach(context)
            await exporter.export(batch(0, record()))
            context.close()
    assert "tracarbon_tick_interval_seconds" in gateway.text
    assert "tracarbon_last_tick_age_seconds" not in gateway.text


async def test_another_label_does_not_drop_the_instance() -> None:
    with serving(Keeping()) as server:
        async with pushing_to(server.url, push_grouping={"team": "a"}) as exporter:
            await exporter.export(batch(0, record()))
    [(path, _)] = server.requests
    assert path == f"/metrics/job/tracarbon/instance/{socket.gethostname()}/team/a"


async def test_a_wrong_path_is_explained() -> None:
    with serving(status(404)) as server:
        async with pushing_to(f"{server.url}/gateway") as exporter:
            with pytest.raises(PermanentExportError, match=r"404 .*; push_url is the gateway's own address"):
                await exporter.export(batch(0, record()))

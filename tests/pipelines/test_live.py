"""Live carbon intensity, as the command and code have it from one setting."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.pipelines.support import environment, figures, read_records, run
from tests.pipelines.test_documented_scripts import run_script
from tests.support.web_server import Server, json_answer, serving, status

KEY = "SECRET-KEY"


@pytest.fixture
def instant() -> str:
    """Of the figure, the next of which is a while off."""
    return (datetime.now(UTC) - timedelta(minutes=20)).replace(microsecond=0).isoformat()


@pytest.fixture
def server(instant: str) -> Iterator[Server]:
    with serving(json_answer({"zone": "FR", "carbonIntensity": 77.0, "datetime": instant})) as server:
        yield server


def settings(server: Server) -> dict[str, str]:
    return environment(TRACARBON_CO2SIGNAL_API_KEY=KEY, TRACARBON_CO2SIGNAL_URL=f"{server.url}/?zone=")


ONCE = (
    "run",
    "--once",
    "--interval",
    "100ms",
    "--country",
    "fr",
    "--exporter-name",
    "json",
    "--exporter-name",
    "stdout",
)


def test_of_the_command(tmp_path: Path, server: Server, instant: str) -> None:
    done = run(*ONCE, cwd=tmp_path, env=settings(server))
    assert done.status == 0, done.stderr
    assert f"carbon intensity of fr: 77 g/kWh, live {instant}" in done.stderr
    records = [*figures(read_records(tmp_path / "tracarbon_export.json"), "carbon_emission_host")]
    assert {record["tags"]["source"] for record in records} == {"CO2SignalAPI"}
    assert [(path, headers["auth-token"]) for path, headers in server.requests] == [("/?zone=FR", KEY)]
    assert KEY not in done.stdout + done.stderr + json.dumps(records)


def test_of_a_file_whose_key_is_in_the_environment(tmp_path: Path, server: Server) -> None:
    (tmp_path / "pipeline.toml").write_text(f"""
[location]
country = "FR"
co2signal_api_key = {{ env = "MY_KEY" }}
co2signal_url = "{server.url}/?zone="
""")
    env = environment(MY_KEY=KEY)
    checked = run("check", "-c", "pipeline.toml", cwd=tmp_path, env=env)
    assert checked.status == 0
    assert KEY not in checked.stdout
    assert server.requests == []
    done = run("run", "-c", "pipeline.toml", "--once", "--interval", "100ms", cwd=tmp_path, env=env)
    assert "77 g/kWh, live" in done.stderr
    assert len(server.requests) == 1


def test_of_the_command_as_a_function(tmp_path: Path, server: Server) -> None:
    script = """
        from tracarbon.cli import run_metrics
        run_metrics("Stdout", "FR", running=False)
    """
    done = run_script(script, tmp_path, **settings(server))
    assert "77 g/kWh, live" in done.stderr
    assert len(server.requests) == 1


def test_without_a_key_nobody_is_asked(tmp_path: Path, server: Server) -> None:
    done = run(*ONCE, cwd=tmp_path, env=environment(TRACARBON_CO2SIGNAL_URL=server.url))
    assert "yearly average" in done.stderr
    assert server.requests == []


def test_a_service_that_refuses_harms_nothing(tmp_path: Path, server: Server) -> None:
    server.respond = status(401)
    done = run(*ONCE, cwd=tmp_path, env=settings(server))
    assert done.status == 0
    assert "HTTP 401 Unauthorized (the key is not accepted)" in done.stderr
    assert "41.44 g/kWh, yearly average" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert len(server.requests) == 1

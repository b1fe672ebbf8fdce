"""The README's code, run as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.support import environment, read_records, run

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def run_block(number: int, folder: Path) -> str:
    (folder / "block.py").write_text(BLOCKS[number])
    done = subprocess.run(
        [sys.executable, "-W", "error", "block.py"],
        cwd=folder,
        env=environment(TRACARBON_COUNTRY="fr"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_piece_of_work(tmp_path: Path) -> None:
    said = run_block(0, tmp_path)
    assert re.search(r"^energy_consumption_host: 0\.\d*[1-9]\d* Wh$", said, re.MULTILINE)
    assert re.search(r"^carbon_emission_host: 0\.\d+ co2g$", said, re.MULTILINE)


def test_settings(tmp_path: Path) -> None:
    assert run_block(1, tmp_path) == ""
    records = read_records(tmp_path / "energy.jsonl")
    assert {record["name"] for record in records} >= {"training.energy_consumption_host"}
    assert {record["tags"]["location"] for record in records} == {"fr"}


def test_metrics_and_exporter_of_ones_own(tmp_path: Path) -> None:
    lines = run_block(2, tmp_path).splitlines()
    assert lines[-1] == "1.0"
    assert "tracarbon.jobs_done 1 []" in lines


def test_sensor_and_location_by_themselves(tmp_path: Path) -> None:
    grams, unit = run_block(3, tmp_path).split()
    assert float(grams) > 0
    assert unit == "co2g"


def test_the_pipeline(tmp_path: Path) -> None:
    [text] = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "pipeline.toml").write_text(text)
    done = run("run", "-c", "pipeline.toml", "--duration", "200ms", cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert "energy_consumption_host" in done.stdout
    assert {record["tags"]["cluster"] for record in read_records(tmp_path / "carbon.jsonl")} == {"prod-1"}


def test_no_block_is_left_out() -> None:
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert (Path(__file__).parents[1] / link).exists()

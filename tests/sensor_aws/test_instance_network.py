"""The command on a machine that seems to be an EC2 instance: the true addresses, in a network of the test's own."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.pipelines.support import TRACARBON, Result, environment, read_records
from tests.pipelines.support import run as run_command
from tests.sensor_aws.imds import ec2_machine, xen_machine
from tests.support.web_server import json_answer, serving

ROOT = Path(__file__).parents[2]
PATHS = {"instance-type": "c5.xlarge", "placement/region": "eu-west-3"}
PIPELINE = """
host_root = "{root}"

[location]
plugin = "aws"

[sensors.aws]

[generators.energy]
[generators.carbon]

[exporters.json]
path = "records.jsonl"
"""


@functools.cache
def unavailable() -> str:
    """Why a network cannot be made here; empty where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a network namespace needs Linux, and root"
    missing = [tool for tool in ("unshare", "ip") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    made = subprocess.run(
        ["unshare", "-n", "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False
    )
    return made.stderr.strip()


pytestmark = [pytest.mark.once, pytest.mark.skipif(bool(unavailable()), reason=unavailable())]


def run(situation: str, folder: Path, *arguments: str) -> Result:
    """Run the command there, with a pipeline file."""
    network = ["unshare", "-n", sys.executable, "-m", "tests.sensor_aws.instance_network", situation]
    done = subprocess.run(
        [*network, json.dumps(PATHS), "sh", "-c", 'cd "$1"; shift; exec "$@"', "sh", folder, TRACARBON, *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def pipeline(folder: Path, root: Path) -> Path:
    (folder / "pipeline.toml").write_text(PIPELINE.format(root=root))
    return folder


@pytest.mark.parametrize("situation", ["ipv4", "ipv6"])
def test_all_is_found_out_where_the_service_is(situation: str, tmp_path: Path) -> None:
    folder = pipeline(tmp_path, xen_machine(tmp_path / "host"))
    done = run(situation, folder, "run", "-c", "pipeline.toml", "--duration", "300ms")
    assert done.status == 0, done
    records = read_records(folder / "records.jsonl")
    [host, *_] = [record for record in records if record["name"] == "tracarbon.energy_consumption_host"]
    assert {"sensor": "aws", "fidelity": "modelled", "method": "ec2:c5.xlarge"}.items() <= host["tags"].items()
    joules = sum(it["value"] * it["covered_seconds"] for it in records if it["name"].endswith("consumption_host"))
    grams = sum(record["value"] for record in records if record["name"].endswith("emission_host"))
    assert joules > 0
    assert grams == pytest.approx(joules / 3.6e6 * 52.0)


@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        ("nothing", "nobody answers at http://169.254.169.254: Network is unreachable; nobody answers at http://[fd00"),
        ("refused", "nobody answers at http://169.254.169.254: Connection refused"),
        ("silent", "http://169.254.169.254 did not answer within 1 s. In a container, the hop limit of the metadata"),
    ],
)
def test_where_it_is_not_the_reason_is_said(situation: str, reason: str, tmp_path: Path) -> None:
    folder = pipeline(tmp_path, xen_machine(tmp_path / "host"))
    done = run(situation, folder, "run", "-c", "pipeline.toml", "--duration", "300ms")
    assert done.status == 2, done
    assert reason in done.stderr
    assert "Set region in [location]" in done.stderr
    assert "Traceback" not in done.stderr


def test_nitro_needs_nobody_for_its_type(tmp_path: Path) -> None:
    folder = pipeline(tmp_path, ec2_machine(tmp_path / "host"))
    (folder / "pipeline.toml").write_text(
        PIPELINE.format(root=tmp_path / "host").replace('plugin = "aws"', 'plugin = "aws"\nregion = "us-east-1"')
    )
    done = run("nothing", folder, "run", "-c", "pipeline.toml", "--duration", "300ms")
    assert done.status == 0, done
    assert "ec2:m5.large" in (folder / "records.jsonl").read_text()


def test_a_pipeline_without_sensors_takes_the_model_and_doctor_says_so(tmp_path: Path) -> None:
    root = ec2_machine(tmp_path / "host")
    done = run("ipv4", tmp_path, "doctor", "--host-root", str(root))
    assert "works, modelled: ec2:m5.large" in done.stdout
    assert "works: eu-west-3, France, 52 g/kWh" in done.stdout
    (tmp_path / "pipeline.toml").write_text(f'host_root = "{root}"\n[exporters.stdout]\n')
    done = run("nothing", tmp_path, "run", "-c", "pipeline.toml", "--once")
    assert done.status == 0, done
    assert "modelled by aws, world" in done.stdout
    done = run("ipv4", tmp_path, "run", "-c", "pipeline.toml", "--once")
    assert done.status == 0, done
    assert "modelled by aws, AWS(eu-west-3)" in done.stdout


def test_doctor_looks_where_run_would(tmp_path: Path) -> None:
    env = environment(TRACARBON_HOST_ROOT=str(ec2_machine(tmp_path / "host")), AWS_EC2_METADATA_DISABLED="true")
    done = run_command("doctor", cwd=tmp_path, env=env)
    assert "works, modelled: ec2:m5.large" in done.stdout
    assert "does not work: AWS_EC2_METADATA_DISABLED keeps" in done.stdout


def test_init_takes_the_location_that_knows_more(tmp_path: Path) -> None:
    root = ec2_machine(tmp_path / "host")
    done = run("ipv4", tmp_path, "init", "-o", "-", "--host-root", str(root))
    assert '[location]                       # eu-west-3, France, 52 g/kWh\nplugin = "aws"\n' in done.stdout
    assert "[sensors.aws]  # modelled: ec2:m5.large\n" in done.stdout
    done = run("nothing", tmp_path, "init", "-o", "-", "--host-root", str(root))
    assert 'plugin = "country"' in done.stdout


def test_a_key_in_the_environment_is_for_a_region_too(tmp_path: Path) -> None:
    said = {"zone": "US-CAL-CISO", "carbonIntensity": 123, "datetime": datetime.now(UTC).isoformat()}
    (tmp_path / "pipeline.toml").write_text(
        '[location]\nplugin = "aws"\nregion = "us-west-1"\n[sensors.aws]\ninstance_type = "m5.large"\n'
        '[exporters.json]\npath = "records.jsonl"\n'
    )
    with serving(json_answer(said)) as server:
        env = environment(TRACARBON_CO2SIGNAL_API_KEY="K3Y", TRACARBON_CO2SIGNAL_URL=f"{server.url}/?zone=")
        done = run_command("run", "-c", "pipeline.toml", "--duration", "300ms", cwd=tmp_path, env=env)
    assert done.status == 0, done
    carbon = [record for record in read_records(tmp_path / "records.jsonl") if "carbon_emission" in record["name"]]
    assert {record["tags"]["source"] for record in carbon} == {"CO2SignalAPI"}
    assert {record["tags"]["location"] for record in carbon} == {"AWS(us-west-1)"}
    assert "K3Y" not in done.stdout + done.stderr

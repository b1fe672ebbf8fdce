"""`tracarbon run` on a made-up node: every joule of the host is somebody's, in every window."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.k8s.api_server import Server, hang, serving, write_kubeconfig
from tests.k8s.cgroup_tree import container_id, uid
from tests.k8s.machine import NODE, Machine
from tests.pipelines.support import Record, environment, figures, read_records, records_so_far, run, start, wait_until
from tests.support.feeder import Truth, start_feeder
from tests.support.powercap_tree import PowercapTree, one_socket

pytestmark = pytest.mark.once

WATTS = {"intel-rapl:0": 40.0, "intel-rapl:0:0": 25.0, "intel-rapl:0:1": 6.0}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    root = tmp_path / "host"
    root.mkdir()
    return Machine(root)


@pytest.fixture
def server(machine: Machine) -> Iterator[Server]:
    with serving(machine.cluster) as server:
        yield server


def settings(machine: Machine, server: Server, folder: Path) -> dict[str, str]:
    kubeconfig = write_kubeconfig(folder / "kubeconfig", server.url)
    return environment(NODE_NAME=NODE, KUBECONFIG=kubeconfig, TRACARBON_HOST_ROOT=str(machine.root))


@contextmanager
def busy(machine: Machine) -> Iterator[None]:
    """Two containers that last, and others that come and go."""
    lasting = [
        machine.start(name, name, uid=uid(number), identity=container_id(number))
        for number, name in ((1, "web"), (2, "db"))
    ]
    over = threading.Event()

    def live() -> None:
        number = 100
        while not over.wait(0.05):
            number += 1
            for place, seconds in zip(lasting, (0.03, 0.01), strict=True):
                machine.burn(place, seconds, 10**8)
            brief = machine.start(f"job-{number}", "work", uid=uid(number), identity=container_id(number))
            machine.burn(brief, 0.01)
            machine.end(brief.parent)
            machine.spend(0.06, system_seconds=0.01)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def sums(records: list[Record], name: str) -> dict[str, float]:
    """What the series of one name integrate to, by window."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in figures(records, name):
        found[record["timestamp"]].append(
            record["value"] * (record["covered_seconds"] if record["unit"] == "watts" else 1)
        )
    return {at: math.fsum(values) for at, values in found.items()}


def test_every_joule_is_somebodys(machine: Machine, server: Server, tmp_path: Path) -> None:
    """Also while the API server is away."""
    (tmp_path / "pipeline.toml").write_text("""
interval = "300ms"
[location]
country = "FR"
[sensors.rapl]
[generators.energy]
[generators.carbon]
[generators.energy_kubernetes]
[generators.carbon_kubernetes]
idle = "evenly"
[exporters.json]
path = "records.jsonl"
""")
    tree = PowercapTree(machine.root / "sys", one_socket())
    watts = {key: WATTS.get(key, 1.0) for key in tree.keys()}  # noqa: SIM118
    feeder = start_feeder(tree.root, watts, tmp_path / "truth.json")
    env = settings(machine, server, tmp_path)
    with busy(machine), start("run", "-c", "pipeline.toml", cwd=tmp_path, env=env) as program:
        path = tmp_path / "records.jsonl"
        wait_until(lambda: len(sums(records_so_far(path), "energy_consumption_kubernetes_total")) > 3, "some windows")
        machine.cluster.denied.add("pods")
        program.wait_for("energy_kubernetes degraded", "stderr")
        machine.cluster.denied.clear()
        program.wait_for("energy_kubernetes works again", "stderr")
        done = program.stop()
    feeder.terminate()
    assert feeder.wait(60) == 0
    assert done.status == 0, done.stderr
    assert "Traceback" not in done.stderr
    records = read_records(path)
    for prefix in ("energy_consumption", "carbon_emission"):
        for whole, part in (("host", "total"), ("cpu", "cpu"), ("memory", "memory")):
            expected = sums(records, f"{prefix}_{whole}")
            assert len(expected) > 5
            assert sums(records, f"{prefix}_kubernetes_{part}") == pytest.approx(expected), (prefix, part)
    truth = Truth.load(tmp_path / "truth.json")
    joules = math.fsum(sums(records, "energy_consumption_kubernetes_total").values())
    used = sum(truth.joules_until(key, truth.end) for key in ("intel-rapl:0",))
    assert 0 < joules <= used * 1.5
    by_container: dict[str, float] = defaultdict(float)
    for record in figures(records, "energy_consumption_kubernetes_cpu"):
        by_container[record["tags"].get("container_name", record["tags"]["attribution"])] += record["value"]
    # How much more is for the tests of attribution: a window may close between the time of the one and of the other.
    assert by_container["web"] > by_container["db"] > 0
    assert by_container["unattributed"] > 0


def test_an_api_server_that_hangs_keeps_nothing_from_the_start(
    machine: Machine, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "pipeline.toml").write_text("""
interval = "300ms"
[location]
country = "FR"
[generators.energy]
[generators.energy_kubernetes]
timeout_seconds = 60
[exporters.json]
path = "records.jsonl"
""")
    machine.cluster.fault = hang
    path = tmp_path / "records.jsonl"
    name = "energy_consumption_kubernetes_total"
    with (
        busy(machine),
        start("run", "-c", "pipeline.toml", cwd=tmp_path, env=settings(machine, server, tmp_path)) as program,
    ):
        program.wait_for("energy_kubernetes degraded: the API server has not answered yet", "stderr")
        wait_until(lambda: len(sums(records_so_far(path), name)) > 1, "some windows")
        done = program.stop()
    assert done.status == 0, done.stderr
    records = read_records(path)
    assert sums(records, name) == pytest.approx(sums(records, "energy_consumption_host"))
    assert {each["tags"]["attribution"] for each in figures(records, name)} <= {"unattributed", "system", "idle"}


def test_containers_of_the_command_line(machine: Machine, server: Server, tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text('[exporters.json]\npath = "records.jsonl"\n')
    env = settings(machine, server, tmp_path)
    with busy(machine):
        arguments = ("run", "-c", "pipeline.toml", "--containers", "--country", "fr", "--duration", "500ms")
        done = run(*arguments, cwd=tmp_path, env=env)
    assert done.status == 0, done.stderr
    records = read_records(tmp_path / "records.jsonl")
    for prefix in ("energy_consumption", "carbon_emission"):
        whole = sums(records, f"{prefix}_host")
        assert sums(records, f"{prefix}_kubernetes_total") == pytest.approx(whole)
    # Both generators share what is read at a tick, and at the start unless one of them enters a second later.
    assert len([path for path in machine.cluster.paths() if path == "/api/v1/pods"]) <= 2 + len(whole)


def test_containers_that_the_file_has_count_once(machine: Machine, server: Server, tmp_path: Path) -> None:
    """Whatever their tables are called."""
    (tmp_path / "pipeline.toml").write_text("""
[generators.energy]
[generators.containers]
plugin = "energy_kubernetes"
idle = "evenly"
[exporters.json]
path = "records.jsonl"
""")
    env = settings(machine, server, tmp_path)
    with busy(machine):
        arguments = ("run", "-c", "pipeline.toml", "--containers", "--country", "fr", "--duration", "300ms")
        done = run(*arguments, cwd=tmp_path, env=env)
    assert done.status == 0, done.stderr
    records = read_records(tmp_path / "records.jsonl")
    assert sums(records, "energy_consumption_kubernetes_total") == pytest.approx(
        sums(records, "energy_consumption_host")
    )
    assert not any(
        record["tags"].get("attribution") == "idle" for record in figures(records, "energy_consumption_kubernetes_cpu")
    )
    assert sums(records, "carbon_emission_kubernetes_total")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("NODE_NAME", "", "set NODE_NAME"),
        ("NODE_NAME", "Node", "NODE_NAME is 'Node'"),
        ("KUBECONFIG", "", "there is no file"),
        ("TRACARBON_HOST_ROOT", "nothing", "cgroup_root"),
    ],
)
def test_what_is_missing_is_said_before_the_start(
    variable: str, value: str, said: str, machine: Machine, server: Server, tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing"
    (nothing / "sys").mkdir(parents=True)
    (nothing / "proc").mkdir()
    env = {**settings(machine, server, tmp_path), variable: str(nothing) if value == "nothing" else value}
    done = run("run", "--containers", "--country", "fr", "--duration", "200ms", cwd=tmp_path, env=env)
    assert done.status == 2, done.stdout
    assert said in done.stderr
    assert "WARNING" not in done.stderr, "it is said once"
    assert "Traceback" not in done.stderr


def test_options_are_checked(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text("""
[generators.energy_kubernetes]
node_name = "n"
usage = "cgroups"
idle = "never"
pod_labels = ["a b"]
namespace = ["x"]
""")
    done = run("check", "-c", "pipeline.toml", cwd=tmp_path, env=environment(TRACARBON_COUNTRY="fr"))
    assert done.status == 2
    for said in ("did you mean 'namespaces'?", "'cgroup' or 'metrics-api'", "'separate', 'by-request' or 'evenly'"):
        assert said in done.stdout + done.stderr

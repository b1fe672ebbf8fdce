"""Real cgroups with real processes in them, as the kernel counts them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tracarbon_k8s._attribution import Amounts, Share, attribute
from tracarbon_k8s._cgroups import CgroupError, CgroupReader
from tracarbon_k8s._host import read_node
from tracarbon_k8s._ledger import Ledger
from tracarbon_k8s._usage import ContainerKey, Identity, NodeUsage, Workload

from tests.k8s.cgroup_tree import container_id, uid
from tests.k8s.real_cgroups import RealCgroups, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

_PATIENCE_SECONDS = 60.0
_BURN = """
import os, sys, time
entered = time.process_time()
sys.stdin.readline()
began, enough = time.process_time(), float(sys.argv[1])
while time.process_time() - began < enough:
    pass
print(time.process_time() - entered, flush=True)
os._exit(0)  # what it takes to end counts, and has been told of by nobody
"""


@pytest.fixture
def cgroups() -> Iterator[RealCgroups]:
    with RealCgroups() as made:
        yield made


def resolve(key: ContainerKey | str) -> Identity:
    if isinstance(key, ContainerKey):
        return Identity(Workload("default", key.pod_uid, key.container_id))
    return Identity(Workload("default", key))


def finish(process: subprocess.Popen[str]) -> float:
    """Let a process begin, and return the seconds that it says it has used in its cgroup."""
    out, _ = process.communicate("go\n", timeout=_PATIENCE_SECONDS)
    assert process.returncode == 0
    return float(json.loads(out))


def used_by(usage: NodeUsage, pod: str, container: str = "") -> float:
    return sum(part.cpu_seconds for part in usage.workloads if part.workload and part.workload[1:3] == (pod, container))


def share_of(shares: list[Share], pod: str, container: str) -> Share:
    (found,) = [share for share in shares if share.workload and share.workload[1:3] == (pod, container)]
    return found


def test_the_busier_container_gets_its_share(cgroups: RealCgroups) -> None:
    pod = cgroups.pod(uid(1))
    places = {name: cgroups.container(pod, container_id(name)) for name in (1, 2)}
    burners = {1: cgroups.start(places[1], _BURN, 1.5), 2: cgroups.start(places[2], _BURN, 0.5)}
    ledger = Ledger()
    with CgroupReader(Path("/"), cgroups.root) as reader:
        ledger.open(read_node(Path("/")), before := reader.read())
        own = {name: finish(burner) for name, burner in burners.items()}
        after = reader.read()
        usage = ledger.usage(after, read_node(Path("/")), resolve)
    spent = {name: used_by(usage, uid(1), container_id(name)) for name in (1, 2)}
    begun = {name: before.containers.cpu_seconds[ContainerKey(uid(1), container_id(name))] for name in (1, 2)}
    for name in (1, 2):
        assert spent[name] + begun[name] == pytest.approx(own[name], abs=0.05)
    shares = attribute(Amounts(host=1000.0, cpu=1000.0), usage)
    busier = share_of(shares, uid(1), container_id(1))
    idler = share_of(shares, uid(1), container_id(2))
    assert busier.cpu is not None
    assert idler.cpu is not None
    share, truth = busier.cpu / (busier.cpu + idler.cpu), own[1] / (own[1] + own[2])
    assert share == pytest.approx(truth, rel=0.02)
    assert sum(part.total or 0.0 for part in shares) == pytest.approx(1000.0)


def test_a_container_that_lived_between_two_readings_is_in_its_pod_and_a_pod_in_all_pods(cgroups: RealCgroups) -> None:
    lasting = cgroups.pod(uid(1))
    ledger = Ledger()
    with CgroupReader(Path("/"), cgroups.root) as reader:
        ledger.open(read_node(Path("/")), reader.read())
        short = cgroups.container(lasting, container_id(1))
        in_lasting = finish(cgroups.start(short, _BURN, 0.2))
        cgroups.remove(short)
        gone = cgroups.pod(uid(2))
        in_gone = finish(cgroups.start(cgroups.container(gone, container_id(2)), _BURN, 0.3))
        cgroups.remove(gone)
        usage = ledger.usage(reader.read(), read_node(Path("/")), resolve)
    assert used_by(usage, uid(1)) == pytest.approx(in_lasting, abs=0.05)
    (nobodys,) = [part.cpu_seconds for part in usage.workloads if part.workload is None]
    assert nobodys == pytest.approx(in_gone, abs=0.05)


def test_what_is_made_and_removed_is_noticed_by_the_kernels_links_alone(cgroups: RealCgroups) -> None:
    """The kernel does not touch the time of a folder in which a cgroup is made."""
    with CgroupReader(Path("/"), cgroups.root) as reader:
        pod = cgroups.pod(uid(1))
        assert set(reader.read().pods.cpu_seconds) == {uid(1)}
        first = cgroups.container(pod, container_id(1))
        assert set(reader.read().containers.cpu_seconds) == {ContainerKey(uid(1), container_id(1))}
        cgroups.remove(first)  # as many as before
        cgroups.container(pod, container_id(2))
        assert set(reader.read().containers.cpu_seconds) == {ContainerKey(uid(1), container_id(2))}
        cgroups.remove(pod)
        cgroups.pod(uid(2))
        assert set(reader.read().pods.cpu_seconds) == {uid(2)}


def test_the_cgroup_of_all_pods_may_go_and_come_back(cgroups: RealCgroups) -> None:
    with CgroupReader(Path("/"), cgroups.root) as reader:
        reader.read()
        cgroups.remove(cgroups.all_pods)
        with pytest.raises(CgroupError, match="no cgroup of pods"):
            reader.read()
        cgroups.pod(uid(1))
        assert set(reader.read().pods.cpu_seconds) == {uid(1)}

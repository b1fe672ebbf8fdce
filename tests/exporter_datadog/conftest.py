"""For every test, the environment of Datadog's clients is empty, and nobody is given up since the machine is busy."""

from __future__ import annotations

import os

import pytest
from tracarbon_exporter_datadog import _agent, _intake


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in os.environ if name.startswith(("DD_", "DATADOG_")) or name.lower().endswith("_proxy")
    ]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_agent, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(_intake, "REQUEST_SECONDS", 60.0)
    monkeypatch.setattr(_intake, "CONNECT_SECONDS", 60.0)

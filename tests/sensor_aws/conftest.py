"""No metadata service is given up since the machine is busy."""

from __future__ import annotations

import pytest
from tracarbon_sensor_aws import instance


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "_TIMEOUT_SECONDS", 60.0)
    monkeypatch.setattr(instance, "_LONGEST_SECONDS", 60.0)

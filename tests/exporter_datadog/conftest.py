"""The environment of Datadog's clients is empty for every test."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in os.environ if name.startswith(("DD_", "DATADOG_")) or name.lower().endswith("_proxy")
    ]:
        monkeypatch.delenv(name)

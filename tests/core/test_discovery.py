"""Finding plugins: what is installed now counts, whatever anybody remembers."""

from __future__ import annotations

import pytest
from stevedore.extension import ExtensionManager
from tracarbon._discovery import EXPORTER, find_plugin, load_plugin
from tracarbon.exporters import JSONExporter


def test_a_plugin_that_stevedore_remembers_not_to_be_there_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ExtensionManager.ENTRY_POINT_CACHE, EXPORTER.group, [])
    found = find_plugin(EXPORTER, "json")
    assert found is not None
    assert load_plugin(found) is JSONExporter

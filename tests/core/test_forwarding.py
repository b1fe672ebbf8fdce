"""Documented names of other distributions."""

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest
from tracarbon._forwarding import forward


def test_a_forwarded_name_is_the_one_of_its_distribution() -> None:
    import tracarbon_sensor_rapl
    from tracarbon.hardwares.rapl import RAPL, RAPLResult
    from tracarbon.hardwares.sensors import LinuxEnergyConsumption

    assert RAPL is tracarbon_sensor_rapl.RAPL
    assert RAPLResult is tracarbon_sensor_rapl.RAPLResult
    assert LinuxEnergyConsumption is tracarbon_sensor_rapl.LinuxEnergyConsumption


def test_a_missing_distribution_is_named_with_what_to_install() -> None:
    get = forward("tracarbon.exporters.acme", {"AcmeExporter": "tracarbon-exporter-acme-missing"})
    with pytest.raises(ImportError, match="pip install tracarbon-exporter-acme-missing"):
        get("AcmeExporter")


def test_an_unknown_name_is_an_attribute_error() -> None:
    import tracarbon.hardwares.rapl

    with pytest.raises(AttributeError, match=r"'tracarbon\.hardwares\.rapl' has no attribute 'Rappel'"):
        _ = tracarbon.hardwares.rapl.Rappel  # type: ignore[attr-defined]


def test_an_import_that_fails_inside_the_distribution_is_not_taken_for_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    with (tmp_path / "tracarbon_broken.py").open("w") as file:
        file.write("import a_module_that_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        forward("m", {"X": "tracarbon-broken"})("X")
    assert "tracarbon_broken" not in sys.modules


def forwarding_modules() -> list[Path]:
    core = Path(__file__).parents[2] / "tracarbon-core" / "src" / "tracarbon"
    return [path for path in core.rglob("*.py") if re.search(r"= (forward|offer)\(", path.read_text("utf-8"))]


@pytest.mark.parametrize("path", forwarding_modules(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_type_checkers_see_what_is_forwarded(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    [typing_only] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: statement.module
        for statement in typing_only.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
        if alias.asname == alias.name
    }
    parts = path.with_suffix("").parts
    name = ".".join(parts[parts.index("src") + 1 :]).removesuffix(".__init__")
    homes = inspect.getclosurevars(importlib.import_module(name).__getattr__).nonlocals["homes"]
    assert seen == {key: home.replace("-", "_") for key, home in homes.items()}

"""Imports in the core point one way: to the same layer or a lower one. A new module is put into `LAYERS`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "tracarbon-core" / "src" / "tracarbon"

# from the lowest to the highest; names are within `tracarbon`, which itself is "."
LAYERS = {
    "measures": """
        . exceptions metrics report hardwares hardwares.energy hardwares.counter hardwares.cpu_load
        hardwares.power_curve hardwares._* locations locations._*
        exporters exporters._* emissions
        _addresses _clock _collect _document _forwarding _listener _pulse _report_text _states _text _watch _worker
    """,
    "contracts": """
        plugin hardwares.sensors locations.location exporters.exporter
        hardwares.containers hardwares.gpu hardwares.hardware hardwares.rapl
        exporters.datadog_exporter exporters.prometheus_exporter
    """,
    "meter, mailbox and plugins": """
        _accounts _composition _meter _mailbox
        hardwares.estimate hardwares.windows
        locations.country locations.electricity_maps locations.great_britain locations.static
        exporters.stdout exporters.json_exporter
        emissions.carbon_emissions general_metrics
    """,
    "pipeline": "_exporter_runner _generator_runner _pipeline _runner _sampler hooks",
    "assembly": """
        _discovery _probing _configuration _environment _assembly _scaffold _schema _lending _lifting _background conf
    """,
    "builder": "builder",
    "command": "cli cli.* __main__",
    "tests": "testing testing.* _pytest_plugin",
}

# packages that offer the names of their modules, which are loaded when they are first used
PACKAGES = {".", "emissions", "exporters", "hardwares", "locations"}
# documented names that reach up, at the moment when they are called
FORWARDS = {"cli", "hardwares.sensors", "locations.country", "exporters.exporter"}

ONLY_IN = {"tomli": "_document", "stevedore": "_discovery", "pluggy": "hooks", "dotenv": "_document"}


class Import(NamedTuple):
    """One name of an import statement; `is_lazy` if it is inside a function, `is_typing` if under `TYPE_CHECKING`."""

    target: str
    line: int
    is_lazy: bool
    is_typing: bool


class ImportFinder(ast.NodeVisitor):
    """Collects the imports of a module."""

    def __init__(self) -> None:
        self.found: list[Import] = []
        self._is_lazy = False
        self._is_typing = False

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        outside, self._is_lazy = self._is_lazy, True
        self.generic_visit(node)
        self._is_lazy = outside

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_If(self, node: ast.If) -> None:
        outside = self._is_typing
        self._is_typing = outside or ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body:
            self.visit(statement)
        self._is_typing = outside
        for statement in node.orelse:
            self.visit(statement)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        package = "." * node.level + (node.module or "")
        for alias in node.names:
            self._add(f"{package}.{alias.name}", node.lineno)

    def _add(self, target: str, line: int) -> None:
        self.found.append(Import(target, line, self._is_lazy, self._is_typing))


def imports_of(source: str) -> list[Import]:
    finder = ImportFinder()
    finder.visit(ast.parse(source))
    return finder.found


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "."


MODULES = {module_name(path, CORE): path for path in sorted(CORE.rglob("*.py"))}


def layers_of(module: str) -> list[int]:
    """Return the layers whose patterns match; there should be one."""
    patterns = (text.split() for text in LAYERS.values())
    return [number for number, names in enumerate(patterns) if any(fnmatchcase(module, name) for name in names)]


def core_module(target: str) -> str | None:
    """Return the module of the core that an import loads, `None` if it is another's."""
    if target != "tracarbon" and not target.startswith("tracarbon."):
        return None
    name = target.removeprefix("tracarbon").removeprefix(".") or "."
    return name if name in MODULES else name.rpartition(".")[0] or "."


def violations(module: str, source: str) -> Iterator[str]:
    [layer] = layers_of(module)
    for found in imports_of(source):
        target = core_module(found.target)
        may_reach_up = (
            found.is_typing if module in PACKAGES else module in FORWARDS and (found.is_lazy or found.is_typing)
        )
        if target is not None and not may_reach_up and layers_of(target)[0] > layer:
            yield f"{module}, line {found.line}: {found.target} is of a higher layer"
        if found.target.startswith("."):
            yield f"{module}, line {found.line}: a relative import"
        library = found.target.partition(".")[0]
        if ONLY_IN.get(library, module) != module:
            yield f"{module}, line {found.line}: only {ONLY_IN[library]} imports {library}"
        if library.startswith("tracarbon_") and not found.is_typing:
            yield f"{module}, line {found.line}: the core imports no plugin"


def test_every_module_is_in_one_layer() -> None:
    assert {module: layers_of(module) for module in MODULES if len(layers_of(module)) != 1} == {}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    assert list(violations(module, MODULES[module].read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("metrics", "from tracarbon.plugin import Plugin", 1),
        ("metrics", "import tracarbon.plugin", 1),
        ("metrics", "from tracarbon import plugin, exceptions", 1),
        ("metrics", "def f():\n    from tracarbon.builder import Tracarbon", 1),
        ("hardwares.sensors", "async def f():\n    from tracarbon._assembly import best_sensor", 0),
        ("hardwares.sensors", "from tracarbon._assembly import best_sensor", 1),
        ("plugin", "if TYPE_CHECKING:\n    from tracarbon.builder import Tracarbon", 1),
        ("builder", "from tracarbon._pipeline import Pipeline\nimport tomli", 1),
        ("_document", "import tomli", 0),
        ("plugin", "from .builder import Tracarbon", 1),
        ("cli", "from tracarbon import __version__", 0),
        ("hardwares.rapl", "if TYPE_CHECKING:\n    from tracarbon_sensor_rapl import RAPL", 0),
        ("hardwares.rapl", "if TYPE_CHECKING:\n    pass\nelse:\n    from tracarbon_sensor_rapl import RAPL", 1),
        (".", "if TYPE_CHECKING:\n    from tracarbon.builder import Tracarbon", 0),
    ],
)
def test_the_watch_sees_what_it_should(module: str, source: str, count: int) -> None:
    assert len(list(violations(module, source))) == count


def test_private_modules_of_plugin_distributions_know_nothing_of_tracarbon() -> None:
    mechanisms = [path for path in ROOT.glob("tracarbon-*/src/*/_*.py") if path.name != "__init__.py"]
    mechanisms = [path for path in mechanisms if CORE not in path.parents]
    assert mechanisms
    for path in mechanisms:
        targets = [found.target for found in imports_of(path.read_text(encoding="utf-8"))]
        assert [target for target in targets if core_module(target) is not None] == [], path.name

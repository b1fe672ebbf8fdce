"""`tracarbon plugins new`: what it writes passes its own tests and the tools, and runs as its README says."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
import tomli
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from tracarbon import _discovery, _scaffold
from tracarbon._discovery import GENERATOR, HOOK, KINDS, SENSOR
from tracarbon.exceptions import PluginError, TracarbonException

from tests.pipelines.support import Result, environment, make_distribution, run
from tests.support.limits import no_room_in_files

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
KIND_WORDS = [kind.word for kind in KINDS]
USAGE = (
    "tracarbon: usage: tracarbon plugins [NAME], or tracarbon plugins new KIND NAME [-o FOLDER]; "
    "KIND is sensor, location, generator, exporter or hook\n"
)
LONGEST = "abcdefghij-abcdefghij_abcdefgh"


@dataclass(frozen=True)
class Written:
    """A distribution that was written, and what is installed from it."""

    kind: str
    folder: Path
    site: Path
    said: Result

    @property
    def env(self) -> dict[str, str]:
        return environment(PYTHONPATH=str(self.site))

    def tool(self, *arguments: str, cwd: Path | None = None, **variables: str) -> None:
        """Run a module of this interpreter, which has to be content."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=cwd or self.folder,
            env={**self.env, **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def install(folder: Path, site: Path) -> None:
    """Install a distribution into a folder for PYTHONPATH: from its wheel where hatchling is there to build one."""
    if importlib.util.find_spec("hatchling"):
        built = site.with_name(f"{site.name}-wheel")
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)],
            cwd=folder,
            env=environment(),
            capture_output=True,
            check=True,
        )
        [wheel] = built.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(site)
        return
    project = tomli.loads((folder / "pyproject.toml").read_text())["project"]
    make_distribution(
        site,
        project["name"],
        entry_points=project["entry-points"],
        modules={},
        version=project["version"],
        requires=project["dependencies"],
        description=(folder / "README.md").read_text(),
    )
    shutil.copytree(folder / "src", site, dirs_exist_ok=True)


@pytest.fixture(scope="module", params=KIND_WORDS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    base = tmp_path_factory.mktemp(request.param)
    said = run("plugins", "new", request.param, "acme-thermometer", cwd=base)
    assert said.status == 0, said
    folder = base / f"tracarbon-{request.param}-acme-thermometer"
    site = base / "site"
    install(folder, site)
    return Written(request.param, folder, site, said)


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("mypy"))


class TestWhatIsWritten:
    def test_it_says_what_and_how_to_go_on(self, written: Written) -> None:
        name = written.folder.name
        lines = written.said.stdout.splitlines()
        assert lines[-3:] == ["next:", f"  pip install -e '{name}[test]'", f"  pytest {name}"]
        files = {path.relative_to(written.folder.parent) for path in written.folder.rglob("*") if path.is_file()}
        assert {Path(line.removeprefix("wrote ")) for line in lines[:-3]} == files
        assert written.said.stderr == ""

    def test_it_has_the_shape_of_a_plugin_distribution(self, written: Written) -> None:
        project = tomli.loads((written.folder / "pyproject.toml").read_text())
        package = f"tracarbon_{written.kind}_acme_thermometer"
        target = f"{package}:AcmeThermometer{written.kind.capitalize()}"
        assert project["build-system"]["build-backend"] == "hatchling.build"
        assert project["project"]["requires-python"] == ">=3.11"
        assert project["project"]["entry-points"] == {f"tracarbon.{written.kind}s": {"acme_thermometer": target}}
        [requirement] = map(Requirement, project["project"]["dependencies"])
        assert requirement.name == "tracarbon-core"
        assert requirement.specifier.contains(metadata.version("tracarbon-core"), prereleases=True)
        assert [path.name for path in (written.folder / "src").iterdir()] == [package]
        assert (written.folder / "src" / package / "py.typed").read_text() == ""
        assert (written.site / package / "py.typed").is_file()
        headings = re.findall("^## (.*)", (written.folder / "README.md").read_text(), re.MULTILINE)
        measures = "What it measures" if written.kind == "sensor" else "What it does"
        assert headings == [measures, "Requirements", "Options", "Metrics", "Example"]

    def test_its_tests_pass(self, written: Written) -> None:
        self_contained = ("-q", "-W", "error", "-p", "no:cacheprovider")
        written.tool("pytest", *self_contained, str(written.folder), cwd=written.folder.parent)

    def test_the_kit_is_what_its_tests_are(self, written: Written) -> None:
        source = (written.folder / "tests" / "test_plugin.py").read_text()
        kit = "HookDispatcher" if written.kind == "hook" else f"{written.kind.capitalize()}Contract"
        assert re.search(rf"^from tracarbon\..* import .*\b{kit}$", source, re.MULTILINE) or f"{kit}," in source

    def test_types_are_right(self, written: Written, mypy_cache: str) -> None:
        pytest.importorskip("mypy", reason="mypy is not installed")
        written.tool("mypy", "--strict", "--cache-dir", mypy_cache, "src", "tests", MYPYPATH="src")

    def test_style_is_right(self, written: Written) -> None:
        pytest.importorskip("ruff", reason="ruff is not installed")
        ours = str(ROOT / "pyproject.toml")
        written.tool("ruff", "check", "--no-cache", ".")
        written.tool("ruff", "check", "--no-cache", str(written.folder), cwd=written.folder.parent)
        written.tool("ruff", "check", "--no-cache", "--config", ours, ".")
        written.tool("ruff", "format", "--no-cache", "--check", ".")
        written.tool("ruff", "format", "--no-cache", "--check", "--isolated", ".")

    def test_the_mechanism_knows_nothing_of_tracarbon(self, written: Written) -> None:
        for path in written.folder.glob("src/*/_[!_]*.py"):
            assert "tracarbon" not in path.read_text()

    def test_the_readmes_example_runs(self, written: Written, tmp_path: Path) -> None:
        folder = shutil.copytree(written.folder, tmp_path / "copy")
        [example] = re.findall(r"^```toml\n(.*?)^```", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
        (folder / "pipeline.toml").write_text(example)
        checked = run("check", "-c", "pipeline.toml", cwd=folder, env=written.env)
        assert checked.status == 0, checked
        assert f"{written.folder.name} 0.1.0" in checked.stdout
        result = run("run", "-c", "pipeline.toml", "--duration", "500ms", cwd=folder, env=written.env)
        assert result.status == 0, result
        HAS_WORKED[written.kind](result, folder)

    def test_it_is_shown(self, written: Written, tmp_path: Path) -> None:
        result = run("plugins", "acme_thermometer", cwd=tmp_path, env=written.env)
        head, summary, columns, *options = result.stdout.splitlines()
        assert head == f"{written.kind} acme_thermometer, from {written.folder.name} 0.1.0"
        assert summary.strip() and columns.split()[0] == "option" and options

    def test_its_name_is_taken_then(self, written: Written, tmp_path: Path) -> None:
        result = run("plugins", "new", written.kind, "Acme-Thermometer", cwd=tmp_path, env=written.env)
        origin = f"acme_thermometer, from {written.folder.name} 0.1.0"
        assert result == Result(2, "", f"tracarbon: there is a {written.kind} {origin}; take another name\n")
        assert [*tmp_path.iterdir()] == []


def sensor_has_worked(result: Result, folder: Path) -> None:
    assert re.search(r"energy_consumption_host +40\.00 watts .* measured by acme_thermometer", result.stdout)


def location_has_worked(result: Result, folder: Path) -> None:
    assert "acme_thermometer: 21 g/kWh, guarantee of origin, contract 4711 2025" in result.stderr


def generator_has_worked(result: Result, folder: Path) -> None:
    assert re.search(r"acme_thermometer_host +[0-9.]+ joules", result.stdout)
    assert "acme_thermometer_memory" not in result.stdout


def exporter_has_worked(result: Result, folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "acme_thermometer.jsonl").read_text().splitlines()]
    assert {"tracarbon.energy_consumption_host", "tracarbon.carbon_emission_host"} <= {line["name"] for line in lines}
    assert all(line["seconds"] > 0 and line["tags"]["sensor"] for line in lines)


def hook_has_worked(result: Result, folder: Path) -> None:
    for generator in ("energy", "carbon"):
        assert re.search(rf"INFO windows of {generator} in all: [1-9]", result.stderr)


HAS_WORKED: dict[str, Callable[[Result, Path], None]] = {
    "sensor": sensor_has_worked,
    "location": location_has_worked,
    "generator": generator_has_worked,
    "exporter": exporter_has_worked,
    "hook": hook_has_worked,
}


BAD_NAMES = {
    "acme thermometer": "letters, digits, - and _ between them, a letter first, such as acme-thermometer",
    "": "letters, digits",
    "3com": "a letter first",
    "_acme": "a letter first",
    "acme-": "between them",
    "acme--x": "between them",
    "acme.x": "letters, digits",
    "../acme": "letters, digits",
    "wärme": "letters, digits",
    "acme\n": "letters, digits",
    "class": "'class' cannot be a plugin's name: it is a word of Python's own",
    "None": "it is a word of Python's own",
    "CLASS": "it is a word of Python's own",
    f"{LONGEST}x": "is too long for a plugin's name: 31 characters, and 30 at the most",
    "rapl": "there is a sensor rapl, from tracarbon-sensor-rapl",
    "RAPL": "there is a sensor rapl, from tracarbon-sensor-rapl",
    "acme-file": "there is a sensor acme_file, from acme-tracarbon 1.0.0; take another name",
    "vapour": "there is a sensor vapour, pip install tracarbon-sensor-vapour; take another name",
}


class TestRefusals:
    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_names(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(_discovery._KNOWN_DISTRIBUTIONS, ("sensor", "vapour"), "tracarbon-sensor-vapour")
        with pytest.raises(PluginError) as raised:
            _scaffold.new_plugin(SENSOR, name)
        assert BAD_NAMES[name] in str(raised.value)

    def test_a_name_is_refused_in_one_line(self, tmp_path: Path) -> None:
        result = run("plugins", "new", "sensor", "acme thermometer", cwd=tmp_path)
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr.startswith("tracarbon: 'acme thermometer' cannot be a plugin's name: ")
        assert result.stderr.count("\n") == 1
        assert [*tmp_path.iterdir()] == []

    def test_a_name_of_another_kind_is_free(self) -> None:
        assert _scaffold.new_plugin(HOOK, "rapl").distribution == "tracarbon-hook-rapl"

    @pytest.mark.parametrize(
        "words",
        [("new",), ("new", "sensor"), ("json", "rapl"), ("new", "sensor", "a", "b"), ("-o", "x"), ("json", "-o", "x")],
    )
    def test_too_few_or_too_many_words(self, words: tuple[str, ...], tmp_path: Path) -> None:
        assert run("plugins", *words, cwd=tmp_path) == Result(2, "", USAGE)

    @pytest.mark.parametrize(
        ("word", "hint"),
        [("sensr", "did you mean 'sensor'?"), ("widget", "it is sensor, location, generator, exporter or hook")],
    )
    def test_kinds(self, word: str, hint: str, tmp_path: Path) -> None:
        result = run("plugins", "new", word, "acme", cwd=tmp_path)
        assert result == Result(2, "", f"tracarbon: '{word}' is no kind of plugin; {hint}\n")

    def test_an_existing_folder_is_left_alone(self, tmp_path: Path) -> None:
        folder = tmp_path / "tracarbon-sensor-acme"
        folder.mkdir()
        result = run("plugins", "new", "sensor", "acme", cwd=tmp_path)
        message = f"tracarbon: {folder.name} exists and is left alone; -o FOLDER writes to another one\n"
        assert result == Result(2, "", message)
        assert [*folder.iterdir()] == []

    @pytest.mark.parametrize("what", ["file", "dangling link"])
    def test_nothing_of_that_name_is_touched(self, what: str, tmp_path: Path) -> None:
        path = tmp_path / "taken"
        if what == "file":
            path.write_text("mine")
        else:
            path.symlink_to(tmp_path / "nowhere")
        result = run("plugins", "new", "sensor", "acme", "-o", path, cwd=tmp_path)
        assert result.status == 2
        assert "exists and is left alone" in result.stderr
        assert [*tmp_path.iterdir()] == [path]
        assert path.is_symlink() or path.read_text() == "mine"

    @pytest.mark.parametrize(
        ("folder", "reason"), [("missing/x", "No such file or directory"), ("file/x", "Not a directory")]
    )
    def test_a_folder_that_cannot_be_made(self, folder: str, reason: str, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        result = run("plugins", "new", "sensor", "acme", "-o", folder, cwd=tmp_path)
        assert result == Result(2, "", f"tracarbon: {folder} cannot be written: {reason}\n")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_may_not_be_written(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        result = run("plugins", "new", "sensor", "acme", cwd=tmp_path)
        tmp_path.chmod(0o700)
        assert result == Result(2, "", "tracarbon: tracarbon-sensor-acme cannot be written: Permission denied\n")

    def test_of_a_full_disk_nothing_is_left(self, tmp_path: Path) -> None:
        new = _scaffold.new_plugin(SENSOR, "acme")
        with no_room_in_files(), pytest.raises(TracarbonException, match="cannot be written: File too large"):
            _scaffold.write_distribution(new, tmp_path / "x")
        assert [*tmp_path.iterdir()] == []


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    result = run("plugins", "-o", "my folder", "new", "Hook", "Acme_2", cwd=tmp_path)
    assert result.status == 0, result
    assert result.stdout.endswith("next:\n  pip install -e 'my folder[test]'\n  pytest 'my folder'\n")
    assert (tmp_path / "my folder" / "src" / "tracarbon_hook_acme_2" / "__init__.py").is_file()


def test_a_plugin_may_be_called_new(tmp_path: Path) -> None:
    make_distribution(
        tmp_path / "site",
        "acme-new",
        entry_points={"tracarbon.hooks": {"new": "acme_new:Hook"}},
        modules={"acme_new": "class Hook:\n    '''Is new.'''\n"},
    )
    env = environment(PYTHONPATH=str(tmp_path / "site"))
    shown = run("plugins", "new", cwd=tmp_path, env=env)
    assert shown == Result(0, "hook new, from acme-new 1.0.0\n  Is new.\n  no options\n", "")
    assert run("plugins", "new", "sensor", "acme", cwd=tmp_path, env=env).status == 0


@pytest.mark.parametrize("kind", KIND_WORDS)
@pytest.mark.parametrize("name", ["a", "metric", LONGEST, "Acme_Thing-2"])
def test_style_is_right_for_any_name(kind: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip("ruff", reason="ruff is not installed")
    new = _scaffold.new_plugin(_scaffold.find_kind(kind), name)
    _scaffold.write_distribution(new, tmp_path / "x")
    for arguments in (("check", "--no-cache", "--config", str(ROOT / "pyproject.toml")), ("format", "--check")):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "."],
            cwd=tmp_path / "x",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@given(
    kind=st.sampled_from(KINDS),
    name=st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,5}([-_][A-Za-z0-9]{1,5}){0,3}", fullmatch=True),
)
@example(kind=GENERATOR, name="metric")  # MetricGenerator is the contract's own name
def test_any_name_gives_sound_files(kind: _scaffold.Kind, name: str) -> None:
    try:
        new = _scaffold.new_plugin(kind, name)
    except PluginError:
        return
    texts = {str(path): text for path, text in _scaffold._rendered(new)}
    assert new.class_name.isidentifier()
    assert tomli.loads(texts["pyproject.toml"])["project"]["name"] == new.distribution
    module = ast.parse(texts[f"src/{new.package}/__init__.py"])
    imported = {
        alias.name for node in ast.walk(module) if isinstance(node, ast.ImportFrom | ast.Import) for alias in node.names
    }
    assert new.class_name in {node.name for node in module.body if isinstance(node, ast.ClassDef)}
    assert new.class_name not in imported
    for text in texts.values():
        assert "$" not in text


@pytest.mark.parametrize(
    ("version", "requirement"),
    [
        ("0.1.0", "tracarbon-core>=0.1,<0.2"),
        ("0.1.7", "tracarbon-core>=0.1,<0.2"),
        ("1.9.0", "tracarbon-core>=1.9,<1.10"),
        ("0.2.0.dev3", "tracarbon-core>=0.2.0.dev3,<0.3"),
        ("0.2.0rc1", "tracarbon-core>=0.2.0rc1,<0.3"),
        ("0.2.1+local", "tracarbon-core>=0.2,<0.3"),
    ],
)
def test_the_core_that_is_required(version: str, requirement: str) -> None:
    assert _scaffold.core_requirement(version) == requirement
    assert Requirement(requirement).specifier.contains(version, prereleases=True)

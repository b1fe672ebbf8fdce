"""The page for authors of plugins, followed from top to bottom, and whether it says all that there is to say."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import httpx
import pytest
import tomli
from tracarbon import _pytest_plugin, testing
from tracarbon._states import ComponentState
from tracarbon.exceptions import DeliveryUnknown, ExportError, PermanentExportError, RetryableExportError
from tracarbon.exporters import Batch, MetricKind, Record, Tag, Window
from tracarbon.hardwares.energy import EnergyUsage, Scope
from tracarbon.hooks import Moments
from tracarbon.plugin import PluginContext

from tests.core.test_location_request import refused_address
from tests.pipelines.support import environment, make_distribution, read_records, run
from tests.support import web_server

pytestmark = pytest.mark.once

PAGE = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text("utf-8")
LONGEST_LINES = 60
STANDARD_TESTS = [
    (contract, name)
    for contract in (
        testing.PluginContract,
        testing.SensorContract,
        testing.LocationContract,
        testing.GeneratorContract,
        testing.ExporterContract,
    )
    for name in dir(contract)
    if name.startswith("test_") and (contract is testing.PluginContract or not hasattr(testing.PluginContract, name))
]


class Block(NamedTuple):
    """A block of code, and the file that it belongs to, as the line before it says."""

    language: str
    path: str
    content: str


BLOCKS = [
    Block(language, path or "", content)
    for path, language, content in re.findall(
        r"(?:`([\w./-]+)`:\n\n)?^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    )
]
FILES: dict[str, str] = {}
for block in BLOCKS:
    if block.path:
        FILES[block.path] = FILES.get(block.path, "") + block.content


class Reader:
    """Somebody who does what the page says, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # `tracarbon` and `pytest` are those beside this interpreter.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = environment(PYTHONPATH=str(folder / "src"), PATH=path, PYTEST_ADDOPTS="-W error -rs")
        self.passed: dict[str, int] = {}
        self.said = ""

    def follow(self, block: Block) -> None:
        """Do what a block is there for."""
        if block.path:
            path = self.folder / block.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(block.content)
        elif block.language == "sh":
            for command in block.content.splitlines():
                self.type(command)
        elif block.language == "text":
            missing = [line for line in _alike(block.content) if line not in _alike(self.said)]
            assert not missing, f"{missing} was not said: {self.said}"
        else:
            raise AssertionError(f"this block says neither what to do nor which file it is: {block}")

    def type(self, command: str) -> None:
        """Run a command. What `pip` is to install is here, or laid out as it would."""
        if command == "pip install -e .":
            self.install()
        elif not command.startswith("pip install "):
            done = subprocess.run(
                command,
                shell=True,
                cwd=self.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            self.said = done.stdout
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            if command.startswith("pytest"):
                self.passed[command] = int(re.findall(r"^=+ (\d+) passed in ", done.stdout, re.MULTILINE)[0])

    def install(self) -> None:
        project = tomli.loads((self.folder / "pyproject.toml").read_text())["project"]
        for old in (self.folder / "src").glob("*.dist-info"):
            shutil.rmtree(old)
        make_distribution(
            self.folder / "src",
            project["name"],
            entry_points=project["entry-points"],
            modules={},
            version=project["version"],
            requires=project["dependencies"],
            description=(self.folder / project["readme"]).read_text(),
        )


def _alike(text: str) -> list[str]:
    """Return the lines, with what differs from run to run made alike."""
    return [re.sub(r" +", " ", re.sub(r"\d+", "0", line)) for line in text.splitlines()]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Somebody who has followed the page to its end."""
    reader = Reader(tmp_path_factory.mktemp("example"))
    for block in BLOCKS:
        reader.follow(block)
    return reader


def standard_tests(contract: type[testing.PluginContract]) -> int:
    return sum(name.startswith("test_") for name in dir(contract))


class TestFollowingThePage:
    def test_every_block_is_followed(self, reader: Reader) -> None:
        fences = [line for line in PAGE.splitlines() if line.lstrip().startswith("```")]
        assert len(fences) == 2 * len(BLOCKS)
        for path, content in FILES.items():
            assert (reader.folder / path).read_text() == content

    def test_every_test_of_the_page_passes(self, reader: Reader) -> None:
        assert reader.passed == {
            "pytest tests/test_sensor.py": standard_tests(testing.SensorContract),
            "pytest tests/test_counter.py": standard_tests(testing.SensorContract),
            "pytest tests/test_exporter.py": standard_tests(testing.ExporterContract),
            "pytest tests/test_location.py": standard_tests(testing.LocationContract),
            "pytest tests/test_generator.py": standard_tests(testing.GeneratorContract),
            "pytest tests/test_hook.py": 1,
            "pytest tests/test_card.py": 1,
        }

    def test_each_plugin_has_its_test_and_is_in_a_pipeline(self) -> None:
        entry_points = tomli.loads(FILES["pyproject.toml"])["project"]["entry-points"]
        tests = "".join(content for path, content in FILES.items() if path.startswith("tests/"))
        for group, plugins in entry_points.items():
            for name, target in plugins.items():
                assert target.partition(":")[2] in tests
                assert name == "example_card" or name in FILES["pipeline.toml"], f"{name} of {group}"

    def test_sensor_and_exporter_are_short(self) -> None:
        plugins = [FILES[f"src/example_tracarbon/{name}.py"] for name in ("sensor", "exporter")]
        assert sum(len(plugin.splitlines()) for plugin in plugins) < LONGEST_LINES

    def test_the_whole_pipeline_runs(self, reader: Reader, tmp_path: Path) -> None:
        with receiving() as server:
            pipeline = FILES["pipeline.toml"].replace("http://127.0.0.1:8080", server.url)
            assert pipeline != FILES["pipeline.toml"]
            (tmp_path / "watts.txt").write_text("36.0")
            (tmp_path / "pipeline.toml").write_text(pipeline + '[exporters.json]\npath = "records.jsonl"\n')
            done = run("run", "-c", "pipeline.toml", "--duration", "300ms", cwd=tmp_path, env=reader.environment)
        assert done.status == 0, done.stderr
        posted = {record["name"] for records in server.bodies for record in records}
        written = read_records(tmp_path / "records.jsonl")
        assert {f"tracarbon.{name}" for name in posted} == {record["name"] for record in written}
        assert posted == {"energy_consumption_host", "carbon_emission_host", "energy_cost_host"}
        for name in ("energy_cost_host", "energy_consumption_host"):
            joules = [
                record["value"] * (record["covered_seconds"] if record["kind"] == "rate" else 3.6e6 / 0.3)
                for record in written
                if record["name"] == f"tracarbon.{name}"
            ]
            assert sum(joules) == pytest.approx(36.0 * _seconds(written))
        assert {record["tags"].get("location") for record in written} >= {"contract"}
        journal = (tmp_path / "journal.txt").read_text().splitlines()
        assert sum(line.split()[1] == "example_post" for line in journal) == len(server.bodies)


def _seconds(records: list[dict[str, Any]]) -> float:
    return sum(float(record["covered_seconds"]) for record in records if record["kind"] == "rate")


Respond: TypeAlias = Callable[[web_server.Handler], None]


class Receiver(NamedTuple):
    """Where to post to, and what has arrived there."""

    url: str
    bodies: list[Any]


class _Handler(web_server.Handler):
    """Takes posts, too."""

    def do_POST(self) -> None:
        self.posted = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.respond(self)


@contextmanager
def receiving(respond: Respond | None = None) -> Iterator[Receiver]:
    """Serve on the loopback: take what is posted, or do something else."""
    bodies: list[Any] = []

    def take(handler: web_server.Handler) -> None:
        assert isinstance(handler, _Handler)
        bodies.append(json.loads(handler.posted))
        handler.answer(b"")

    with web_server.serving(respond or take) as server:
        server.RequestHandlerClass = _Handler
        yield Receiver(server.url, bodies)


@pytest.fixture(scope="module")
def exporter_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The page's exporter."""
    path = tmp_path_factory.mktemp("module") / "page_exporter.py"
    path.write_text(FILES["src/example_tracarbon/exporter.py"])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # pydantic looks up what annotations name
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


def a_batch() -> Batch:
    window = Window(0.0, 10.0, 1000.0, 1010.0)
    record = Record("host", 40.0, (Tag("sensor", "kit"),), "watts", MetricKind.RATE, 10.0, "energy", 10.0)
    return Batch.of_window("energy", window, [record])


def refuse(code: int, **headers: str) -> Respond:
    return lambda handler: handler.answer(b"", code, **headers)


def hang_up(handler: web_server.Handler) -> None:
    handler.close_connection = True


FAULTS: dict[str, tuple[Respond, type[ExportError], float | None]] = {
    "too many requests": (refuse(429, Retry_After="7"), RetryableExportError, 7.0),
    "too many requests, until a date": (
        refuse(429, Retry_After="Fri, 31 Dec 1999 23:59:59 GMT"),
        RetryableExportError,
        None,
    ),
    "internal error": (refuse(500), RetryableExportError, None),
    "unavailable": (refuse(503, Retry_After="120"), RetryableExportError, 120.0),
    "bad request": (refuse(400), PermanentExportError, None),
    "not found": (refuse(404), PermanentExportError, None),
    "moved": (refuse(301, Location="http://127.0.0.1/"), PermanentExportError, None),
    "connection closed": (hang_up, DeliveryUnknown, None),
    "no answer": (web_server.hang, DeliveryUnknown, None),
}


class TestThePagesExporter:
    async def test_a_batch_arrives(self, exporter_module: ModuleType) -> None:
        with receiving() as server:
            async with exporter_module.PostExporter(url=server.url) as exporter:
                await exporter.export(a_batch())
        assert server.bodies == [[{"name": "host", "value": 40.0, "tags": {"sensor": "kit"}}]]

    @pytest.mark.parametrize("fault", FAULTS)
    async def test_what_fails_is_told_as_what_it_is(self, exporter_module: ModuleType, fault: str) -> None:
        respond, expected, seconds = FAULTS[fault]
        with receiving(respond) as server:
            async with exporter_module.PostExporter(url=server.url) as exporter:
                if fault == "no answer":
                    exporter.client.timeout = httpx.Timeout(60.0, read=0.3)
                with pytest.raises(ExportError) as raised:
                    await exporter.export(a_batch())
        assert raised.type is expected
        assert getattr(raised.value, "retry_after_seconds", None) == seconds
        assert server.bodies == []

    async def test_without_a_connection_nothing_was_sent(self, exporter_module: ModuleType) -> None:
        async with exporter_module.PostExporter(url=refused_address()) as exporter:
            with pytest.raises(RetryableExportError, match="no connection"):
                await exporter.export(a_batch())


class TestThePageSaysAll:
    """A name that the page does not have is a name that nobody finds."""

    @pytest.mark.parametrize(("contract", "name"), STANDARD_TESTS)
    def test_standard_tests(self, contract: type, name: str) -> None:
        kind = contract.__name__.removesuffix("Contract").lower()
        title = "every plugin" if kind == "plugin" else f"an? {kind}"
        table = re.search(rf"^\| of {title} \| what it wants \|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
        assert table is not None
        assert f"| `{name}` |" in table[1]

    def test_no_other_standard_tests(self) -> None:
        there_are = [name for _, name in STANDARD_TESTS]
        assert sorted(re.findall(r"^\| `(test_\w+)` \|", PAGE, re.MULTILINE)) == sorted(there_are)

    def test_hooks_and_their_arguments(self) -> None:
        rows = re.findall(r"^\| `(tracarbon_\w+)` \| (.*?) \|", PAGE, re.MULTILINE)
        assert {name: tuple(re.findall(r"`(\w+)`", arguments)) for name, arguments in rows} == {
            name: moment.__code__.co_varnames[1:]
            for name, moment in vars(Moments).items()
            if name.startswith("tracarbon_")
        }

    def test_attributes_of_the_context(self) -> None:
        _, _, table = PAGE.partition("### The context\n")
        on_page = re.findall(r"^\| `(\w+)[(`]", table.partition("\n### ")[0], re.MULTILINE)
        context = PluginContext("plugin")
        assert sorted(on_page) == sorted(name for name in dir(context) if not name.startswith("_"))

    def test_states(self) -> None:
        rows = re.findall(r"^\| `(\w+)` \| ", PAGE.partition("### When it fails\n")[2], re.MULTILINE)
        assert [state.value for state in ComponentState] == rows[: len(ComponentState)]

    def test_what_authors_give_to_the_kit(self) -> None:
        contracts = [value for name, value in vars(testing).items() if name.endswith("Contract")]
        for contract in contracts:
            for name in vars(contract):
                assert name.startswith(("_", "test_")) or f"| `{name}(" in PAGE, name

    def test_fixtures(self) -> None:
        fixtures = re.findall(r"^@fixture\ndef (\w+)", inspect.getsource(_pytest_plugin), re.MULTILINE)
        assert len(fixtures) == 5
        assert [name for name in fixtures if f"| `{name}` |" not in PAGE] == []

    @pytest.mark.parametrize(
        "name",
        [
            *(f"`{name}`" for name in Scope.__members__),
            *(f"`{name}`" for name in MetricKind.__members__),
            *(f"`{name}`" for name in EnergyUsage.model_fields if name not in ("unit", "provenance")),
            "`covered_seconds`",
            "`sampling_interval_seconds`",
            "`usage.provenance`",
        ],
    )
    def test_words(self, name: str) -> None:
        assert name in PAGE

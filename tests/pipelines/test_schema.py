"""`tracarbon schema`: what an editor would say of a file by it is what `tracarbon check` says of it."""

from __future__ import annotations

import datetime
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator
from tracarbon._assembly import is_reference, plan
from tracarbon._configuration import LOG_LEVELS, load_configuration
from tracarbon._configuration import RESERVED as RESERVED_KEYS
from tracarbon._discovery import EXPORTER, GENERATOR, HOOK, KINDS, LOCATION, SENSOR, installed_plugins
from tracarbon._document import Problem, dotted, parse_seconds
from tracarbon._schema import pipeline_schema
from tracarbon.exceptions import ConfigurationError

from tests.pipelines.support import Result, environment, make_distribution, run

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
FILES = Path(__file__).parent / "files"
VALID, INVALID, CHECK_ALONE = (
    sorted((FILES / folder).glob("*.toml")) for folder in ("valid", "invalid", "check_alone")
)
REFERENCES = {"ACME_COUNTRY": "FR", "ACME_WATTS": "65", "ACME_COLOR": "never"}


@cache
def schema() -> dict[str, Any]:
    return pipeline_schema()[0]


@cache
def validator() -> Draft202012Validator:
    return Draft202012Validator(schema())


def as_json(value: object) -> Any:
    """Return what TOML says as an editor hands it over: dates and times are texts."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value


def read(file: Path) -> Any:
    return as_json(tomli.loads(file.read_text("utf-8")))


def check(file: Path) -> Result:
    return run("check", "-c", file, cwd=FILES, env=environment(**REFERENCES))


def test_is_valid_itself() -> None:
    Draft202012Validator.check_schema(schema())
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"title", "description", "$comment"} <= schema().keys()


def test_there_are_files() -> None:
    assert len(VALID) >= 8
    assert len(INVALID) >= 25
    assert CHECK_ALONE


@pytest.mark.parametrize("file", VALID, ids=lambda file: file.stem)
def test_valid_for_both(file: Path) -> None:
    assert [error.message for error in validator().iter_errors(read(file))] == []
    result = check(file)
    assert (result.status, result.stderr) == (0, "")


@pytest.mark.parametrize("file", INVALID, ids=lambda file: file.stem)
def test_refused_by_both_at_one_place(file: Path) -> None:
    [error] = validator().iter_errors(read(file))
    result = check(file)
    assert result.status == 2
    head, problem, *_ = result.stderr.splitlines()
    assert head.endswith(": 1 problem")
    place = re.split(r"\s{2,}", problem.strip())[1]
    path = dotted(error.path)  # one may name a table where the other one names what is missing or wrong in it
    assert f"{place}.".startswith(f"{path}.") or f"{path}.".startswith(f"{place}.") or not path


@pytest.mark.parametrize("file", CHECK_ALONE, ids=lambda file: file.stem)
def test_what_check_alone_refuses(file: Path) -> None:
    assert validator().is_valid(read(file))
    assert check(file).status == 2


def test_what_check_alone_takes() -> None:
    said = {"sensors": {"estimate": {"tdp_watts": "65"}}}
    assert verdict_of_core(said) == []
    assert not validator().is_valid(said)


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.toml")), ids=lambda file: file.name)
def test_examples(file: Path) -> None:
    assert [error.message for error in validator().iter_errors(read(file))] == []


def test_older_validators_say_the_same() -> None:
    Draft7Validator.check_schema(schema())
    older = Draft7Validator(schema())
    assert [file.name for file in VALID if not older.is_valid(read(file))] == []
    assert [file.name for file in INVALID if older.is_valid(read(file))] == []


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("unknown_setting", "Additional properties are not allowed ('intervall' was unexpected)"),
            ("log_level_is_unknown", f"'loud' is not one of {list(LOG_LEVELS)}"),
            (
                "location_of_an_unknown_plugin",
                "'moon' is not one of ['aws', 'country', 'electricitymaps', 'static', 'uk']",
            ),
            ("generator_that_is_not_installed", "'plugin' is a required property"),
            ("sensor_without_its_required_option", "'path' is a required property"),
            ("option_is_misspelt", "Additional properties are not allowed ('indnt' was unexpected)"),
            ("option_above_its_maximum", "17 is greater than the maximum of 16"),
            ("option_of_another_type", "'many' is not of type 'number'"),
            ("option_that_is_not_one_of_the_choices", "'pink' is not one of ['auto', 'always', 'never']"),
        ],
    )
    def test_name_what_is_to_blame(self, name: str, message: str) -> None:
        [error] = validator().iter_errors(read(FILES / "invalid" / f"{name}.toml"))
        assert error.message == message


class TestWhatEditorsOffer:
    """Keys and values that editors complete from, without looking into `if`, `then` and `else`."""

    def test_the_tables_of_installed_plugins(self) -> None:
        for section, kind in (("sensors", SENSOR), ("generators", GENERATOR), ("exporters", EXPORTER), ("hooks", HOOK)):
            names = [plugin.name for plugin in installed_plugins(kind)]
            assert list(schema()["properties"][section]["properties"]) == names

    def test_the_options_and_reserved_keys_of_a_table(self) -> None:
        offered = schema()["properties"]["exporters"]["properties"]["json"]
        assert offered["title"] == f"json, from tracarbon-core {version('tracarbon-core')}"
        assert offered["description"].startswith("Write each metric as a record")
        assert list(offered["properties"]) == ["path", "indent", *RESERVED_KEYS[EXPORTER]]
        assert offered["properties"]["path"]["default"] == "tracarbon_export.json"
        assert offered["properties"]["path"]["description"].startswith("the file;")
        assert offered["properties"]["indent"]["anyOf"][0] == {"maximum": 16, "minimum": 0, "type": "integer"}

    def test_no_default_that_toml_cannot_write(self) -> None:
        assert '"default": null' not in json.dumps(schema())

    def test_names_of_plugins(self) -> None:
        for kind in KINDS:
            key = schema()["$defs"][kind.word]["properties"]["plugin"]
            assert key["anyOf"][0]["enum"] == [plugin.name for plugin in installed_plugins(kind)]

    def test_what_is_offered_refuses_nothing(self) -> None:
        offered = schema()["properties"]["exporters"]["properties"]
        for value in ({"path": 5, "indent": "x", "optional": "x", "inputs": 5, "other": 1}, 5):
            assert Draft202012Validator({"properties": offered}).is_valid({"json": value})


# What JSON Schema cannot say, by the core's words.
CHECK_ONLY = re.compile(
    r"no \w+ is named|covers the|is '.*' again: names match|no carbon intensity is known"
    r"|'.*' is too (?:long; at most 1d|short; at least 1ms)"
)


def toml(value: object) -> str:
    """Return a value as TOML writes it in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(key))} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def verdict_of_core(said: Mapping[str, object]) -> list[Problem]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.toml"
        file.write_text("\n".join(f"{toml(key)} = {toml(value)}" for key, value in said.items()), "utf-8")
        try:
            plan(load_configuration(file, {}))
        except ConfigurationError as error:
            return error.problems
    return []


def is_for_check_alone(problem: Problem, said: Any) -> bool:
    """Whether JSON Schema cannot know of a problem: by its kind, or because the value is referred to."""
    if CHECK_ONLY.match(problem.message):
        return True
    value = said
    for key in problem.place.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return is_reference(value)


TEXTS = st.text(st.characters(codec="ascii"), max_size=5) | st.sampled_from(["é", "ß x", "\u2028", "\u00a0", "\u3000"])
NUMBERS = st.integers(-3, 90_000) | st.floats(-3, 90_000) | st.just(math.inf)
# No text here can be read as a number or as a truth value: `check` would convert it.
WRONG = st.sampled_from([[], {}, [1], {"env": 5}, {"env": "A", "file": "b"}, "many", "", -1, 1e9])
GOOD_DURATIONS = st.sampled_from(["15s", "500ms", "1m30s", "1d", "2 h", " 5s ", "5", "1 s\n"]) | st.floats(0.1, 86_400)
DURATIONS = GOOD_DURATIONS | st.one_of(
    st.sampled_from(["0s", "-1s", ".5s", "1s1m", "30h", "0", True, [], {}]),
    st.text("0123456789.dhms -", max_size=8),
    NUMBERS,
)
SENSORS_NAMED = st.lists(st.just("estimate"), min_size=1, max_size=1)
INPUTS = SENSORS_NAMED | st.lists(st.sampled_from(["energy", "carbon", "nothing"]), min_size=1, max_size=2)
REFERENCE = st.sampled_from([{"env": "PATH"}, {"file": str(Path(__file__).with_name("__init__.py"))}])

SECTIONS = {"location": LOCATION, "sensors": SENSOR, "generators": GENERATOR, "exporters": EXPORTER, "hooks": HOOK}
OPTIONS: dict[tuple[str, str], dict[str, st.SearchStrategy[Any]]] = {
    ("location", "country"): {"country": st.sampled_from(["FR", "world", "zz", "deu"]) | REFERENCE},
    ("sensors", "estimate"): {"tdp_watts": NUMBERS | st.floats(1, 5000) | REFERENCE},
    ("sensors", "rapl"): {"path": TEXTS | REFERENCE},
    ("sensors", "acme_file"): {"path": TEXTS | REFERENCE},
    ("sensors", "acme_blocking"): {"seconds": NUMBERS, "answers": st.integers(-3, 3) | st.just(2.0) | st.just(2.5)},
    ("generators", "energy"): {},
    ("generators", "carbon"): {},
    ("generators", "acme_legacy"): {},
    ("exporters", "stdout"): {"color": st.sampled_from(["auto", "always", "never"] * 3 + ["NEVER"])},
    ("exporters", "json"): {"path": TEXTS | REFERENCE, "indent": st.integers(-1, 17) | st.integers(0, 16)},
    ("exporters", "acme_lines"): {"path": TEXTS | REFERENCE},
    ("exporters", "acme_legacy"): {},
    ("hooks", "acme_journal"): {"path": TEXTS | REFERENCE},
}
RESERVED = {"interval": GOOD_DURATIONS, "optional": st.booleans(), "inputs": INPUTS}
WRONG_RESERVED = {
    "interval": DURATIONS,
    "optional": st.sampled_from(["true", 1]),
    "inputs": st.sampled_from([[], "energy", [1]]),
}


def seldom(draw: st.DrawFn) -> bool:
    return draw(st.integers(0, 39)) == 39


def in_any_case(draw: st.DrawFn, name: str) -> str:
    return draw(st.sampled_from([name, name, name, name.upper(), name.title()]))


def options(draw: st.DrawFn, section: str, plugin: str) -> dict[str, object]:
    """Options of a plugin, mostly all of them."""
    return {
        key: draw(WRONG) if seldom(draw) else draw(values)
        for key, values in OPTIONS[section, plugin].items()
        if draw(st.integers(0, 7))
    }


def reserved(draw: st.DrawFn, section: str) -> dict[str, object]:
    """Some of the reserved keys, mostly where they belong."""
    allowed = [key for key in RESERVED_KEYS[SECTIONS[section]] if key != "plugin"]
    keys = RESERVED if seldom(draw) else allowed
    return {
        key: draw(WRONG_RESERVED[key] if seldom(draw) else RESERVED[key])
        for key in keys
        if draw(st.integers(0, 4)) == 4
    }


@st.composite
def tables(draw: st.DrawFn, section: str, plugin: str) -> tuple[str, object]:
    """A table of a plugin with its name; now and then with something that is wrong."""
    if seldom(draw):
        return plugin, draw(WRONG)
    table = options(draw, section, plugin) | reserved(draw, section)
    if seldom(draw):
        table[draw(st.sampled_from(["path", "indent", "color", "pth", "Optional"]))] = draw(TEXTS)
    name = in_any_case(draw, plugin)
    if draw(st.integers(0, 2)) == 2:
        table["plugin"] = name if not seldom(draw) else draw(WRONG)
        others = [other for of, other in OPTIONS if of == section]
        name = draw(st.sampled_from(["mine", *others]))
    return name, table


@st.composite
def pipelines(draw: st.DrawFn) -> dict[str, object]:
    """Whole configurations over the built-in plugins and those of acme."""
    settings = {
        "interval": DURATIONS if seldom(draw) else GOOD_DURATIONS,
        "metric_prefix_name": TEXTS if seldom(draw) else st.sampled_from(["", "acme.machines"]),
        "log_level": st.sampled_from(["info", "DEBUG", "Warning"] * 5 + ["loud", "", 5]),
        "host_root": st.sampled_from(["/"] * 9 + [5]),
        "tags": st.dictionaries(TEXTS, TEXTS | NUMBERS | st.sampled_from([True, []]), max_size=1),
    }
    said: dict[str, object] = {key: draw(values) for key, values in settings.items() if draw(st.integers(0, 4)) == 4}
    if seldom(draw):
        said[draw(st.sampled_from(["intervall", "sensor", "tags"]))] = draw(WRONG)
    if draw(st.booleans()):
        _, said["location"] = draw(tables("location", "country"))
    for section in ("sensors", "generators", "exporters", "hooks"):
        plugins = [plugin for of, plugin in OPTIONS if of == section]
        chosen = draw(st.lists(st.sampled_from(plugins), max_size=2, unique=True))
        if section == "sensors" and not chosen:
            chosen = ["estimate"]  # without any, what works on this machine is looked for
        said[section] = dict(draw(tables(section, plugin)) for plugin in chosen)
    return said


class TestAgreement:
    @given(said=pipelines())
    def test_of_pipelines(self, said: dict[str, object]) -> None:
        problems = verdict_of_core(said)
        errors = [error.message for error in validator().iter_errors(said)]
        refused = [problem for problem in problems if not is_for_check_alone(problem, said)]
        assert bool(errors) == bool(refused), (errors, problems)

    @given(text=st.text("0123456789.dhms -\n", max_size=12) | st.from_regex(r"\A\s*(\d\s*[dhms]+\s*){1,3}\Z"))
    def test_of_durations(self, text: str) -> None:
        try:
            parse_seconds(text)
            refused = False
        except ValueError as error:
            refused = not str(error).endswith(("is too long; at most 1d", "is too short; at least 1ms"))
        assert validator().is_valid({"interval": text}) is not refused

    @given(data=st.data())
    def test_of_names_in_any_case(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from([SENSOR, GENERATOR, EXPORTER, HOOK]))
        plugin = data.draw(st.sampled_from(installed_plugins(kind)))
        name = "".join(character.upper() if data.draw(st.booleans()) else character for character in plugin.name)
        required = schema()["$defs"][f"{kind.word}.{plugin.name}"].get("required", ())
        table: dict[str, object] = {key: {"env": "PATH"} for key in required}
        for said in ({name: table}, {"mine": {"plugin": name, **table}}):
            assert validator().is_valid({f"{kind.word}s": said})
            assert not validator().is_valid({f"{kind.word}s": {key: item | {"foo": 1} for key, item in said.items()}})

    def test_of_the_reserved_keys(self) -> None:
        values = {"plugin": "", "inputs": ["a"], "interval": 1, "optional": True}
        for kind, plugin in ((SENSOR, "estimate"), (LOCATION, "country"), (GENERATOR, "energy"), (EXPORTER, "stdout")):
            for key, value in values.items():
                table = {"plugin": plugin, key: value or plugin}
                said = {"location": table} if kind is LOCATION else {f"{kind.word}s": {plugin: table}}
                assert validator().is_valid(said) is (key in RESERVED_KEYS[kind])


ODD = """
import time, enum
from typing import Annotated, Any, Callable, Optional
import pydantic
from pydantic import BaseModel, ConfigDict, Field
from tracarbon.exporters.exporter import Exporter
from tracarbon.hardwares.sensors import Sensor
print("a plugin that talks when it is imported")

class Base(Exporter):
    @classmethod
    def from_options(cls, options, context):
        return cls()

    async def export(self, batch):
        pass

class Lax(Base):
    class Options(BaseModel):
        size: int = Field(default=1, alias="Size", description="how many")

class Open(Base):
    class Options(BaseModel):
        model_config = ConfigDict(extra="allow")
        size: int = 1

class Colour(enum.Enum):
    RED = "red"

class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    host: str
    port: int = Field(default=80, ge=1)

class Nested(Base):
    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        server: Inner
        others: list[Inner] = []
        colour: Colour | None = None
        labels: dict[str, str] = {}

class Tree(Base):
    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        below: "Optional[Tree.Options]" = None

class Strange(Base):
    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        call: Callable[[], int] | None = None
        size: int = 1

class Formless(Base):
    Options = dict

class Wide(Sensor):
    class Options(BaseModel):
        model_config = ConfigDict(extra="allow")

    async def get_energy_usage(self):
        raise NotImplementedError

    @classmethod
    def from_options(cls, options, context):
        return cls()

class Clash(Wide):
    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        inputs: list[str] = []
"""


@pytest.fixture(scope="module")
def odd_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of distributions whose plugins are out of the ordinary."""
    packages = tmp_path_factory.mktemp("odd") / "packages"
    names = ("Lax", "Open", "Nested", "Tree", "Strange", "Formless", "Missing")
    plugins = {name.lower(): f"odd_plugins:{name}" for name in names}
    make_distribution(
        packages,
        "odd-dist",
        entry_points={
            "tracarbon.exporters": plugins | {"twice": "odd_plugins:Lax", "a+b ~c/{d}": "odd_plugins:Nested"},
            "tracarbon.sensors": {"clash": "odd_plugins:Clash", "wide": "odd_plugins:Wide"},
        },
        modules={"odd_plugins": ODD},
    )
    make_distribution(
        packages,
        "Twin_Dist",
        entry_points={"tracarbon.exporters": {"TWICE": "odd_plugins:Open", "once": "odd_plugins:Lax", "ONCE": "x:Y"}},
        modules={},
    )
    return packages


@pytest.fixture(scope="module")
def odd(odd_packages: Path) -> Result:
    return run("schema", cwd=odd_packages, env=environment(PYTHONPATH=str(odd_packages)))


def odd_tables(exporters: Mapping[str, bool]) -> dict[str, bool]:
    return {f"[sensors.estimate]\n[exporters.{table}\n": valid for table, valid in exporters.items()}


# Whether the file is valid.
ODD_FILES = {
    "[sensors.clash]\n": True,
    "[sensors.clash]\ninputs = ['x']\n": False,
    "[sensors.wide]\nother = 1\n": True,
    "[sensors.wide]\ninputs = ['x']\n": False,
} | odd_tables(
    {
        "lax]\nSize = 2": True,
        "lax]\nsiz = 2": False,
        "open]\nsize = 2\nother = 'x'\ninputs = ['energy']": True,
        "open]\nsize = 'x'": False,
        "nested.server]\nhost = 'a'\nport = 5": True,
        "nested]\nserver = { host = 'a' }\nothers = [{ host = 'b' }]\ncolour = 'red'\nlabels = { a = 'b' }": True,
        "nested]\nserver = { host = 'a', prt = 5 }": False,
        "nested]\nserver = { host = 'a' }\nothers = [{ port = 5 }]": False,
        "nested]\nserver = { host = 'a' }\ncolour = 'green'": False,
        "nested]": False,
        "'a+b ~c/{d}']\nserver = { host = 'a' }": True,
        "'A+B ~C/{D}']\nserver = { host = 'a', port = 0 }": False,
        "mine]\nplugin = 'a+B ~c/{d}'\nserver = { host = 'a' }": True,
        "aab]\nserver = { host = 'a' }": False,
        "tree]\nbelow = { below = {} }": True,
        "tree]\nbelow = { beneath = {} }": False,
        "strange]\nsize = 2\noptional = true": True,
        "strange]\noptional = 'x'": False,
        "formless]": False,
        "missing]": False,
        "twice]": False,
        "mine]\nplugin = 'twice'": False,
        "mine]\nplugin = 'odd-dist:twice'\nSize = 2": True,
        "mine]\nplugin = 'Odd_.Dist:TWICE'\nother = 2": False,
        "mine]\nplugin = 'twin.dist:Twice'\nother = 2": True,
        "'odd-dist:twice']\nSize = 2": True,
        "mine]\nplugin = 'odd-dist:lax'\nsiz = 2": False,
        "mine]\nplugin = 'odd-dist:open'\nsiz = 2": True,
        "mine]\nplugin = 'twin-dist:lax'": False,
        "once]": False,
        "mine]\nplugin = 'twin-dist:once'": False,
    }
)

# `check` of many files in one process, which is quicker than one after another.
CHECK_ALL = """
import sys
from tracarbon.cli import main
for file in sys.argv[1:]:
    try:
        main(["check", "-c", file])
    except SystemExit as end:
        print("status", file, end.code)
"""


@pytest.fixture(scope="module")
def odd_statuses(odd_packages: Path) -> dict[str, str]:
    """The status of `check` for each of the files."""
    files = {f"{number}.toml": content for number, content in enumerate(ODD_FILES)}
    for name, content in files.items():
        (odd_packages / name).write_text(content)
    command = [sys.executable, "-c", CHECK_ALL, *files]
    env = environment(PYTHONPATH=str(odd_packages))
    done = subprocess.run(command, cwd=odd_packages, env=env, capture_output=True, text=True, check=True)
    said = [line.split() for line in done.stdout.splitlines() if line.startswith("status ")]
    return {files[name]: status for _, name, status in said}


class TestOddPlugins:
    def test_the_schema_is_valid_and_all_that_is_printed(self, odd: Result) -> None:
        assert odd.status == 0
        Draft202012Validator.check_schema(json.loads(odd.stdout))

    def test_plugins_that_check_refuses_are_left_out_with_the_reason(self, odd: Result) -> None:
        spoken, *remarks = odd.stderr.splitlines()
        assert spoken == "a plugin that talks when it is imported"
        assert sorted(line.partition("; ")[0].partition(" <")[0] for line in remarks) == [
            "tracarbon: exporter ONCE, from Twin_Dist 1.0.0: left out, Twin_Dist 1.0.0 and Twin_Dist 1.0.0 both have a "
            "exporter named 'ONCE'",
            "tracarbon: exporter formless, from odd-dist 1.0.0: left out, its Options is",
            "tracarbon: exporter missing, from odd-dist 1.0.0: left out, it cannot be imported: AttributeError: module "
            "'odd_plugins' has no attribute 'Missing'",
            "tracarbon: exporter once, from Twin_Dist 1.0.0: left out, Twin_Dist 1.0.0 and Twin_Dist 1.0.0 both have a "
            "exporter named 'once'",
            "tracarbon: exporter strange, from odd-dist 1.0.0: any options are taken, they cannot be described: "
            "PydanticInvalidForJsonSchema: Cannot generate a JsonSchema for core_schema.CallableSchema",
        ]
        names = json.loads(odd.stdout)["$defs"]["exporter"]["properties"]["plugin"]["anyOf"][0]["enum"]
        assert {"lax", "open", "nested", "tree", "strange", "a+b ~c/{d}", "odd-dist:twice"} <= set(names)
        assert not {"formless", "missing", "twice", "once"} & set(names)

    @pytest.mark.parametrize("content", ODD_FILES)
    def test_agreement(self, odd: Result, odd_statuses: Mapping[str, str], content: str) -> None:
        valid = ODD_FILES[content]
        by_schema = Draft202012Validator(json.loads(odd.stdout)).is_valid(as_json(tomli.loads(content)))
        assert (by_schema, odd_statuses[content]) == (valid, "0" if valid else "2")

    def test_an_import_that_hangs_is_left_out(self, tmp_path: Path) -> None:
        make_distribution(
            tmp_path / "packages",
            "hanging-dist",
            entry_points={"tracarbon.exporters": {"hanging": "hanging_plugin:Plugin"}},
            modules={"hanging_plugin": "import threading\nthreading.Event().wait()\n"},
        )
        env = environment(PYTHONPATH=str(tmp_path / "packages"), PATIENCE_SECONDS="8")
        result = run("schema", cwd=tmp_path, env=env)
        assert result.status == 0
        assert result.stderr == (
            "tracarbon: exporter hanging, from hanging-dist 1.0.0: left out, it could not be imported within 8 s\n"
        )
        assert "exporter.json" in json.loads(result.stdout)["$defs"]
        assert "exporter.hanging" not in json.loads(result.stdout)["$defs"]


class TestCommand:
    def test_prints_the_schema_and_nothing_else(self, tmp_path: Path) -> None:
        result = run("schema", cwd=tmp_path)
        assert (result.status, result.stderr) == (0, "")
        assert json.loads(result.stdout) == schema()
        assert run("schema", "-o", "-", cwd=tmp_path).stdout == result.stdout
        assert list(tmp_path.iterdir()) == []

    def test_writes_a_file_anew(self, tmp_path: Path) -> None:
        file, link = tmp_path / "tracarbon.schema.json", tmp_path / "link.json"
        file.write_text("an old one")
        link.symlink_to(file)
        result = run("schema", "--output", link.name, cwd=tmp_path)
        assert (result.status, result.stdout, result.stderr) == (0, "wrote link.json\n", "")
        assert json.loads(file.read_text()) == schema()
        assert link.is_symlink()
        assert sorted(tmp_path.iterdir()) == [link, file]

    def test_writes_to_what_is_no_file(self, tmp_path: Path) -> None:
        result = run("schema", "-o", "/dev/stdout", cwd=tmp_path)
        assert (result.status, result.stderr) == (0, "")
        assert result.stdout.startswith('{\n  "$schema"')

    @pytest.mark.parametrize(
        ("name", "reason"), [("no/such/folder", "No such file or directory"), (".", "Is a directory")]
    )
    def test_says_what_keeps_it_from_writing(self, tmp_path: Path, name: str, reason: str) -> None:
        result = run("schema", "-o", name, cwd=tmp_path)
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr == f"tracarbon: {name} cannot be written: {reason}\n"
        assert list(tmp_path.iterdir()) == []

    def test_leaves_the_old_file_whole_where_it_cannot_write(self, tmp_path: Path) -> None:
        file = tmp_path / "tracarbon.schema.json"
        file.write_text("an old one")
        # A name of the longest kind leaves no room for the draft's, which is longer.
        longest = tmp_path / ("x" * 255)
        longest.write_text("an old one")
        result = run("schema", "-o", longest.name, cwd=tmp_path)
        assert (result.status, longest.read_text()) == (2, "an old one")
        assert "cannot be written: File name too long" in result.stderr

    def test_imports_only_what_it_must(self, tmp_path: Path) -> None:
        result = run("schema", cwd=tmp_path, python=["-X", "importtime"])
        imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
        assert "tracarbon._schema" in imported
        assert not imported & {"jsonschema", "httpx", "dotenv", "trio", "tracarbon.builder"}

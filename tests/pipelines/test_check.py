"""Whatever is wrong with a pipeline is said at once, before anything starts; and the commands beside `run`.

Messages are compared whole: they are what the user has to go by.
"""

import json
import os
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent

import pytest

from tests.pipelines.support import environment, make_distribution, run
from tests.support.hiding import hiding

CORE = f"tracarbon-core {version('tracarbon-core')}"


def check(folder: Path, content: str | bytes, *, env: Mapping[str, str] | None = None) -> str:
    """Return what `check` says on standard error of a file that it refuses."""
    file = folder / "pipeline.toml"
    file.write_bytes(content if isinstance(content, bytes) else dedent(content).lstrip().encode())
    result = run("check", "-c", "pipeline.toml", cwd=folder, env=env)
    assert (result.status, result.stdout) == (2, "")
    return result.stderr


ONE_PROBLEM = {
    "truth for a number": (
        "[exporters.prometheus]\nport = true",
        "line 2  exporters.prometheus.port   should be a number, not true",
        f"prometheus, from tracarbon-exporter-prometheus {version('tracarbon-exporter-prometheus')}",
    ),
    "an interval of nothing": ("interval = 1e-9", "line 1  interval   1e-09 is too short; at least 1ms"),
    "unknown key": ('intervall = "15s"', "line 1  intervall   unknown key; did you mean 'interval'?"),
    "unknown table": ("\n\n[sensor.rapl]", "line 1  sensor   unknown table; did you mean 'sensors'?"),
    "unknown and near nothing": (
        "[zzz]",
        "line 1  zzz   unknown table; the keys and tables are: interval, metric_prefix_name, log_level, host_root, "
        "tags, location, sensors, generators, exporters, hooks",
    ),
    "unknown plugin": (
        "[exporters.screen]\nplugin = 'stdot'",
        "line 1  exporters.screen   no exporter named 'stdot' is installed; did you mean 'stdout'?",
    ),
    "reserved name where it means nothing": (
        "[sensors.estimate]\ninputs = ['x']",
        "line 2  sensors.estimate.inputs   means nothing for a sensor",
    ),
    "unknown option": (
        "[exporters.json]\nindnt = 2",
        "line 2  exporters.json.indnt   unknown option; did you mean 'indent'?",
        f"json, from {CORE}",
    ),
    "unknown option near nothing": (
        "[exporters.json]\ncompression = true",
        "line 2  exporters.json.compression   unknown option; the options are: path, indent",
        f"json, from {CORE}",
    ),
    "option of a plugin without any": (
        "[exporters.acme_stuck]\nfoo = 1",
        "line 2  exporters.acme_stuck.foo   unknown option; it has no options",
        "acme_stuck, from acme-tracarbon 1.0.0",
    ),
    "missing option": (
        "[sensors.acme_file]",
        "line 1  sensors.acme_file   option 'path' is missing and required",
        "acme_file, from acme-tracarbon 1.0.0",
    ),
    "two tables of one name": (
        "[exporters.json]\n[exporters.stdout]\n[exporters.json]",
        "line 3  exporters.json   table declared twice; the first is on line 1",
    ),
    "two keys of one name": (
        "interval = '1s'\ninterval = '2s'",
        "line 2  interval   key declared twice; the first is on line 1",
    ),
    "interval of nothing": ('interval = "0s"', "line 1  interval   '0s' must be more than 0"),
    "negative interval": ('interval = "-15s"', "line 1  interval   '-15s' must be more than 0"),
    "interval of another unit": (
        'interval = "5 parsecs"',
        "line 1  interval   '5 parsecs' has the unknown unit 'parsecs'; use ms, s, m, h or d",
    ),
    "interval without quotes": (
        "interval = 15s",
        "line 1  the line should have ended here (column 14)",
        'text and durations go in quotes, such as interval = "15s"; true and false are lower case',
    ),
    "interval of a component": (
        "[exporters.stdout]\ninterval = '-1s'",
        "line 2  exporters.stdout.interval   '-1s' must be more than 0",
    ),
    "not UTF-8": ("[tags]\nroom = 'caf\udce9'", "line 2  not UTF-8 (byte 0xe9)", "save it as UTF-8"),
    "unknown country": (
        "[location]\ncountry = 'zz'",
        "line 2  location.country   no carbon intensity is known for country 'zz'; give an ISO 3166 code of two or "
        "three letters, or 'world'",
        f"country, from {CORE}",
    ),
    "sensor that is not there as an input": (
        "[generators.energy]\ninputs = ['rapl']\n[sensors.estimate]",
        "line 2  generators.energy.inputs   no sensor is named 'rapl'; the sensors are: estimate",
    ),
    "generator that is not there as an input": (
        "[exporters.stdout]\ninputs = ['enrgy', 'carbon']",
        "line 2  exporters.stdout.inputs   no generator is named 'enrgy'; did you mean 'energy'?",
    ),
    "inputs that name nothing": (
        "[exporters.stdout]\ninputs = []",
        'line 2  exporters.stdout.inputs   has to be a list of names, such as ["energy"]',
    ),
    "two figures of one thing": (
        "[sensors.estimate]\n[sensors.guess]\nplugin = 'estimate'",
        "line 2  sensors.guess   covers the host components, estimated, as sensors.estimate does",
        "keep one of them: the same energy would have two figures",
    ),
    "secret missing in the environment": (
        "[exporters.json]\npath = { env = 'NO_SUCH_VARIABLE' }",
        "line 2  exporters.json.path   the environment variable NO_SUCH_VARIABLE is not set",
        f"json, from {CORE}",
    ),
    "two tables of one name in another case": (
        "[exporters.stdout]\n[exporters.STDOUT]",
        "line 2  exporters.STDOUT   is 'stdout' again: names match in any case",
    ),
    "a host root that is none": (
        "host_root = '/nowhere-at-all'",
        "line 1  host_root   there is no sys or proc in /nowhere-at-all",
    ),
    "a prefix with a blank": (
        "metric_prefix_name = 'a b'",
        "line 1  metric_prefix_name   has to be printable and without blanks, not 'a b'",
    ),
    "a tag that would rule the terminal": (
        '[tags]\nteam = "\\u001b[31m"',
        "line 2  tags.team   name and text of a tag have to be printable, and the name not empty",
    ),
    "secret missing in a file": (
        "[exporters.json]\npath = { file = 'missing.txt' }",
        "line 2  exporters.json.path   missing.txt cannot be read: No such file or directory",
        f"json, from {CORE}",
    ),
}


@pytest.mark.parametrize("case", ONE_PROBLEM)
def test_one_problem(tmp_path: Path, case: str) -> None:
    content, problem, *hints = ONE_PROBLEM[case]
    said = check(tmp_path, dedent(content).lstrip().encode("utf-8", "surrogateescape"))
    assert said == f"pipeline.toml: 1 problem\n  {problem}\n" + "".join(f"          {hint}\n" for hint in hints)


def test_wrong_types(tmp_path: Path) -> None:
    said = check(
        tmp_path,
        """
        interval = true
        metric_prefix_name = 5
        log_level = "loud"
        tags = 5
        generators = ["energy"]
        [location]
        country = 5
        [sensors]
        rapl = true
        [sensors.estimate]
        tdp_watts = "many"
        optional = "yes"
        [exporters.stdout]
        inputs = "energy"
        color = "pink"
        [[exporters.json]]
        [hooks.acme_journal]
        plugin = 5
        path = "journal"
        """,
    )
    assert said == dedent(f"""\
        pipeline.toml: 13 problems
          line 1   interval                     a duration is text such as "15s" or a number of seconds, not True
          line 2   metric_prefix_name           has to be a text, not a number (5)
          line 3   log_level                    no log level 'loud'; there are DEBUG, INFO, WARNING, ERROR, CRITICAL
          line 4   tags                         has to be a table, [tags], not a number (5)
          line 5   generators                   has to hold tables such as [generators.NAME], not a list
          line 7   location.country             input should be a valid string
                   country, from {CORE}
          line 9   sensors.rapl                 has to be a table, [sensors.rapl], not true or false (True)
          line 11  sensors.estimate.tdp_watts   input should be a valid number, unable to parse string as a number
                   estimate, from {CORE}
          line 12  sensors.estimate.optional    has to be true or false, not a text ('yes')
          line 14  exporters.stdout.inputs      has to be a list of names, such as ["energy"]
          line 15  exporters.stdout.color       input should be 'auto', 'always' or 'never'
                   stdout, from {CORE}
          line 16  exporters.json               has to be a table, [exporters.json], not a list
          line 18  hooks.acme_journal.plugin    has to be the name of a plugin, not a number (5)
        """)


def test_several_problems_in_the_order_of_their_lines(tmp_path: Path) -> None:
    content = """
        interval = "0s"

        [exporters.jsn]

        [location]
        country = "zz"
        [sensors.estimate]
        foo = 1
        bar = 2
    """
    expected = dedent(f"""\
        pipeline.toml: 5 problems
          line 1  interval               '0s' must be more than 0
          line 3  exporters.jsn          no exporter named 'jsn' is installed; did you mean 'json'?
          line 6  location.country       no carbon intensity is known for country 'zz'; give an ISO 3166 code of two \
or three letters, or 'world'
                  country, from {CORE}
          line 8  sensors.estimate.foo   unknown option; the options are: tdp_watts
                  estimate, from {CORE}
          line 9  sensors.estimate.bar   unknown option; the options are: tdp_watts
                  estimate, from {CORE}
        """)
    assert check(tmp_path, content) == expected
    result = run("run", "-c", "pipeline.toml", cwd=tmp_path)
    assert (result.status, result.stdout, result.stderr) == (2, "", expected)


class TestFiles:
    def test_missing(self, tmp_path: Path) -> None:
        result = run("check", "-c", "pipeline.toml", cwd=tmp_path)
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr == "pipeline.toml: 1 problem\n  no such file\n  'tracarbon init' writes one\n"

    def test_folder(self, tmp_path: Path) -> None:
        result = run("run", "-c", tmp_path, cwd=tmp_path)
        assert (result.status, result.stderr) == (2, f"{tmp_path}: 1 problem\n  a folder, not a file\n")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_unreadable(self, tmp_path: Path) -> None:
        (tmp_path / "pipeline.toml").touch(mode=0o000)
        result = run("check", "-c", "pipeline.toml", cwd=tmp_path)
        assert (result.status, result.stderr) == (2, "pipeline.toml: 1 problem\n  no permission to read it\n")

    def test_empty_is_the_pipeline_without_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "pipeline.toml").touch()
        result = run("check", "-c", "pipeline.toml", cwd=tmp_path)
        assert result.status == 0
        assert result.stdout.splitlines()[0] == "pipeline.toml: ok"
        assert result.stdout.splitlines()[1:] == run("check", cwd=tmp_path).stdout.splitlines()[1:]

    def test_two_headers_are_a_pipeline(self, tmp_path: Path) -> None:
        (tmp_path / "pipeline.toml").write_text("[sensors.estimate]\n[exporters.json]\n")
        result = run("check", "-c", "pipeline.toml", cwd=tmp_path)
        assert (result.status, result.stderr) == (0, "")
        assert result.stdout == dedent(f"""\
            pipeline.toml: ok
            interval 60 s, prefix tracarbon, log level INFO
              location   location  country, {CORE}
              sensor     estimate  estimate, {CORE}
              generator  energy    energy, {CORE}    devices = 'tagged'
              generator  carbon    carbon, {CORE}
              exporter   json      json, {CORE}      path = 'tracarbon_export.json'
            """)

    def test_secrets_are_not_shown(self, tmp_path: Path) -> None:
        (tmp_path / "pipeline.toml").write_text("[sensors.estimate]\n[exporters.json]\npath = { env = 'HIDDEN' }\n")
        result = run("check", "-c", "pipeline.toml", cwd=tmp_path, env=environment(HIDDEN="s3cret"))
        assert result.status == 0
        assert 'path = { env = "HIDDEN" }' in result.stdout
        assert "s3cret" not in result.stdout + result.stderr


class TestEnvironmentAndCommandLine:
    @pytest.mark.parametrize(
        ("variable", "value", "message"),
        [
            ("TRACARBON_INTERVAL_IN_SECONDS", "0", "'0' must be more than 0"),
            ("TRACARBON_LOG_LEVEL", "loud", "no log level 'loud'; there are DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ],
    )
    def test_variable(self, tmp_path: Path, variable: str, value: str, message: str) -> None:
        result = run("check", cwd=tmp_path, env=environment(**{variable: value}))
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr == f"command line and environment: 1 problem\n  {variable}   {message}\n"

    def test_misspelt_variable_is_worth_a_warning(self, tmp_path: Path) -> None:
        result = run("check", cwd=tmp_path, env=environment(TRACARBON_LOG_LEVL="DEBUG"))
        assert result.status == 0
        assert "unknown variable TRACARBON_LOG_LEVL is ignored; did you mean TRACARBON_LOG_LEVEL?" in result.stderr

    def test_env_file_below_the_environment_and_above_the_file(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("TRACARBON_METRIC_PREFIX_NAME=dotenv\nTRACARBON_INTERVAL_IN_SECONDS=7\n")
        (tmp_path / "pipeline.toml").write_text('metric_prefix_name = "file"\ninterval = "9s"\n[sensors.estimate]\n')
        env = environment(TRACARBON_METRIC_PREFIX_NAME="variable")
        result = run("check", "-c", "pipeline.toml", cwd=tmp_path, env=env)
        assert result.stdout.splitlines()[1] == "interval 7 s, prefix variable, log level INFO"

    def test_a_plugin_that_can_be_installed(self, tmp_path: Path) -> None:
        (tmp_path / "pipeline.toml").write_text("[generators.energy_kubernetes]\n")
        env = environment(TRACARBON_COUNTRY="fr", **hiding("tracarbon-k8s", tmp_path / "hiding"))
        result = run("check", "-c", "pipeline.toml", cwd=tmp_path, env=env)
        assert result.status == 2
        assert "line 1  generators.energy_kubernetes   no generator named 'energy_kubernetes'" in result.stderr
        assert "pip install tracarbon-k8s" in result.stderr

    def test_env_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_bytes(b"A=\xe9\n")
        result = run("check", cwd=tmp_path)
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr == ".env: 1 problem\n  line 1  not UTF-8 (byte 0xe9)\n          save it as UTF-8\n"

    def test_options_are_blamed_and_not_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "pipeline.toml").write_text("[location]\ncountry = 'fr'\n")
        arguments = ("--country", "zz", "--exporter-name", "jsn", "--containers")
        env = environment(**hiding("tracarbon-k8s", tmp_path / "hiding"))
        result = run("run", "-c", "pipeline.toml", *arguments, cwd=tmp_path, env=env)
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr == dedent(f"""\
            pipeline.toml: 4 problems
              --country         no carbon intensity is known for country 'zz'; give an ISO 3166 code of two or three \
letters, or 'world'
              country, from {CORE}
              --containers      no generator named 'energy_kubernetes' is installed
              pip install tracarbon-k8s
              --containers      no generator named 'carbon_kubernetes' is installed
              pip install tracarbon-k8s
              --exporter-name   no exporter named 'jsn' is installed; did you mean 'json'?
            """)


TWIN = """
from tracarbon.hardwares import EnergyUsage, Sensor
from tracarbon.hardwares.energy import Fidelity
from tracarbon.plugin import Probe
class Twin(Sensor):
    fidelity = Fidelity.MEASURED
    async def get_energy_usage(self):
        return EnergyUsage(host_energy_usage=5.0)
    @classmethod
    def probe(cls, context):
        return Probe(works=True, fidelity=cls.fidelity, reason=__name__[:3])
"""
EXTRA = """
from tracarbon.hardwares import EnergyUsage, Sensor
from tracarbon.hardwares.energy import Fidelity, Scope
class Card(Sensor):
    scope, fidelity = Scope.EXTRA, Fidelity.MEASURED
    async def get_energy_usage(self):
        return EnergyUsage(gpu_energy_usage=100.0)
"""
EXPORTER = """
from tracarbon.exporters.exporter import Exporter
class Plugin(Exporter):
    async def export(self, batch):
        pass
"""

PANIC = "class Panic(BaseException): pass\n"

SCHEMALESS = f"""
import pydantic
{PANIC}{EXPORTER}
    class Options(pydantic.BaseModel):
        @classmethod
        def model_json_schema(cls, **how):
            raise Panic("no schema")
"""

UNTIL_IT_IS_SAID = """
import logging, threading
is_said = threading.Event()
class Waiting(logging.Handler):
    def emit(self, record):
        is_said.set()
logging.getLogger("tracarbon").addHandler(Waiting())
assert is_said.wait(60)
"""


class TestBrokenPlugins:
    def said_of(
        self, folder: Path, source: str, *, target: str = "broken_plugin:Plugin", table: str = "", requires: str = ""
    ) -> str:
        """What is said of a pipeline with the exporter `broken` of a distribution with such a module."""
        make_distribution(
            folder / "packages",
            "broken-dist",
            entry_points={"tracarbon.exporters": {"broken": target}},
            modules={"broken_plugin": source},
            requires=[requires] if requires else [],
        )
        env = environment(PYTHONPATH=str(folder / "packages"))
        return check(folder, f"[sensors.estimate]\n[exporters.broken]\n{table}", env=env)

    def expected(self, message: str) -> str:
        return (
            f"pipeline.toml: 1 problem\n  line 2  exporters.broken   {message}\n"
            "          broken, from broken-dist 1.0.0\n"
        )

    def test_import_raises(self, tmp_path: Path) -> None:
        said = self.said_of(tmp_path, "1 / 0\n")
        assert said == self.expected("it cannot be imported: ZeroDivisionError: division by zero")

    def test_import_leaves(self, tmp_path: Path) -> None:
        said = self.said_of(tmp_path, "raise SystemExit(3)\n")
        assert said == self.expected("it cannot be imported: SystemExit: 3")

    def test_import_raises_what_is_no_exception(self, tmp_path: Path) -> None:
        said = self.said_of(tmp_path, PANIC + "raise Panic('index out of bounds')\n")
        assert said == self.expected("it cannot be imported: Panic: index out of bounds")

    def test_module_is_missing(self, tmp_path: Path) -> None:
        said = self.said_of(tmp_path, "", target="no_such_module:Plugin")
        assert said == self.expected("it cannot be imported: ModuleNotFoundError: No module named 'no_such_module'")

    def test_class_is_not_of_its_contract(self, tmp_path: Path) -> None:
        said = self.said_of(tmp_path, "class Plugin: pass\n")
        assert said == self.expected(
            "its entry point gives <class 'broken_plugin.Plugin'>, which is no subclass of tracarbon's Exporter"
        )

    def test_another_core_is_wanted(self, tmp_path: Path) -> None:
        said = self.said_of(tmp_path, EXPORTER, requires="Tracarbon_Core<5,>=4.2")
        installed = version("tracarbon-core")
        assert said == self.expected(
            f"it was made for tracarbon-core <5,>=4.2, and {installed} is installed; pip install --upgrade broken-dist"
        )

    def test_options_are_no_model(self, tmp_path: Path) -> None:
        said = self.said_of(tmp_path, EXPORTER + "    Options = dict\n")
        assert said == self.expected("its Options is <class 'dict'>, which is no pydantic model")

    @pytest.mark.parametrize(("raising", "message"), [("{}['x']", "KeyError: 'x'"), ("raise Panic('no')", "Panic: no")])
    def test_options_cannot_be_checked(self, tmp_path: Path, raising: str, message: str) -> None:
        source = f"""{EXPORTER}
    class Options(pydantic.BaseModel):
        size: int = 1
        @pydantic.field_validator("size", mode="before")
        @classmethod
        def check(cls, value):
            {raising}
"""
        said = self.said_of(tmp_path, f"import pydantic\n{PANIC}{source}", table="size = 5\n")
        assert said == self.expected(f"its options cannot be checked: {message}")

    def test_options_that_would_be_ignored(self, tmp_path: Path) -> None:
        source = f"import pydantic\n{EXPORTER}\n    class Options(pydantic.BaseModel):\n        size: int = 1\n"
        said = self.said_of(tmp_path, source, table="siz = 5\n")
        assert said == (
            "pipeline.toml: 1 problem\n  line 3  exporters.broken.siz   unknown option; did you mean 'size'?\n"
            "          broken, from broken-dist 1.0.0\n"
        )

    @pytest.mark.parametrize("error", ["OSError", "Panic"])
    def test_construction_raises(self, tmp_path: Path, error: str) -> None:
        source = f"""{PANIC}{EXPORTER}
    @classmethod
    def from_options(cls, options, context):
        raise {error}('no')
"""
        assert self.said_of(tmp_path, source) == self.expected(f"{error}: no")

    def test_contract_is_not_fulfilled(self, tmp_path: Path) -> None:
        source = "from tracarbon.hardwares.sensors import Sensor\nclass Plugin(Sensor): pass\n"
        make_distribution(
            tmp_path / "packages",
            "broken-dist",
            entry_points={"tracarbon.sensors": {"broken": "broken_plugin:Plugin"}},
            modules={"broken_plugin": source},
        )
        said = check(tmp_path, "[sensors.broken]\n", env=environment(PYTHONPATH=str(tmp_path / "packages")))
        assert said.startswith(
            "pipeline.toml: 1 problem\n  line 1  sensors.broken   TypeError: Can't instantiate abstract"
        )
        assert "get_energy_usage" in said
        assert said.count("\n") == 3

    def two_of_one_name(self, folder: Path) -> dict[str, str]:
        for name in ("one-dist", "two-dist"):
            module = name.replace("-", "_")
            make_distribution(
                folder / "packages",
                name,
                entry_points={
                    "tracarbon.exporters": {"broken": f"{module}:Plugin"},
                    "tracarbon.sensors": {"twin": f"{module}:Twin"},
                },
                modules={module: f"{EXPORTER}\n{TWIN}"},
            )
        return environment(PYTHONPATH=str(folder / "packages"))

    def test_two_distributions_claim_one_name(self, tmp_path: Path) -> None:
        env = self.two_of_one_name(tmp_path)
        assert check(tmp_path, "[sensors.estimate]\n[exporters.Broken]\n", env=env) == (
            "pipeline.toml: 1 problem\n  line 2  exporters.Broken   one-dist 1.0.0 and two-dist 1.0.0 both have a "
            "exporter named 'Broken'; uninstall one of them, or say which one: plugin = \"one-dist:broken\"\n"
        )

    def test_the_file_says_which_of_two(self, tmp_path: Path) -> None:
        env = self.two_of_one_name(tmp_path)
        for distribution in ("one-dist", "two_dist"):
            text = f'[sensors.estimate]\n[exporters.mine]\nplugin = "{distribution}:Broken"\n'
            (tmp_path / "pipeline.toml").write_text(text)
            checked = run("check", "-c", "pipeline.toml", cwd=tmp_path, env=env)
            assert checked.status == 0
            assert re.search(rf"mine +broken, {distribution.replace('_', '-')} 1\.0\.0", checked.stdout)
        said = check(tmp_path, '[sensors.estimate]\n[exporters.mine]\nplugin = "three:broken"\n', env=env)
        assert "no exporter named 'three:broken' is installed" in said

    def test_one_of_two_is_shown_by_its_full_name(self, tmp_path: Path) -> None:
        shown = run("plugins", "two-dist:twin", cwd=tmp_path, env=self.two_of_one_name(tmp_path))
        assert shown.status == 0
        assert shown.stdout.startswith("sensor twin, from two-dist 1.0.0\n")

    def test_an_import_that_takes_long_is_said(self, tmp_path: Path) -> None:
        make_distribution(
            tmp_path / "packages",
            "slow-dist",
            entry_points={"tracarbon.exporters": {"slow": "slow_plugin:Plugin"}},
            modules={"slow_plugin": UNTIL_IT_IS_SAID + EXPORTER},
        )
        (tmp_path / "pipeline.toml").write_text("[sensors.estimate]\n[exporters.slow]\n")
        env = environment(is_patient=False, PYTHONPATH=str(tmp_path / "packages"))
        checked = run("check", "-c", "pipeline.toml", cwd=tmp_path, env=env)
        assert checked.status == 0
        assert "exporter slow, from slow-dist 1.0.0: its import takes longer than 3 s" in checked.stderr

    def test_of_two_sensors_of_one_name_none_is_taken_and_it_is_said(self, tmp_path: Path) -> None:
        env = self.two_of_one_name(tmp_path)
        claims = "one-dist 1.0.0 and two-dist 1.0.0 both have a sensor named 'twin'"
        remedy = "uninstall one of them, or say which one: plugin"
        doctor, listed = (run(command, cwd=tmp_path, env=env) for command in ("doctor", "plugins"))
        for name in ("one-dist", "two-dist"):
            said = rf'^  {name}:twin +does not work: {claims}\n +{remedy} = "{name}:twin"$'
            assert re.search(said, doctor.stdout, re.M)
            assert re.search(rf'^sensor +twin +{name} +1.0.0 +{claims}; {remedy} = "{name}:twin"$', listed.stdout, re.M)
            shown = run("plugins", f"{name}:twin", cwd=tmp_path, env=env)
            assert shown.stdout.splitlines()[-2] == f'  {claims}; {remedy} = "{name}:twin"'
        done = run("run", "--once", "--interval", "50ms", cwd=tmp_path, env=env)
        assert done.status == 0, done.stderr
        assert "energy_consumption_host" in done.stdout
        assert "twin" not in done.stdout
        assert claims in done.stderr

    def test_energy_of_two_extra_sensors_of_one_name_is_not_counted_twice(self, tmp_path: Path) -> None:
        for name in ("one_card", "two_card"):
            make_distribution(
                tmp_path / "packages",
                name,
                entry_points={"tracarbon.sensors": {"card": f"{name}:Card"}},
                modules={name: EXTRA},
            )
        env = environment(PYTHONPATH=str(tmp_path / "packages"))
        done = run("run", "--once", "--interval", "50ms", cwd=tmp_path, env=env)
        assert done.status == 0, done.stderr
        assert "energy_consumption_gpu" not in done.stdout
        (tmp_path / "pipeline.toml").write_text('[sensors.card]\nplugin = "two_card:card"\n')
        done = run("run", "--once", "--interval", "50ms", "-c", "pipeline.toml", cwd=tmp_path, env=env)
        assert re.search(r"energy_consumption_gpu +100\.0+ watts", done.stdout)

    def test_hook_of_a_moment_that_there_is_not(self, tmp_path: Path) -> None:
        source = (
            "from tracarbon.hooks import hookimpl\nclass Plugin:\n    @hookimpl\n    def tracarbon_begun(self): pass\n"
        )
        make_distribution(
            tmp_path / "packages",
            "broken-dist",
            entry_points={"tracarbon.hooks": {"broken": "broken_plugin:Plugin"}},
            modules={"broken_plugin": source},
        )
        said = check(
            tmp_path, "[sensors.estimate]\n[hooks.broken]\n", env=environment(PYTHONPATH=str(tmp_path / "packages"))
        )
        assert said == (
            "pipeline.toml: 1 problem\n  line 2  hooks.broken   unknown hook 'tracarbon_begun'\n"
            "          broken, from broken-dist 1.0.0\n"
        )

    def test_one_that_hangs_or_was_made_for_another_core_is_listed_with_the_reason(self, tmp_path: Path) -> None:
        make_distribution(
            tmp_path / "packages",
            "broken-dist",
            entry_points={
                "tracarbon.sensors": {"hanging": "hanging_plugin:Plugin", "failing": "failing_plugin:Plugin"},
                "tracarbon.exporters": {"leaving": "leaving_plugin:Plugin"},
            },
            modules={
                "hanging_plugin": "import time\ntime.sleep(3600)\n",
                "failing_plugin": "1 / 0\n",
                "leaving_plugin": "raise SystemExit(3)\n",
            },
        )
        make_distribution(
            tmp_path / "packages",
            "old-dist",
            entry_points={"tracarbon.locations": {"old": "failing_plugin:Plugin"}},
            modules={},
            requires=["tracarbon-core<0.1"],
        )
        env = environment(PYTHONPATH=str(tmp_path / "packages"), PATIENCE_SECONDS="8")
        listed = run("plugins", cwd=tmp_path, env=env)
        assert listed.status == 0
        reasons = {line.split()[1]: line.split(None, 4)[4:] for line in listed.stdout.splitlines()}
        assert reasons["hanging"] == ["its import did not end within 8 s"]
        assert reasons["failing"] == ["it cannot be imported: ZeroDivisionError: division by zero"]
        assert reasons["leaving"] == ["it cannot be imported: SystemExit: 3"]
        assert reasons["old"][0].startswith("it was made for tracarbon-core <0.1, and ")
        assert reasons["estimate"] == reasons["stdout"] == []
        shown = run("plugins", "hanging", cwd=tmp_path, env=env)
        assert shown.stdout == "sensor hanging, from broken-dist 1.0.0\n  its import did not end within 8 s\n"
        doctor = run("doctor", cwd=tmp_path, env=env)
        assert re.search(r"^  hanging +does not work: it did not say within 8 s", doctor.stdout, re.M)
        assert re.search(r"^  old +does not work: it was made for tracarbon-core", doctor.stdout, re.M)
        assert doctor.status == 0

    def test_what_is_no_exception_is_listed_as_any_other_reason(self, tmp_path: Path) -> None:
        make_distribution(
            tmp_path / "packages",
            "broken-dist",
            entry_points={
                "tracarbon.sensors": {"broken": "broken_plugin:Plugin", "probing": "probing_plugin:Twin"},
                "tracarbon.exporters": {"schemaless": "schemaless_plugin:Plugin"},
            },
            modules={
                "broken_plugin": f"{PANIC}raise Panic('index out of bounds')\n",
                "probing_plugin": f"{PANIC}{TWIN.partition('return Probe')[0]}raise Panic('no')\n",
                "schemaless_plugin": SCHEMALESS,
            },
        )
        env = environment(PYTHONPATH=str(tmp_path / "packages"))
        because = "it cannot be imported: Panic: index out of bounds"
        listed, doctor, schema = (run(name, cwd=tmp_path, env=env) for name in ("plugins", "doctor", "schema"))
        assert (listed.status, listed.stderr) == (doctor.status, doctor.stderr) == (0, "")
        assert re.search(rf"^sensor +broken +broken-dist +1\.0\.0 +{because}$", listed.stdout, re.M)
        assert re.search(rf"^  broken +does not work: {because}$", doctor.stdout, re.M)
        assert re.search(r"^  probing +does not work: Panic: no$", doctor.stdout, re.M)
        assert schema.status == 0
        assert [line.partition(" 1.0.0: ")[2] for line in schema.stderr.splitlines()] == [
            f"left out, {because}",
            "any options are taken, they cannot be described: Panic: no schema",
        ]

    def test_an_entry_point_that_names_nothing(self, tmp_path: Path) -> None:
        make_distribution(
            tmp_path / "packages",
            "broken-dist",
            entry_points={"tracarbon.exporters": {"broken": "foo bar!!"}},
            modules={},
        )
        said = check(
            tmp_path,
            "[sensors.estimate]\n[exporters.broken]\n",
            env=environment(PYTHONPATH=str(tmp_path / "packages")),
        )
        assert said == self.expected("its entry point is 'foo bar!!', which has to be MODULE:CLASS")

    def test_a_core_that_is_required_elsewhere_only_keeps_nobody_away(self, tmp_path: Path) -> None:
        make_distribution(
            tmp_path / "packages",
            "choosy-dist",
            entry_points={"tracarbon.exporters": {"choosy": "choosy_plugin:Plugin"}},
            modules={"choosy_plugin": EXPORTER},
            requires=[
                "tracarbon-core>=0.0.1",
                'tracarbon-core>=9; extra == "future"',
                'tracarbon-core>=9; python_version < "3"',
            ],
        )
        shown = run("plugins", "choosy", cwd=tmp_path, env=environment(PYTHONPATH=str(tmp_path / "packages")))
        assert shown.stdout.startswith("exporter choosy, from choosy-dist 1.0.0\n")
        assert "it was made for" not in shown.stdout

    def test_one_broken_plugin_does_not_keep_others_from_the_list(self, tmp_path: Path) -> None:
        make_distribution(
            tmp_path / "packages",
            "broken-dist",
            entry_points={"tracarbon.sensors": {"broken": "broken_plugin:Plugin"}},
            modules={"broken_plugin": "1 / 0\n"},
        )
        env = environment(PYTHONPATH=str(tmp_path / "packages"))
        doctor = run("doctor", cwd=tmp_path, env=env)
        assert doctor.status == 0
        assert re.search(r"^  broken +does not work: it cannot be imported: ZeroDivisionError", doctor.stdout, re.M)
        assert re.search(r"^  estimate +works, estimated: ", doctor.stdout, re.M)
        listed = run("plugins", "broken", cwd=tmp_path, env=env)
        assert listed.status == 0
        assert listed.stdout == (
            "sensor broken, from broken-dist 1.0.0\n  it cannot be imported: ZeroDivisionError: division by zero\n"
        )
        assert run("run", "--once", "--interval", "50ms", cwd=tmp_path, env=env).status == 0


class TestTalkativePlugins:
    @pytest.fixture
    def env(self, tmp_path: Path) -> dict[str, str]:
        source = """
from tracarbon.hardwares import EnergyUsage, Sensor
print("here I am")
class Undescribed(Sensor):
    size: int = 1
    async def get_energy_usage(self):
        return EnergyUsage()
"""
        make_distribution(
            tmp_path / "packages",
            "talkative-dist",
            entry_points={"tracarbon.sensors": {"talkative": "talkative_plugin:Undescribed"}},
            modules={"talkative_plugin": source},
        )
        return environment(PYTHONPATH=str(tmp_path / "packages"))

    @pytest.mark.parametrize("command", [("plugins",), ("plugins", "talkative"), ("doctor",), ("init", "-o", "-")])
    def test_what_they_print_when_they_are_imported_is_no_part_of_the_answer(
        self, tmp_path: Path, env: dict[str, str], command: tuple[str, ...]
    ) -> None:
        done = run(*command, cwd=tmp_path, env=env)
        assert done.status == 0
        assert "talkative" in done.stdout
        assert "here I am" not in done.stdout
        assert done.stderr == "here I am\n"

    def test_a_class_without_a_docstring_has_no_description(self, tmp_path: Path, env: dict[str, str]) -> None:
        shown = run("plugins", "talkative", cwd=tmp_path, env=env)
        assert shown.stdout == "sensor talkative, from talkative-dist 1.0.0\n  no options\n"
        schema = json.loads(run("schema", cwd=tmp_path, env=env).stdout)
        assert schema["$defs"]["sensor.talkative"]["description"] == ""


class TestOtherCommands:
    def test_plugins(self, tmp_path: Path) -> None:
        result = run("plugins", cwd=tmp_path)
        assert (result.status, result.stderr) == (0, "")
        rows = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
        assert [row[0] for row in rows] == sorted(
            (row[0] for row in rows), key=["sensor", "location", "generator", "exporter", "hook"].index
        )
        rows = [[word for column in row for word in column.split()] for row in rows]
        assert ["sensor", "rapl", "tracarbon-sensor-rapl", version("tracarbon-sensor-rapl")] in rows
        assert ["hook", "acme_journal", "acme-tracarbon", "1.0.0"] in rows

    def test_options_of_one(self, tmp_path: Path) -> None:
        result = run("plugins", "JSON", cwd=tmp_path)
        assert (result.status, result.stderr) == (0, "")
        head, summary, columns, *options = result.stdout.splitlines()
        assert head == f"exporter json, from {CORE}"
        assert summary.startswith("  Write each metric as a record to a local file")
        assert columns.split() == ["option", "type", "default", "what", "it", "does"]
        assert [line.split()[0] for line in options] == ["path", "indent"]

    def test_types_of_options_are_short(self, tmp_path: Path) -> None:
        said = run("plugins", "prometheus", cwd=tmp_path).stdout
        assert re.search(r"^  password +secret \| None +None ", said, re.MULTILINE)
        assert re.search(r"^  push_grouping +dict\[str, str\] +{} ", said, re.MULTILINE)

    def test_options_of_none(self, tmp_path: Path) -> None:
        result = run("plugins", "jsn", cwd=tmp_path)
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr == "tracarbon: no plugin named 'jsn' is installed; did you mean 'json'?\n"

    def test_list_exporters(self, tmp_path: Path) -> None:
        result = run("list-exporters", cwd=tmp_path)
        assert (result.status, result.stderr) == (0, "")
        assert {"json", "stdout", "acme_lines"} <= set(result.stdout.split())

    def test_doctor(self, tmp_path: Path) -> None:
        result = run("doctor", "--host-root", tmp_path, cwd=tmp_path)
        assert (result.status, result.stderr) == (0, "")
        assert re.search(
            rf"^  rapl +does not work: {tmp_path}/sys/class/powercap does not exist: no energy counters here$",
            result.stdout,
            re.M,
        )
        assert re.search(r"^  country +works: World, \d+ g/kWh, ", result.stdout, re.M)

    def test_version_and_help(self, tmp_path: Path) -> None:
        assert run("--version", cwd=tmp_path).stdout == f"tracarbon {version('tracarbon-core')}\n"
        result = run("--help", cwd=tmp_path)
        assert (result.status, result.stderr) == (0, "")
        for command in ("run", "check", "plugins", "list-exporters", "doctor", "init"):
            assert re.search(rf"^    {command}\s", result.stdout, re.M)
            assert run(command, "--help", cwd=tmp_path).status == 0

    def test_unknown_command(self, tmp_path: Path) -> None:
        result = run("runn", cwd=tmp_path)
        assert (result.status, result.stdout) == (2, "")
        assert "invalid choice: 'runn'" in result.stderr


class TestInit:
    def test_writes_what_passes_the_check(self, tmp_path: Path) -> None:
        result = run("init", cwd=tmp_path)
        assert (result.status, result.stderr) == (0, "")
        assert result.stdout == "wrote pipeline.toml; run it with: tracarbon run -c pipeline.toml\n"
        text = (tmp_path / "pipeline.toml").read_text()
        assert re.search(r"^\[sensors.estimate\] +# estimated: ", text, re.M)
        assert re.search(r"^# \[sensors.rapl\] +# does not work here: ", text, re.M)
        checked = run("check", "-c", "pipeline.toml", cwd=tmp_path)
        assert (checked.status, checked.stdout.splitlines()[0]) == (0, "pipeline.toml: ok")

    def test_passes_the_check_with_every_comment_taken_out(self, tmp_path: Path) -> None:
        """What is offered in comments is right as well, but for plugins that have to be told more."""
        run("init", cwd=tmp_path)
        lines = (tmp_path / "pipeline.toml").read_text().splitlines()
        offered = [line.removeprefix("# ") if re.match(r"# (\[tags|\w+ = )", line) else line for line in lines]
        (tmp_path / "all.toml").write_text("\n".join(offered))
        result = run("check", "-c", "all.toml", cwd=tmp_path)
        assert (result.status, result.stderr) == (0, "")
        assert "tags cluster=prod-1" in result.stdout

    def test_leaves_an_existing_file_alone(self, tmp_path: Path) -> None:
        (tmp_path / "pipeline.toml").write_text("mine")
        result = run("init", cwd=tmp_path)
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr == ("tracarbon: pipeline.toml exists and is left alone; -o FILE writes to another one\n")
        assert (tmp_path / "pipeline.toml").read_text() == "mine"

    def test_folder_that_is_not_there(self, tmp_path: Path) -> None:
        result = run("init", "-o", "missing/pipeline.toml", cwd=tmp_path)
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr == "tracarbon: missing/pipeline.toml cannot be written: No such file or directory\n"

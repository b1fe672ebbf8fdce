"""What the user wants to run: the command line over the environment over `pipeline.toml` over the defaults.

This module knows the shape of the file, not the plugins that it names; those are looked at in `_assembly`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracarbon._discovery import EXPORTER, GENERATOR, HOOK, LOCATION, SENSOR, Kind
from tracarbon._document import Document, Problem, dotted, nearest, parse_seconds, read_document
from tracarbon._text import has_gaps
from tracarbon.exceptions import ConfigurationError

DEFAULT_INTERVAL_SECONDS = 60.0
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

SECTIONS = {"sensors": SENSOR, "generators": GENERATOR, "exporters": EXPORTER, "hooks": HOOK}
_SETTINGS = ("interval", "metric_prefix_name", "log_level", "host_root")
_TOP_LEVEL = (*_SETTINGS, "tags", "location", *SECTIONS)
LIVE_LOCATIONS = ("country", "aws")
RESERVED = {
    SENSOR: ("plugin", "interval", "optional"),
    LOCATION: ("plugin", "optional"),
    GENERATOR: ("plugin", "inputs", "interval", "optional"),
    EXPORTER: ("plugin", "inputs", "interval", "optional"),
    HOOK: ("plugin", "optional"),
}
RESERVED_WORDS = ("plugin", "inputs", "interval", "optional")


@dataclass(slots=True)
class Table:
    """One component as the user wrote it.

    Attributes:
        path: where it is in the file, such as `("sensors", "gpu")`.
        name: the instance.
        plugin: the plugin's name.
        options: what is left for the plugin.
        inputs: names of what it reads; `None` for everything upstream.
        said_by: the variable or the option of the command line that it is from, where it is not from the file.
    """

    kind: Kind
    path: tuple[str, ...]
    name: str
    plugin: str
    options: dict[str, Any] = field(default_factory=dict)
    inputs: list[str] | None = None
    interval_seconds: float | None = None
    optional: bool = False
    said_by: str = ""


@dataclass(slots=True)
class Overrides:
    """What the command line says; `None` where it says nothing."""

    interval_seconds: float | None = None
    country: str | None = None
    exporters: Sequence[str] = ()
    containers: bool = False
    log_level: str | None = None


class Problems:
    """Everything that is wrong, collected so that all of it is said at once."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._problems: list[Problem] = []

    def add(self, path: Sequence[str | int], message: str, hint: str = "") -> None:
        """Note a problem with the key at `path`."""
        self._problems.append(Problem(self._document.line_of(*path) if path else None, dotted(path), message, hint))

    def add_for(self, table: Table, keys: Sequence[str | int], message: str, hint: str = "") -> None:
        """Note a problem with a table, or with a key in it, wherever the user wrote it."""
        if table.said_by:
            self.add_setting(table.said_by, message, hint)
        else:
            self.add((*table.path, *keys), message, hint)

    def add_setting(self, place: str, message: str, hint: str = "") -> None:
        """Note a problem with a variable or an option of the command line."""
        self._problems.append(Problem(None, place, message, hint))

    def raise_if_any(self) -> None:
        """Raise `ConfigurationError` with all of them."""
        if self._problems:
            raise ConfigurationError(self._document.source, self._problems)


@dataclass(slots=True)
class Configuration:
    """A whole pipeline as the user wants it, not yet checked against the plugins."""

    problems: Problems
    source: str = "defaults"
    interval_seconds: float = DEFAULT_INTERVAL_SECONDS
    metric_prefix_name: str = "tracarbon"
    log_level: str = "INFO"
    host_root: Path = Path("/")
    tags: dict[str, str] = field(default_factory=dict)
    location: Table | None = None
    is_location_open: bool = False
    sensors: list[Table] = field(default_factory=list)
    generators: list[Table] = field(default_factory=list)
    exporters: list[Table] = field(default_factory=list)
    hooks: list[Table] = field(default_factory=list)


def load_configuration(
    file: Path | None, environment: Mapping[str, str], overrides: Overrides | None = None
) -> Configuration:
    """Read the file, if there is one, and lay the environment and the command line over it.

    Problems are collected in the result, for those of the plugins to be added.

    Raises:
        ConfigurationError: the file cannot be read at all.
    """
    document = read_document(file) if file is not None else Document("", "command line and environment", {})
    configuration = _from_document(document)
    _apply_environment(configuration, environment)
    _apply_overrides(configuration, overrides or Overrides())
    _check_host_root(configuration)
    _complete(configuration)
    _apply_live_service(configuration, environment)
    return configuration


def _check_host_root(configuration: Configuration) -> None:
    if not any(
        (configuration.host_root / name).is_dir() for name in ("sys", "proc")
    ) and configuration.host_root != Path("/"):
        configuration.problems.add(("host_root",), f"there is no sys or proc in {configuration.host_root}")


def _from_document(document: Document) -> Configuration:
    problems = Problems(document)
    configuration = Configuration(problems, source=document.source)
    for key, value in document.data.items():
        if key in _SETTINGS:
            _read_setting(configuration, key, value)
        elif key == "tags":
            _read_tags(configuration, value)
        elif key == "location":
            configuration.location = _read_table(problems, LOCATION, ("location",), value, default_plugin="country")
        elif key in SECTIONS:
            setattr(configuration, key, _read_section(problems, key, value))
        else:
            meant = nearest(key, _TOP_LEVEL)
            hint = f"; did you mean '{meant}'?" if meant else f"; the keys and tables are: {', '.join(_TOP_LEVEL)}"
            problems.add((key,), f"unknown {'table' if isinstance(value, dict) else 'key'}{hint}")
    return configuration


def _read_setting(configuration: Configuration, key: str, value: object) -> None:
    problems = configuration.problems
    if key == "interval":
        configuration.interval_seconds = _seconds(problems, (key,), value) or DEFAULT_INTERVAL_SECONDS
    elif not isinstance(value, str):
        problems.add((key,), f"has to be a text, not {_type_of(value)}")
    elif key == "metric_prefix_name":
        configuration.metric_prefix_name = value
        try:
            parse_prefix(value)
        except ValueError as error:
            problems.add((key,), str(error))
    elif key == "host_root":
        configuration.host_root = Path(value)
    else:
        try:
            configuration.log_level = parse_log_level(value)
        except ValueError as error:
            problems.add((key,), str(error))


def _read_tags(configuration: Configuration, value: object) -> None:
    if not isinstance(value, dict):
        configuration.problems.add(("tags",), f"has to be a table, [tags], not {_type_of(value)}")
        return
    for key, tag in value.items():
        if not (key and f"{key}{tag}".isprintable()):
            configuration.problems.add(
                ("tags", key), "name and text of a tag have to be printable, and the name not empty"
            )
        elif isinstance(tag, str | int | float) and not isinstance(tag, bool):
            configuration.tags[key] = str(tag)
        else:
            configuration.problems.add(("tags", key), f"has to be a text, not {_type_of(tag)}")


def _read_section(problems: Problems, section: str, value: object) -> list[Table]:
    kind = SECTIONS[section]
    if not isinstance(value, dict):
        problems.add((section,), f"has to hold tables such as [{section}.NAME], not {_type_of(value)}")
        return []
    names: dict[str, str] = {}
    for name in value:
        if names.setdefault(name.casefold(), name) != name:
            problems.add((section, name), f"is '{names[name.casefold()]}' again: names match in any case")
    tables = (_read_table(problems, kind, (section, name), table, default_plugin=name) for name, table in value.items())
    return [table for table in tables if table is not None]


def _read_table(
    problems: Problems, kind: Kind, path: tuple[str, ...], value: object, *, default_plugin: str
) -> Table | None:
    if not isinstance(value, dict):
        problems.add(path, f"has to be a table, [{dotted(path)}], not {_type_of(value)}")
        return None
    table = Table(kind, path, name=path[-1], plugin=default_plugin)
    for key, item in value.items():
        if key in RESERVED[kind]:
            _read_reserved(problems, table, key, item)
        elif key in RESERVED_WORDS:
            problems.add((*path, key), f"means nothing for a {kind.word}")
        else:
            table.options[key] = item
    return table


def _read_reserved(problems: Problems, table: Table, key: str, value: object) -> None:
    path = (*table.path, key)
    if key == "interval":
        table.interval_seconds = _seconds(problems, path, value)
    elif key == "optional":
        if isinstance(value, bool):
            table.optional = value
        else:
            problems.add(path, f"has to be true or false, not {_type_of(value)}")
    elif key == "plugin":
        if isinstance(value, str) and value:
            table.plugin = value
        else:
            problems.add(path, f"has to be the name of a plugin, not {_type_of(value)}")
    elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        table.inputs = value
    else:
        problems.add(path, 'has to be a list of names, such as ["energy"]')


def _seconds(problems: Problems, path: Sequence[str], value: object) -> float | None:
    try:
        return parse_seconds(value)
    except ValueError as error:
        problems.add(path, str(error))
        return None


def _type_of(value: object) -> str:
    words = {dict: "a table", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    shown = f" ({value!r})" if isinstance(value, str | int | float) else ""
    return words.get(type(value), type(value).__name__) + shown


def _apply_environment(configuration: Configuration, environment: Mapping[str, str]) -> None:
    problems = configuration.problems
    for variable, value in environment.items():
        if variable == "TRACARBON_INTERVAL_IN_SECONDS":
            try:
                configuration.interval_seconds = parse_seconds(value)
            except ValueError as error:
                problems.add_setting(variable, str(error))
        elif variable == "TRACARBON_METRIC_PREFIX_NAME":
            configuration.metric_prefix_name = value
            try:
                parse_prefix(value)
            except ValueError as error:
                problems.add_setting(variable, str(error))
        elif variable == "TRACARBON_HOST_ROOT":
            configuration.host_root = Path(value)
        elif variable == "TRACARBON_COUNTRY":
            configuration.location = _country_table(value, variable)
        elif variable == "TRACARBON_LOG_LEVEL":
            _set_log_level(configuration, variable, value)


def _apply_live_service(configuration: Configuration, environment: Mapping[str, str]) -> None:
    """A key for a live carbon intensity in the environment is for the locations that take one, whoever named them."""
    location = configuration.location
    if "TRACARBON_CO2SIGNAL_API_KEY" in environment and location is not None and location.plugin in LIVE_LOCATIONS:
        for option in ("co2signal_api_key", "co2signal_url"):
            variable = f"TRACARBON_{option.upper()}"
            if variable in environment:
                location.options[option] = environment[variable]


def parse_prefix(value: str) -> str:
    """Return a prefix of metric names.

    Raises:
        ValueError: it is not printable, or has blanks.
    """
    if has_gaps(value):
        raise ValueError(f"has to be printable and without blanks, not {value!r}")
    return value


def parse_log_level(value: str) -> str:
    """Return a log level in upper case.

    Raises:
        ValueError: there is no such level; says which there are.
    """
    if value.upper() not in LOG_LEVELS:
        raise ValueError(f"no log level {value!r}; there are {', '.join(LOG_LEVELS)}")
    return value.upper()


def _set_log_level(configuration: Configuration, place: str, value: str) -> None:
    try:
        configuration.log_level = parse_log_level(value)
    except ValueError as error:
        configuration.problems.add_setting(place, str(error))


def _country_table(country: str, said_by: str) -> Table:
    return Table(
        LOCATION, ("location",), name="location", plugin="country", options={"country": country}, said_by=said_by
    )


def _apply_overrides(configuration: Configuration, overrides: Overrides) -> None:
    if overrides.interval_seconds is not None:
        configuration.interval_seconds = overrides.interval_seconds
    if overrides.country is not None:
        configuration.location = _country_table(overrides.country, "--country")
    if overrides.log_level is not None:
        _set_log_level(configuration, "--log-level", overrides.log_level)
    if overrides.exporters:
        configuration.exporters = _named_exporters(configuration.exporters, overrides.exporters)
    if overrides.containers:
        configuration.generators = configuration.generators or _default_generators()
        written = {table.plugin.rpartition(":")[2].casefold() for table in configuration.generators}
        configuration.generators += [
            Table(GENERATOR, ("generators", name), name, name, said_by="--containers")
            for name in ("energy_kubernetes", "carbon_kubernetes")
            if name not in written
        ]


def _named_exporters(in_file: Sequence[Table], names: Sequence[str]) -> list[Table]:
    """Return the exporters of the command line, each once; one that the file sets up keeps its options there."""
    written = {table.name.casefold(): table for table in in_file}
    named = {name.casefold(): name for name in reversed(names)}
    return [
        written.get(key, Table(EXPORTER, ("exporters", name), name, name, said_by="--exporter-name"))
        for key, name in reversed(named.items())
    ]


def _default_generators() -> list[Table]:
    return [Table(GENERATOR, ("generators", name), name, name) for name in ("energy", "carbon")]


def _complete(configuration: Configuration) -> None:
    """Fill in what was not said. Sensors are left out: the best is found by probing, as may a better location be."""
    if configuration.location is None:
        configuration.is_location_open = True
        configuration.location = Table(LOCATION, ("location",), name="location", plugin="country")
    if not configuration.generators:
        configuration.generators = _default_generators()
    if not configuration.exporters:
        configuration.exporters = [Table(EXPORTER, ("exporters", "stdout"), "stdout", "stdout")]

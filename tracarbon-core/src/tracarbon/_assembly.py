"""From a configuration to a pipeline ready to run: plugins are found, their options checked, and all is wired up."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tracarbon._clock import Clock
from tracarbon._configuration import LIVE_LOCATIONS, Configuration, Problems, Table
from tracarbon._discovery import (
    HOOK,
    LOCATION,
    SENSOR,
    InstalledPlugin,
    find_plugin,
    load_class,
    load_plugin,
    not_installed,
)
from tracarbon._document import nearest
from tracarbon._pipeline import Pipeline
from tracarbon._probing import Probed, default_context, no_sensor_works, working_location, working_sensors
from tracarbon._watch import is_interrupt
from tracarbon.exceptions import PluginError, TracarbonException
from tracarbon.exporters.exporter import Exporter, MetricGenerator
from tracarbon.hardwares.energy import Scope
from tracarbon.hardwares.sensors import Sensor
from tracarbon.locations.location import Location
from tracarbon.metrics import Tag
from tracarbon.plugin import Plugin, PluginContext, PluginOptions, platform_name

if TYPE_CHECKING:
    from tracarbon.hooks import HookDispatcher

logger = logging.getLogger("tracarbon")

_SLOW_IMPORT_SECONDS = 3.0


@dataclass(slots=True)
class Resolved:
    """A table with the plugin that it names and its options checked."""

    table: Table
    plugin: InstalledPlugin
    loaded: Any
    options: BaseModel


@dataclass(slots=True)
class Plan:
    """A configuration checked against the installed plugins: what would run."""

    configuration: Configuration
    location: Resolved
    sensors: list[Resolved]
    generators: list[Resolved]
    exporters: list[Resolved]
    hooks: list[Resolved]


def plan(configuration: Configuration) -> Plan:
    """Check a configuration against the installed plugins. Constructs nothing.

    Raises:
        ConfigurationError: with every problem at once.
    """
    unused: list[Probed] = []
    if not configuration.sensors:
        configuration.sensors, unused = _found_sensors(configuration)
        if configuration.is_location_open:
            unused += _look_for_location(configuration)
    sensors = _resolve_all(configuration, configuration.sensors)
    location = _resolve(configuration, configuration.location) if configuration.location else None
    generators = _resolve_all(configuration, configuration.generators)
    exporters = _resolve_all(configuration, configuration.exporters)
    hooks = _resolve_all(configuration, configuration.hooks)
    _check_inputs(configuration)
    _check_overlap(configuration, sensors)
    configuration.problems.raise_if_any()
    for item in unused:
        plugin, probe = item.plugin, item.probe
        logger.info("%s %s is not used: %s. %s", plugin.kind.word, plugin.name, probe.reason, probe.remedy)
    assert location is not None
    return Plan(configuration, location, sensors, generators, exporters, hooks)


def assemble(plan: Plan, *, clock: Clock | None = None) -> Pipeline:
    """Construct every plugin of a plan and wire them up. No plugin does I/O yet.

    Raises:
        ConfigurationError: plugins that refuse their options only now.
    """
    return _Assembler(plan, clock).assemble()


def best_sensor(platform: str | None = None) -> Sensor:
    """Return the best installed sensor that works on this machine, with its default options.

    Raises:
        TracarbonException: none works; says why for each.
    """
    if platform is not None and platform != platform_name():
        raise TracarbonException(f"a sensor for {platform} cannot be probed on {platform_name()}")
    found, probed = working_sensors(Path("/"))
    if not found:
        raise TracarbonException(no_sensor_works(probed))
    best = found[0]
    return best.make_sensor(default_context(SENSOR, best.plugin.name, Path("/")))


def _found_sensors(configuration: Configuration) -> tuple[list[Table], list[Probed]]:
    """Return the sensors to use, and those that the user could make work."""
    found, probed = working_sensors(configuration.host_root)
    if not found:
        configuration.problems.add_setting("sensors", no_sensor_works(probed))
    plugins = [item.plugin for item in found]
    return [Table(SENSOR, ("sensors", it.name), it.name, it.reference) for it in plugins], _mendable(probed)


def _mendable(probed: Iterable[Probed]) -> list[Probed]:
    """Return those that do not work here, and for which something could be done."""
    return [item for item in probed if not item.probe.works and item.probe.remedy]


def _look_for_location(configuration: Configuration) -> list[Probed]:
    """Take a location that knows more of this machine, in place of the country by its time zone.

    Returns those that might have.
    """
    found, probed = working_location(configuration.host_root)
    if found is not None and configuration.location is not None:
        name, reference = found.plugin.name, found.plugin.reference
        options = configuration.location.options if name in LIVE_LOCATIONS else {}
        configuration.location = Table(LOCATION, ("location",), "location", reference, options=options)
    return _mendable(probed) if found is None else []


def _resolve_all(configuration: Configuration, tables: Sequence[Table]) -> list[Resolved]:
    resolved = (_resolve(configuration, table) for table in tables)
    return [item for item in resolved if item is not None]


def _resolve(configuration: Configuration, table: Table) -> Resolved | None:
    problems = configuration.problems
    plugin: InstalledPlugin | None = None
    try:
        plugin = find_plugin(table.kind, table.plugin)
        if plugin is None:
            problems.add_for(table, (), *not_installed(table.kind, table.plugin))
            return None
        with _slow_import_is_said(plugin):
            loaded = load_plugin(plugin) if table.kind is HOOK else load_class(plugin)
    except PluginError as error:
        problems.add_for(table, (), str(error), plugin.origin if plugin else "")
        return None
    model = getattr(loaded, "Options", PluginOptions)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        problems.add_for(table, (), f"its Options is {model!r}, which is no pydantic model", plugin.origin)
        return None
    options = _validated(configuration, table, model, plugin)
    return Resolved(table, plugin, loaded, options) if options is not None else None


@contextmanager
def _slow_import_is_said(plugin: InstalledPlugin) -> Iterator[None]:
    message = f"{plugin.kind.word} {plugin.origin}: its import takes longer than {_SLOW_IMPORT_SECONDS:g} s"
    timer = threading.Timer(_SLOW_IMPORT_SECONDS, logger.warning, (message,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _validated(
    configuration: Configuration, table: Table, model: type[BaseModel], plugin: InstalledPlugin
) -> BaseModel | None:
    problems = configuration.problems
    given = {}
    for key, value in table.options.items():
        try:
            given[key] = value if _is_table(model, key) else _revealed(value)
        except (OSError, UnicodeDecodeError, LookupError) as error:
            problems.add_for(table, (key,), _why_not_revealed(error), plugin.origin)
            return None
    unknown = _ignored_options(model, given)
    for key in unknown:
        problems.add_for(table, (key,), _unknown_option(model, key), plugin.origin)
    try:
        options = model.model_validate(given)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            _add_option_problem(problems, table, model, plugin, detail)
        return None
    except BaseException as error:
        if is_interrupt(error):
            raise
        problems.add_for(table, (), f"its options cannot be checked: {type(error).__name__}: {error}", plugin.origin)
        return None
    return None if unknown else options


def _is_table(model: type[BaseModel], key: str) -> bool:
    """Whether an option is a table itself, in which `env` and `file` are keys like any other."""
    field = model.model_fields.get(key)
    wanted = () if field is None else (field.annotation, *get_args(field.annotation))
    return any(get_origin(kind) in (dict, Mapping) or kind is dict for kind in wanted)


def _ignored_options(model: type[BaseModel], given: Iterable[str]) -> list[str]:
    """Options that a model which is not as strict as ours would ignore in silence."""
    if model.model_config.get("extra", "ignore") != "ignore":
        return []
    known = {*model.model_fields, *(field.alias for field in model.model_fields.values())}
    return [key for key in given if key not in known]


def is_reference(value: object) -> TypeGuard[dict[str, str]]:
    """Whether an option is written as `{ env = "NAME" }` or `{ file = "PATH" }`, as secrets should be."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    ((source, name),) = value.items()
    return source in ("env", "file") and isinstance(name, str)


def _revealed(value: object) -> object:
    """Fetch what is written as a reference."""
    if not is_reference(value):
        return value
    ((source, name),) = value.items()
    if source == "file":
        return Path(name).expanduser().read_text("utf-8").strip()
    if not os.environ.get(name):
        raise LookupError(f"the environment variable {name} is not set")
    return os.environ[name]


def _why_not_revealed(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename} cannot be read: {error.strerror}"
    if isinstance(error, UnicodeDecodeError):
        return "the file that it names is not UTF-8"
    return str(error.args[0])


def _add_option_problem(
    problems: Problems, table: Table, model: type[BaseModel], plugin: InstalledPlugin, detail: Any
) -> None:
    keys, kind = detail["loc"], detail["type"]
    if kind == "extra_forbidden":
        message = _unknown_option(model, str(keys[-1]))
    elif kind == "missing":
        message, keys = f"option '{'.'.join(map(str, keys))}' is missing and required", ()
    else:
        message = str(detail["msg"]).removeprefix("Value error, ")
        if not message[1:2].isupper():  # else it begins with a name, such as a variable's
            message = message[:1].lower() + message[1:]
    problems.add_for(table, keys, message, plugin.origin)


def _unknown_option(model: type[BaseModel], key: str) -> str:
    meant = nearest(key, model.model_fields)
    if meant:
        return f"unknown option; did you mean '{meant}'?"
    names = ", ".join(model.model_fields)
    return f"unknown option; {f'the options are: {names}' if names else 'it has no options'}"


def _check_inputs(configuration: Configuration) -> None:
    for tables, upstream, word in (
        (configuration.generators, configuration.sensors, "sensor"),
        (configuration.exporters, configuration.generators, "generator"),
    ):
        names = [table.name for table in upstream]
        for table in tables:
            for name in table.inputs or ():
                if name not in names:
                    meant = nearest(name, names)
                    hint = f"did you mean '{meant}'?" if meant else f"the {word}s are: {', '.join(names) or 'none'}"
                    configuration.problems.add_for(table, ("inputs",), f"no {word} is named '{name}'; {hint}")


def _check_overlap(configuration: Configuration, sensors: Sequence[Resolved]) -> None:
    """Two sensors of one rank for the same thing: nobody could say which one counts."""
    ranks: dict[tuple[object, object], Resolved] = {}
    for resolved in sensors:
        scope = resolved.loaded.scope
        if scope is Scope.EXTRA:
            continue
        first = ranks.setdefault((scope, resolved.loaded.fidelity), resolved)
        if first is not resolved:
            configuration.problems.add_for(
                resolved.table,
                (),
                f"covers the {scope.value}, {resolved.loaded.fidelity.value}, as sensors.{first.table.name} does",
                "keep one of them: the same energy would have two figures",
            )


class _Assembler:
    def __init__(self, plan: Plan, clock: Clock | None) -> None:
        configuration = plan.configuration
        tags = [Tag(key, value) for key, value in configuration.tags.items()]
        self._plan = plan
        self._configuration = configuration
        self._pipeline = Pipeline(interval_seconds=configuration.interval_seconds, tags=tags, clock=clock)

    def assemble(self) -> Pipeline:
        self._add_location()
        for resolved in self._plan.sensors:
            self._add_sensor(resolved)
        for resolved in self._plan.generators:
            self._add_generator(resolved)
        for resolved in self._plan.exporters:
            self._add_exporter(resolved)
        self._add_hooks()
        self._configuration.problems.raise_if_any()
        return self._pipeline

    def _add_location(self) -> None:
        resolved = self._plan.location
        self._location: Location | None = None
        context = self._context(resolved)
        if (location := self._construct(resolved, context)) is not None:
            assert isinstance(location, Location)
            self._location = location
            self._pipeline.set_location(context.component, location, optional=resolved.table.optional)

    def _add_sensor(self, resolved: Resolved) -> None:
        context = self._context(resolved)
        if (sensor := self._construct(resolved, context)) is not None:
            assert isinstance(sensor, Sensor)
            table = resolved.table
            self._pipeline.add_sensor(
                context.component, sensor, optional=table.optional, interval_seconds=table.interval_seconds
            )

    def _add_generator(self, resolved: Resolved) -> None:
        table = resolved.table
        context = self._context(resolved)
        context.meter = view = self._pipeline.view(table.inputs)
        context.location = self._location
        if (generator := self._construct(resolved, context)) is not None:
            assert isinstance(generator, MetricGenerator)
            self._pipeline.add_generator(
                context.component,
                generator,
                view,
                optional=table.optional,
                interval_seconds=table.interval_seconds,
            )

    def _add_exporter(self, resolved: Resolved) -> None:
        table = resolved.table
        context = self._context(resolved)
        context.meter = self._pipeline.view(follows=True)
        context.location = self._location
        if (exporter := self._construct(resolved, context)) is not None:
            assert isinstance(exporter, Exporter)
            if exporter.metric_prefix_name is None:
                exporter.metric_prefix_name = self._configuration.metric_prefix_name
            exporter.attach(context)
            self._pipeline.add_exporter(
                context.component,
                exporter,
                inputs=table.inputs,
                optional=table.optional,
                interval_seconds=table.interval_seconds,
            )

    def _add_hooks(self) -> None:
        if not self._plan.hooks:
            return
        from tracarbon.hooks import HookDispatcher

        dispatcher = HookDispatcher(self._pipeline.components)
        for resolved in self._plan.hooks:
            context = self._context(resolved)
            hook = resolved.loaded
            if isinstance(hook, type):
                hook = self._construct(resolved, context)
            if hook is not None:
                self._register(dispatcher, hook, resolved, context)
        dispatcher.configured(self._configuration.source)
        self._pipeline.listeners.append(dispatcher)

    def _register(self, dispatcher: HookDispatcher, hook: object, resolved: Resolved, context: PluginContext) -> None:
        try:
            dispatcher.register(hook, context.component)
        except PluginError as error:
            self._configuration.problems.add_for(resolved.table, (), str(error), resolved.plugin.origin)

    def _context(self, resolved: Resolved) -> PluginContext:
        table = resolved.table
        context = PluginContext(
            table.name,
            component=self._pipeline.components.add(table.kind.word, table.name),
            components=self._pipeline.components,
            clock=self._pipeline.clock,
            host_root=self._configuration.host_root,
            pulse=self._pipeline.pulse,
            metric_prefix_name=self._configuration.metric_prefix_name,
        )
        self._pipeline.at_stop.append(context.close)
        return context

    def _construct(self, resolved: Resolved, context: PluginContext) -> Plugin | None:
        try:
            factory = getattr(resolved.loaded, "from_options", None)
            made: Plugin = factory(resolved.options, context) if factory else resolved.loaded()
        except BaseException as error:
            if is_interrupt(error):
                raise
            reason = str(error) if isinstance(error, TracarbonException) else f"{type(error).__name__}: {error}"
            self._configuration.problems.add_for(resolved.table, (), reason, resolved.plugin.origin)
            return None
        return made

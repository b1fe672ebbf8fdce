"""What the four contracts have in common: construction, options, life, probing.

A plugin is an ordinary class. Its annotated fields become keyword-only arguments; a nested `Options` describes what the
user may write into its TOML table; as an async context manager it acquires on entry and releases on exit. Constructing
one does no I/O.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar, dataclass_transform, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from tracarbon._clock import Clock, SystemClock
from tracarbon._pulse import Pulse as Pulse
from tracarbon._states import Component as Component
from tracarbon._states import Components
from tracarbon._states import ComponentState as ComponentState
from tracarbon._worker import Worker
from tracarbon.hardwares.energy import Fidelity

if TYPE_CHECKING:
    from tracarbon.hardwares.sensors import Sensor
    from tracarbon.locations.location import Location

P = ParamSpec("P")
T = TypeVar("T")


class PluginOptions(BaseModel):
    """Base of every `Options`: unknown keys are refused, so that a typing error is never an option ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name is not None:
            wanted = cls.model_fields[info.field_name].annotation
            if bool not in (wanted, *get_args(wanted)) and {int, float} & {wanted, *get_args(wanted)}:
                raise ValueError(f"should be a number, not {str(value).lower()}")
        return value


@dataclass(frozen=True, slots=True)
class Probe:
    """What a sensor or location says of itself on this machine.

    Attributes:
        works: whether it would work here.
        reason: why, or why not, in a few words.
        remedy: what the user would have to do.
        fidelity: how good its figures would be.
    """

    works: bool
    reason: str = ""
    remedy: str = ""
    fidelity: Fidelity | None = None


class PluginContext:
    """What a pipeline offers to a plugin that it constructs.

    Attributes:
        name: the plugin's instance name, from its TOML table.
        meter: the pipeline's meter (for a generator or exporter, over the sensors it reads); `None` for sensors.
        location: the pipeline's location; `None` for sensors and the location itself.
        component: the plugin's own state, to be told.
        components: the states of all components.
        clock: the pipeline's clock.
        host_root: where the host's `/sys` and `/proc` are; `/` but for containers.
        platform: such as `Linux`.
        pulse: when the pipeline ticked.
        metric_prefix_name: the prefix of metric names.
        logger: a logger of the plugin's own.
    """

    def __init__(
        self,
        name: str,
        *,
        meter: Sensor | None = None,
        location: Location | None = None,
        component: Component | None = None,
        components: Iterable[Component] = (),
        clock: Clock | None = None,
        host_root: Path = Path("/"),
        platform: str | None = None,
        pulse: Pulse | None = None,
        metric_prefix_name: str = "tracarbon",
    ) -> None:
        self.name = name
        self.meter = meter
        self.location = location
        self.component = component or Components().add("plugin", name)
        self.components = components
        self.clock = clock or SystemClock()
        self.host_root = host_root
        self.platform = platform or platform_name()
        self.pulse = pulse or Pulse()
        self.metric_prefix_name = metric_prefix_name
        self.logger = logging.getLogger(f"tracarbon.{self.component.kind}.{name}")
        self._worker: Worker | None = None

    async def run_blocking(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that blocks, in the plugin's own thread; calls follow one another."""
        if self._worker is None:
            self._worker = Worker(f"tracarbon-{self.name}")
        return await self._worker.run(function, *args, **kwargs)

    def close(self) -> None:
        """Release the plugin's thread."""
        if self._worker is not None:
            self._worker.close()


def platform_name() -> str:
    """Return the platform as the documented `platform` tag names it: `Linux`, `Darwin` or `Windows`."""
    return {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}.get(sys.platform, sys.platform)


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Plugin:
    """Base of `Sensor`, `Location`, `MetricGenerator` and `Exporter`."""

    Options: ClassVar[type[PluginOptions]] = PluginOptions

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _turn_fields_into_arguments(cls)

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct the plugin from its validated options; by default they are its keyword arguments."""
        return cls(**dict(options))

    async def __aenter__(self) -> Self:
        """Acquire what the plugin needs; an exception keeps it from starting."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Release it."""
        return None

    def __repr__(self) -> str:
        # Fields may hold secrets.
        return f"<{type(self).__qualname__}>"


def _turn_fields_into_arguments(cls: type) -> None:
    copies: dict[str, _FreshCopy] = {}
    for name in _annotated_names(cls):
        default = cls.__dict__.get(name)
        if isinstance(default, FieldInfo):
            default = _plain_default(cls, name, default)
        if isinstance(default, list | dict | set):
            setattr(cls, name, field(default_factory=default.copy))
            copies[name] = _FreshCopy(name, default.copy)
    description = cls.__doc__
    inherits_own_init = any("__init__" in base.__dict__ and not _has_made_init(base) for base in cls.__mro__[:-1])
    dataclasses.dataclass(kw_only=True, eq=False, repr=False, init=not inherits_own_init)(cls)
    cls.__doc__ = description  # in place of none, a dataclass puts its signature
    if not inherits_own_init:
        cls.__init__ = _open_to_subclasses(cls, cls.__init__)  # type: ignore[misc]
    for name, copy in copies.items():
        setattr(cls, name, copy)


def _open_to_subclasses(cls: type, made: Callable[..., None]) -> Callable[..., None]:
    """Let a subclass with an `__init__` of its own hand its fields to `super().__init__`, as pydantic's models may."""

    @functools.wraps(made)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if type(self) is not cls:
            known = {item.name for item in dataclasses.fields(cls)}
            for item in dataclasses.fields(self):
                if item.name not in known and item.init:
                    _set_field(self, item, kwargs)
        made(self, *args, **kwargs)

    init.__made_from_fields__ = True  # type: ignore[attr-defined]
    return init


def _set_field(instance: object, item: dataclasses.Field[Any], given: dict[str, Any]) -> None:
    if item.name in given:
        setattr(instance, item.name, given.pop(item.name))
    elif item.default_factory is not dataclasses.MISSING and item.name not in vars(instance):
        setattr(instance, item.name, item.default_factory())


def _plain_default(cls: type, name: str, described: FieldInfo) -> Any:
    """Put the default of a field that was written for pydantic in its place; constraints belong into `Options`.

    Raises:
        TypeError: it has constraints, which nothing here would check.
    """
    if described.metadata or described.alias:
        raise TypeError(f"{cls.__qualname__}.{name}: the constraints of a pydantic Field belong into its Options")
    if described.default_factory is not None:
        default: Any = field(default_factory=described.default_factory)  # type: ignore[arg-type]
    elif described.is_required():
        delattr(cls, name)
        return None
    else:
        default = described.default
    setattr(cls, name, default)
    return default


def _annotated_names(cls: type) -> Iterable[str]:
    """Return the names of the fields that a class declares; a `ClassVar` is none."""
    if sys.version_info >= (3, 14):
        # Annotations are lazy there, and may name what only type checkers import.
        from annotationlib import Format, get_annotations

        annotations: dict[str, Any] = get_annotations(cls, format=Format.FORWARDREF)
    else:
        annotations = cls.__dict__.get("__annotations__", {})
    return [name for name, annotation in annotations.items() if not _is_class_variable(annotation)]


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return annotation.removeprefix("typing.").startswith("ClassVar")
    return annotation is ClassVar or get_origin(annotation) is ClassVar


class _FreshCopy:
    """The default of a mutable field, for instances whose own `__init__` does not set it: each gets a copy."""

    def __init__(self, name: str, copy: Callable[[], Any]) -> None:
        self._name = name
        self._copy = copy

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            raise AttributeError(self._name)
        value = vars(instance)[self._name] = self._copy()
        return value


def is_made_from_fields(cls: type) -> bool:
    """Whether the fields of a plugin class are all that it is constructed from."""
    return getattr(cls.__init__, "__made_from_fields__", False)  # type: ignore[misc]


def summary_of(plugin: object) -> str:
    """Return the first line of a plugin's own docstring; empty where it has none."""
    return inspect.cleandoc(plugin.__doc__ or "").partition("\n")[0]


def takes_argument(cls: type, name: str) -> bool:
    """Whether a plugin class has a field of that name and its constructor takes it."""
    parameters = inspect.signature(cls).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    is_field = any(item.name == name for item in dataclasses.fields(cls))
    return is_field and (takes_any or name in parameters)


def _has_made_init(cls: type) -> bool:
    return getattr(cls.__dict__["__init__"], "__made_from_fields__", False)

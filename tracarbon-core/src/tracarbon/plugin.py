"""What the four contracts have in common: construction, options, life, probing.

A plugin is an ordinary class. Its annotated fields become keyword-only arguments; a nested `Options` describes what the
user may write into its TOML table; as an async context manager it acquires on entry and releases on exit. Constructing
one does no I/O.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar, dataclass_transform

from pydantic import BaseModel, ConfigDict

from tracarbon._clock import Clock, SystemClock
from tracarbon._states import Component, Components
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
        if isinstance(default, list | dict | set):
            setattr(cls, name, field(default_factory=default.copy))
            copies[name] = _FreshCopy(name, default.copy)
    inherits_own_init = any("__init__" in base.__dict__ and not _has_made_init(base) for base in cls.__mro__[:-1])
    dataclasses.dataclass(kw_only=True, eq=False, repr=False, init=not inherits_own_init)(cls)
    if not inherits_own_init:
        cls.__init__.__made_from_fields__ = True  # type: ignore[misc]
    for name, copy in copies.items():
        setattr(cls, name, copy)


def _annotated_names(cls: type) -> Iterable[str]:
    if sys.version_info >= (3, 14):
        # Annotations are lazy there, and may name what only type checkers import.
        from annotationlib import Format, get_annotations

        return get_annotations(cls, format=Format.FORWARDREF)
    names: dict[str, Any] = cls.__dict__.get("__annotations__", {})
    return names


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


def _has_made_init(cls: type) -> bool:
    return getattr(cls.__dict__["__init__"], "__made_from_fields__", False)

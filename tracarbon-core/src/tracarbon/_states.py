"""The state of each component, for whoever wants to see it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

logger = logging.getLogger("tracarbon")


class ComponentState(Enum):
    """How a component fares."""

    STARTING = "starting"
    OK = "ok"
    DEGRADED = "degraded"
    """Works, but not wholly: a zone is unreadable, an export is being retried."""
    FAILED = "failed"
    """Does not work now; it is tried again with back-off."""
    STOPPED = "stopped"


@dataclass(slots=True)
class Component:
    """One component of a pipeline and how it fares.

    Attributes:
        kind: `sensor`, `location`, `generator`, `exporter` or `hook`.
        name: its instance name in the file.
        state: how it fares now.
        reason: why it is not `ok`, for humans.
        failures: how many calls into it failed.
        merged_batches: of an exporter, how many batches were merged into one that was still waiting.
        dropped_records: of an exporter, how many records were refused for good, or given up on at the end.
    """

    kind: str
    name: str
    state: ComponentState = ComponentState.STARTING
    reason: str = ""
    failures: int = 0
    merged_batches: int = 0
    dropped_records: int = 0
    _observers: list[Callable[[Component], None]] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        return self.name if self.name == self.kind == "location" else f"{self.kind} {self.name}"

    def ok(self) -> None:
        """Note that it works."""
        if self.state is not ComponentState.OK:
            self._change(ComponentState.OK, "")

    def degraded(self, reason: str) -> None:
        """Note that it works, but not wholly."""
        self._change(ComponentState.DEGRADED, reason)

    def failed(self, reason: str, *, is_raised: bool = False) -> None:
        """Note that it does not work; where that is raised as well, it is not logged."""
        self.failures += 1
        self._change(ComponentState.FAILED, reason, logging.DEBUG if is_raised else logging.WARNING)

    def stopped(self) -> None:
        """Note that it ended as it should."""
        self._change(ComponentState.STOPPED, "")

    def _change(self, state: ComponentState, reason: str, level: int = logging.WARNING) -> None:
        if (state, reason) == (self.state, self.reason):
            return
        recovered = self.state in (ComponentState.DEGRADED, ComponentState.FAILED) and state is ComponentState.OK
        self.state, self.reason = state, reason
        if reason:
            logger.log(level, "%s %s: %s", self, state.value, reason)
        elif recovered:
            logger.warning("%s works again", self)
        for observer in self._observers:
            observer(self)


class Components:
    """Every component of a pipeline, in the order of the file."""

    def __init__(self) -> None:
        self._components: list[Component] = []
        self._observers: list[Callable[[Component], None]] = []

    def __iter__(self) -> Iterator[Component]:
        return iter(self._components)

    def add(self, kind: str, name: str) -> Component:
        """Add a component, which is starting."""
        component = Component(kind, name, _observers=self._observers)
        self._components.append(component)
        return component

    def observe(self, observer: Callable[[Component], None]) -> None:
        """Call `observer` whenever the state of a component changes."""
        self._observers.append(observer)

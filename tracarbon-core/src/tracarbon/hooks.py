"""Hooks: synchronous observers of a pipeline's moments.

A hook is a plugin of the group `tracarbon.hooks`, loaded only when a `[hooks.NAME]` table names it. It marks its
functions or methods with `@hookimpl`; each may take any of the documented arguments. Hooks run in a thread of their
own, off the data path: a slow one loses moments (they are counted), a failing one is logged, and neither delays a tick.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import queue
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pluggy

from tracarbon._listener import Listener
from tracarbon._states import Component, ComponentState
from tracarbon.exceptions import PluginError
from tracarbon.metrics import Batch

__all__ = ["HookDispatcher", "hookimpl", "hookspec"]

logger = logging.getLogger("tracarbon")

hookspec = pluggy.HookspecMarker("tracarbon")
hookimpl = pluggy.HookimplMarker("tracarbon")

_MOST_WAITING = 1000
_LAST_SECONDS = 2.0


class Moments:
    """What a hook can be told."""

    @hookspec
    def tracarbon_configured(self, source: str) -> None:
        """The configuration is valid and the plugins are constructed. `source` is the file's name."""

    @hookspec
    def tracarbon_started(self, components: tuple[Component, ...]) -> None:
        """Every component that is not optional has started, and the first window is open."""

    @hookspec
    def tracarbon_window_closed(self, batch: Batch) -> None:
        """A generator has done with a window. The batch is shared: look, do not change."""

    @hookspec
    def tracarbon_exported(self, exporter: str, batch: Batch) -> None:
        """A batch has arrived."""

    @hookspec
    def tracarbon_failed(self, component: Component) -> None:
        """A component failed or is degraded; `component.reason` says why. A copy: it does not change."""

    @hookspec
    def tracarbon_stopped(self) -> None:
        """Every exporter was flushed, or given up on."""


class HookDispatcher(Listener):
    """Tells every registered hook of every moment, in a thread, from a bounded queue.

    Attributes:
        overruns: how many moments were lost because the hooks were too slow.
    """

    def __init__(self, components: Iterable[Component]) -> None:
        self._manager = pluggy.PluginManager("tracarbon")
        self._manager.add_hookspecs(Moments)
        self._pipeline_components = components
        self._components: dict[str, Component] = {}
        self._moments: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._source: str | None = None
        self.overruns = 0

    def register(self, hook: object, component: Component) -> None:
        """Register a hook: an object or module with `@hookimpl` functions.

        Raises:
            PluginError: it implements a hook that does not exist, asks for an argument that there is not, has a
                function that would not run when it is called, has none at all, or is registered already.
        """
        try:
            self._manager.register(hook, component.name)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            message = " ".join(str(error).split())
            raise PluginError(message.replace(f" in plugin {hook!r}", "")) from error
        except ValueError as error:  # pluggy's word for an object, such as a module, that it has already
            raise PluginError("another table of [hooks] names it already: it would hear of everything twice") from error
        self._refuse_deaf(component.name)
        self._components[component.name] = component
        component.ok()

    def _refuse_deaf(self, name: str) -> None:
        callers = self._manager.get_hookcallers(self._manager.get_plugin(name)) or ()
        implementations = [it for caller in callers for it in caller.get_hookimpls() if it.plugin_name == name]
        if not implementations:
            raise PluginError("it would hear of nothing: mark the functions or methods that listen with @hookimpl")
        for implementation in implementations:
            if reason := _why_deaf(implementation):
                raise PluginError(f"{implementation.function.__name__} {reason}")

    def configured(self, source: str) -> None:
        """Note what is told first once the pipeline does something; a file that is only checked is not told of."""
        self._source = source

    def started(self) -> None:
        """The pipeline has started."""
        self._tell("tracarbon_started", components=tuple(map(dataclasses.replace, self._pipeline_components)))

    def window_closed(self, batch: Batch) -> None:
        """A generator has done with a window."""
        self._tell("tracarbon_window_closed", batch=batch)

    def exported(self, exporter: str, batch: Batch) -> None:
        """A batch has arrived."""
        self._tell("tracarbon_exported", exporter=exporter, batch=batch)

    def state_changed(self, component: Component) -> None:
        """A component fares otherwise."""
        if component.state in (ComponentState.DEGRADED, ComponentState.FAILED):
            self._tell("tracarbon_failed", component=dataclasses.replace(component))

    def stopped(self) -> None:
        """Let the hooks come to their end, within a deadline."""
        self._make_room()
        self._tell("tracarbon_stopped")
        thread, self._thread = self._thread, None
        if thread is not None:
            self._moments.put(None)
            thread.join(_LAST_SECONDS)
            if thread.is_alive():
                logger.warning(
                    "hooks did not come to their end within %g s; %d moments were left",
                    _LAST_SECONDS,
                    self._moments.qsize(),
                )
        if self.overruns:
            logger.warning("hooks were too slow: %d moments were lost to them", self.overruns)

    def _tell(self, moment: str, **arguments: Any) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="tracarbon-hooks", daemon=True)
            self._thread.start()
            if self._source is not None:
                self._enqueue(("tracarbon_configured", {"source": self._source}))
        self._enqueue((moment, arguments))

    def _enqueue(self, moment: tuple[str, dict[str, Any]] | None) -> None:
        try:
            self._moments.put_nowait(moment)
        except queue.Full:
            self.overruns += 1

    def _make_room(self) -> None:
        """Lose the oldest moments for the last one, and for the end of the thread, where the queue is full."""
        while self._moments.qsize() > _MOST_WAITING - 2:
            with suppress(queue.Empty):
                self._moments.get_nowait()
                self.overruns += 1

    def _serve(self) -> None:
        while (moment := self._moments.get()) is not None:
            name, arguments = moment
            for implementation in getattr(self._manager.hook, name).get_hookimpls():
                self._call(implementation, arguments)

    def _call(self, implementation: pluggy.HookImpl, arguments: dict[str, Any]) -> None:
        # One by one: pluggy itself would let the first failing hook keep the moment from the others.
        try:
            implementation.function(*(arguments[name] for name in implementation.argnames))
        except BaseException as error:  # whatever it is, it was raised by the hook: nobody interrupts this thread
            logger.debug("hook %s", implementation.plugin_name, exc_info=error)
            component = self._components[implementation.plugin_name]
            if component.state is not ComponentState.DEGRADED:
                component.degraded(f"{implementation.function.__name__}: {type(error).__name__}: {error}")


def _why_deaf(implementation: pluggy.HookImpl) -> str:
    """Say why a function would be called and not run."""
    function = implementation.function
    if implementation.wrapper or implementation.hookwrapper:
        return "is marked as a wrapper, and there is nothing to wrap: each hook is called alone; mark it with @hookimpl"
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "is asynchronous, and nobody would await it: hooks run in a thread of their own; use `def` alone"
    if inspect.isgeneratorfunction(function):
        return "yields, and nobody would go through what it yields: return instead"
    return ""

"""What every plugin has to keep to, whatever its kind."""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar

import anyio
from anyio.lowlevel import checkpoint
from pydantic import BaseModel, SecretStr, ValidationError

from tracarbon._clock import SystemClock
from tracarbon._configuration import RESERVED_WORDS
from tracarbon._discovery import InstalledPlugin, Kind, find_plugin, is_same_distribution, load_class
from tracarbon._probing import PROBE_SECONDS
from tracarbon._watch import BLOCKING_SECONDS, guard
from tracarbon.exceptions import PluginError
from tracarbon.plugin import Plugin, PluginContext, Probe
from tracarbon.testing._clock import SleeplessClock
from tracarbon.testing._watching import Belongings, Steps, io_of, outlasts_cancellation

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_ANSWER_SECONDS = 60.0
_CANCEL_SECONDS = 2.0
_CANCEL_TRIES = 3
_BLOCK_TRIES = 10
_ENTRY_STEP_SECONDS = 0.5
"""How long a step of entering or leaving may take; they come once, and what they load and open may take a while."""
_PROBE_SECONDS = PROBE_SECONDS
_PROBE_TRIES = 3
_CALL = "a call"
_SECRET_NAME = re.compile(r"(^|_)(key|apikey|password|passwd|passphrase|secret|token|credentials?)$")
_NO_OPTION = "no_such_option_of_any_plugin"


def deviates(reason: str) -> Callable[[F], F]:
    """Mark a standard test that is overridden, with the reason why the plugin cannot keep to it.

    Raises:
        ValueError: there is no reason, or an empty one.
    """
    if not isinstance(reason, str) or not reason.strip():  # type: ignore[redundant-expr]
        raise ValueError("deviates() needs the reason why a standard test is overridden")

    def mark(function: F) -> F:
        function.__deviates__ = reason  # type: ignore[attr-defined]
        return function

    return mark


class PluginContract:
    """The standard tests of every plugin.

    Attributes:
        plugin: the name of the entry point.
        distribution: the distribution that declares it.
    """

    plugin: ClassVar[str]
    distribution: ClassVar[str]
    _kind: ClassVar[Kind]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        standard = _standard_tests(cls)
        for name, value in vars(cls).items():
            if getattr(value, "__deviates__", "") and name not in standard:
                raise TypeError(f"{cls.__qualname__}.{name} deviates from no standard test of that name")
        for name in standard:
            found = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
            if not _is_ours(found) and not getattr(found, "__deviates__", ""):
                raise TypeError(
                    f"{cls.__qualname__}.{name} overrides a standard test; say why: @deviates('the reason')"
                )

    # To be given by the author.

    def options(self, folder: Path) -> Mapping[str, Any]:
        """Return the options to test with, as in the plugin's TOML table; `folder` is empty and there for the test."""
        return {}

    def host_root(self, folder: Path) -> Path:
        """Return where the plugin finds the host's `/sys` and `/proc`."""
        return Path("/")

    # The tests.

    def test_the_entry_point_is_the_distributions(self) -> None:
        """The entry point is found, is declared by this distribution, and gives a class of the contract."""
        found = self._installed()
        assert is_same_distribution(found.distribution, self.distribution), (
            f"{self.plugin} is declared by {found.distribution}, not by {self.distribution}"
        )
        load_class(found)

    def test_every_option_is_described(self) -> None:
        """Each option says what it does, and the README, which is on the package's page, has it."""
        options = self._model().model_fields
        readme = metadata.metadata(self.distribution).json.get("description", "")
        for name, option in options.items():
            assert option.description, f"option {name} has no description: Field(description=...)"
            assert f"`{name}`" in readme, f"the README has no `{name}`; or pyproject.toml has no `readme`"

    def test_unknown_options_are_refused(self) -> None:
        """A slip of the pen is never an option that is ignored."""
        with TemporaryDirectory() as folder:
            options = {**self.options(Path(folder)), _NO_OPTION: 1}
            try:
                self._model()(**options)
            except ValidationError as error:
                assert any(_NO_OPTION in detail["loc"] for detail in error.errors()), error
                return
        raise AssertionError("an unknown option is taken: derive Options from tracarbon.plugin.PluginOptions")

    def test_reserved_words_are_left_alone(self) -> None:
        """`plugin`, `inputs`, `interval` and `optional` are the pipeline's own."""
        taken = [name for name in self._model().model_fields if name in RESERVED_WORDS]
        assert not taken, f"the options {', '.join(taken)} can never be set: the pipeline takes them for itself"

    def test_construction_does_no_io(self) -> None:
        """Files, sockets and processes wait for `__aenter__`: `tracarbon check` constructs every plugin."""

        async def construct(folder: Path) -> None:
            options, context = self._given(folder)
            cls = self._cls()
            seen = io_of(lambda: cls.from_options(options, context))
            context.close()
            assert not seen, f"constructing it did: {'; '.join(seen)}; do it in __aenter__"

        self._on_each_loop(construct)

    def test_it_can_be_entered_again(self) -> None:
        """A plugin that failed is left, and entered again later."""

        async def twice(folder: Path) -> None:
            async with self._made(folder) as plugin:
                for _ in range(2):
                    async with plugin:
                        await self._use_it(plugin, folder)

        self._on_each_loop(twice)

    def test_leaving_it_releases_everything(self) -> None:
        """After `__aexit__`, no file it opened is open and no thread or process it started runs."""
        left = self._left_by(self._use_once)
        assert not left, f"leaving it left behind: {', '.join(left)}"

    def test_a_cancelled_call_leaves_nothing_open(self) -> None:
        """A call that is cancelled where it waits ends at once, cancelled, and the plugin can still be left."""

        async def cancelled(folder: Path) -> None:
            async with self._made(folder) as plugin, plugin:
                for _ in range(_CANCEL_TRIES):  # a busy machine can make anything late
                    seconds, is_swallowed = await _cancelled_at_its_first_wait(self._use(plugin, folder))
                    if seconds < _CANCEL_SECONDS and not is_swallowed:
                        return
            assert not is_swallowed, "a cancelled call returned: no `except:` or `except BaseException` without `raise`"
            raise AssertionError(f"each cancelled call went on, the last for {seconds:.1f} s")

        left, in_any_case = self._left_by(cancelled), self._left_by(self._use_once)
        assert len(left) <= len(in_any_case), f"a cancelled call left behind: {', '.join(left)}"

    def test_the_event_loop_is_never_held_up(self) -> None:
        """Nobody else can work while a plugin waits without `await`."""

        async def watched(folder: Path) -> None:
            async with self._made(folder) as plugin:
                for _ in range(_BLOCK_TRIES):  # a busy machine can make anything late
                    steps = Steps()
                    await self._call(self._live(plugin, folder, steps), steps.note)
                    if not steps.too_long:
                        return
                    if _CALL in steps.too_long:
                        break
            said = ", ".join(f"{doing} for {seconds:.2f} s" for doing, seconds in steps.too_long.items())
            raise AssertionError(f"each time, the event loop was held up by {said}: await, or use context.run_blocking")

        self._on_each_loop(watched)

    def test_no_secret_is_shown(self) -> None:
        """Keys and passwords are in no `repr`, of the plugin or of its options."""

        async def shown(folder: Path) -> None:
            options, context = self._given(folder)
            plugin = self._cls().from_options(options, context)
            text = f"{plugin!r} {plugin} {options!r} {options}"
            context.close()
            for name, value in _secrets(options).items():
                assert value not in text, f"the value of {name} is shown; make it a pydantic.SecretStr"

        self._on_each_loop(shown)

    # What the tests are made of.

    async def _use(self, plugin: Any, folder: Path) -> object:
        """Call the one verb of the contract."""
        raise NotImplementedError

    async def _use_it(self, plugin: Any, folder: Path) -> object:
        return await self._call(self._use(plugin, folder))

    async def _live(self, plugin: Any, folder: Path, steps: Steps) -> None:
        """Enter the plugin, call its verb until no step of the call is too long, a few times at most, and leave it."""
        steps.begin("entering it", _ENTRY_STEP_SECONDS)
        async with plugin:
            await checkpoint()
            for _ in range(_BLOCK_TRIES):
                steps.begin(_CALL, BLOCKING_SECONDS)
                await self._use(plugin, folder)
                await checkpoint()
                if _CALL not in steps.too_long:
                    break
            steps.begin("leaving it", _ENTRY_STEP_SECONDS)

    async def _call(self, call: Coroutine[Any, Any, T], on_block: Callable[[float], None] = lambda _: None) -> T:
        with SystemClock().deadline() as deadline:
            return await guard(call, deadline, _ANSWER_SECONDS, on_block, time.perf_counter)
        raise AssertionError(f"no answer within {_ANSWER_SECONDS:g} s")

    def _installed(self) -> InstalledPlugin:
        for name in ("plugin", "distribution"):
            assert getattr(self, name, ""), f'{type(self).__qualname__} does not say what to test: {name} = "..."'
        try:
            found = find_plugin(self._kind, self.plugin)
        except PluginError:  # another distribution has one of that name as well
            found = find_plugin(self._kind, f"{self.distribution}:{self.plugin}")
        assert found is not None, (
            f"no {self._kind.word} named {self.plugin} is installed; the entry point belongs into the group "
            f"{self._kind.group}, and the distribution has to be installed again after a change to it"
        )
        return found

    def _cls(self) -> type[Plugin]:
        return load_class(self._installed())

    def _model(self) -> type[BaseModel]:
        model: type[BaseModel] = self._cls().Options
        return model

    def _given(self, folder: Path) -> tuple[BaseModel, PluginContext]:
        return self._model()(**self.options(folder)), self._context(folder)

    def _context(self, folder: Path) -> PluginContext:
        return PluginContext(self.plugin, clock=SleeplessClock(), host_root=self.host_root(folder))

    @asynccontextmanager
    async def _made(self, folder: Path) -> AsyncIterator[Any]:
        options, context = self._given(folder)
        try:
            yield self._cls().from_options(options, context)
        finally:
            context.close()

    def _on_each_loop(self, test: Callable[[Path], Awaitable[object]]) -> None:
        for backend in _backends():
            # The thread of a call that was cancelled may still write into the folder while it is removed.
            with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                anyio.run(test, Path(folder), backend=backend)

    async def _use_once(self, folder: Path) -> None:
        async with self._made(folder) as plugin, plugin:
            await self._use_it(plugin, folder)

    def _left_by(self, test: Callable[[Path], Awaitable[object]]) -> list[str]:
        self._on_each_loop(test)  # what is opened once and for all, such as a random device, is open now
        before = Belongings()
        self._on_each_loop(test)
        return before.left_over()


def _backends() -> tuple[str, ...]:
    assert importlib.util.find_spec("trio"), "each test runs on asyncio and on trio: pip install trio"
    return "asyncio", "trio"


async def _cancelled_at_its_first_wait(call: Coroutine[Any, Any, object]) -> tuple[float, bool]:
    """Return the seconds from its cancellation to its end, and whether it returned in spite of it."""
    is_swallowed = False

    async def wait() -> None:
        nonlocal is_swallowed
        is_swallowed = await outlasts_cancellation(call, group.cancel_scope)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        for _ in range(2):
            await checkpoint()
        cancelled_at = time.monotonic()
        group.cancel_scope.cancel()
    return time.monotonic() - cancelled_at, is_swallowed


def _standard_tests(cls: type) -> list[str]:
    return [
        name
        for base in cls.__mro__
        if _is_our_module(base.__module__)
        for name in vars(base)
        if name.startswith("test_")
    ]


def _is_ours(function: object) -> bool:
    return _is_our_module(getattr(function, "__module__", ""))


def _is_our_module(name: str) -> bool:
    return name.startswith("tracarbon.testing.")


def _secrets(options: BaseModel) -> dict[str, str]:
    """Return the options that are secrets, by their type or by their name."""
    found = {}
    for name, value in options:
        if isinstance(value, SecretStr):
            found[name] = value.get_secret_value()
        elif isinstance(value, str) and _SECRET_NAME.search(name):
            found[name] = value
    return {name: value for name, value in found.items() if value}


class ProbedContract(PluginContract):
    """The standard tests of a plugin that says whether it would work on this machine."""

    def test_probe_answers_on_any_machine(self) -> None:
        """`probe` soon says whether it would work, and why not, without raising, also where there is nothing at all."""
        with TemporaryDirectory() as nothing, TemporaryDirectory() as folder:
            for root in (Path(nothing), self.host_root(Path(folder))):
                self._probe(root)

    def _probe(self, host_root: Path) -> None:
        cls: Any = self._cls()
        context = PluginContext(self.plugin, host_root=host_root)
        try:
            for _ in range(_PROBE_TRIES):  # a busy machine can make anything late
                began_at = time.monotonic()
                answer = cls.probe(context)
                seconds = time.monotonic() - began_at
                assert isinstance(answer, Probe), f"probe() gave {answer!r}; it has to be a tracarbon.plugin.Probe"
                assert answer.works or str(answer.reason or "").strip(), (
                    "probe() says that it does not work, and not why"
                )
                if seconds < _PROBE_SECONDS:
                    return
        finally:
            context.close()
        raise AssertionError(f"each probe() took {seconds:.1f} s; after {_PROBE_SECONDS:g} s nobody waits for it")

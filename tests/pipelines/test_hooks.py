"""What hooks are told of a run, and what bad ones cost: nothing but moments of their own."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from tracarbon._states import Component, Components, ComponentState
from tracarbon.exceptions import PluginError
from tracarbon.exporters import Batch, Window
from tracarbon.hooks import HookDispatcher, Moments, hookimpl

from tests.pipelines.support import environment, make_distribution, run, start, wait_until
from tests.support.fakes import Panic, RecordingExporter, Rig

MOST_WAITING = 1000
BROKEN = "tracarbon_window_closed: RuntimeError: the hook is broken"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracarbon.hooks._LAST_SECONDS", 60.0)


def write_pipeline(folder: Path, tables: str) -> None:
    (folder / "watts").write_text("36\n")
    common = """
        interval = "50ms"
        [location]
        country = "FR"
        [sensors.acme_file]
        path = "watts"
        [exporters.lines]
        plugin = "acme_lines"
        path = "lines"
        [hooks.acme_listener]
        path = "moments"
    """
    (folder / "pipeline.toml").write_text(dedent(common) + dedent(tables))


def told(folder: Path) -> list[dict[str, Any]]:
    """What the listener was told, as far as its lines are whole."""
    path = folder / "moments"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def told_of(moments: Iterable[dict[str, Any]], name: str, exporter: str | None = None) -> list[dict[str, Any]]:
    return [it for it in moments if it["moment"] == name and it.get("exporter") == exporter]


def totals(moments: Iterable[dict[str, Any]]) -> dict[str, float]:
    sums: Counter[str] = Counter()
    for moment in moments:
        sums.update(moment["totals"])
    return sums  # type: ignore[return-value]


def delivered(folder: Path) -> list[str]:
    path = folder / "lines"
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All that a listener was told of a run beside a broken hook, with an exporter that fails at first."""
    folder = tmp_path_factory.mktemp("moments")
    write_pipeline(
        folder,
        """
        [exporters.late]
        plugin = "acme_lines"
        path = "missing/lines"
        [hooks.acme_broken]
        """,
    )
    with start("run", "-c", "pipeline.toml", cwd=folder) as program:
        wait_until(lambda: any("late" in it["component"] for it in told_of(told(folder), "failed")), "a failure")
        (folder / "missing").mkdir()
        wait_until(lambda: bool(told_of(told(folder), "exported", "late")), "a delivery after the failure")
        result = program.stop()
    assert result.status == 0, result.stderr
    assert result.stderr.count(f"hook acme_broken degraded: {BROKEN}") == 1
    return told(folder)


class TestMoments:
    def test_every_moment_there_is(self, moments: list[dict[str, Any]]) -> None:
        there_are = {name.removeprefix("tracarbon_") for name in vars(Moments) if name.startswith("tracarbon_")}
        assert {it["moment"] for it in moments} == there_are

    def test_begin_and_end(self, moments: list[dict[str, Any]]) -> None:
        configured, started = moments[:2]
        assert configured == {"moment": "configured", "source": "pipeline.toml"}
        assert started == {
            "moment": "started",
            "components": [
                "location ok",
                "sensor acme_file ok",
                "generator energy ok",
                "generator carbon ok",
                "exporter lines ok",
                "exporter late ok",
                "hook acme_listener ok",
                "hook acme_broken ok",
            ],
        }
        assert moments[-1] == {"moment": "stopped"}
        for once in ("configured", "started", "stopped"):
            assert len(told_of(moments, once)) == 1

    def test_each_window_once_for_each_generator(self, moments: list[dict[str, Any]]) -> None:
        windows: dict[str, list[list[float]]] = {"energy": [], "carbon": []}
        for it in told_of(moments, "window_closed"):
            [(generator, window)] = it["windows"].items()
            windows[generator].append(window)
        assert windows["energy"] == windows["carbon"]
        ends = [end for _, end in windows["energy"]]
        assert [begin for begin, _ in windows["energy"]][1:] == ends[:-1]
        assert len(set(ends)) == len(ends) > 2

    def test_exported_after_it_was_closed(self, moments: list[dict[str, Any]]) -> None:
        closed: set[tuple[str, float]] = set()
        for it in moments:
            ends = {(generator, window[1]) for generator, window in it.get("windows", {}).items()}
            if it["moment"] == "exported":
                assert ends <= closed
            closed |= ends

    @pytest.mark.parametrize("exporter", ["lines", "late"])
    def test_all_that_was_closed_is_exported(self, moments: list[dict[str, Any]], exporter: str) -> None:
        closed = totals(told_of(moments, "window_closed"))
        assert totals(told_of(moments, "exported", exporter)) == pytest.approx(closed)
        assert closed["energy_consumption_host"] > 0

    def test_failures_name_who_and_why(self, moments: list[dict[str, Any]]) -> None:
        failed = {it["component"]: it["reason"] for it in told_of(moments, "failed")}
        assert failed.keys() == {"exporter late failed", "hook acme_broken degraded"}
        assert failed["exporter late failed"].startswith("FileNotFoundError: ")
        assert failed["hook acme_broken degraded"] == BROKEN

    def test_nobody_fails_twice_for_one_reason(self, moments: list[dict[str, Any]]) -> None:
        assert len(told_of(moments, "failed")) == 2


class TestSlowHook:
    def test_it_keeps_nothing_from_the_exporters(self, tmp_path: Path) -> None:
        write_pipeline(tmp_path, '[hooks.acme_slow]\nuntil = "go"\n')
        with start("run", "-c", "pipeline.toml", cwd=tmp_path) as program:
            wait_until(lambda: len(delivered(tmp_path)) > 40, "twenty windows beside a hook that waits")
            assert len(told_of(told(tmp_path), "window_closed")) <= 1
            (tmp_path / "go").touch()
            result = program.stop()
        assert result.status == 0, result.stderr
        joules = sum(float(line.split()[1]) for line in delivered(tmp_path) if "energy_consumption_host" in line)
        assert totals(told_of(told(tmp_path), "window_closed"))["energy_consumption_host"] == pytest.approx(joules)
        assert told(tmp_path)[-1] == {"moment": "stopped"}

    def test_it_is_left_behind_at_the_end(self, tmp_path: Path) -> None:
        write_pipeline(tmp_path, '[hooks.acme_slow]\nuntil = "never"\n')
        env = environment(is_patient=False)
        result = run("run", "-c", "pipeline.toml", "--duration", "200ms", cwd=tmp_path, env=env)
        assert result.status == 0
        assert "hooks did not come to their end within 2 s" in result.stderr
        assert "tracarbon report: " in result.stderr


class Waiting:
    """Holds up the first moment until it is released."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()
        self.heard: list[str] = []

    def _hear(self, moment: str) -> None:
        self.reached.set()
        self.released.wait()
        self.heard.append(moment)

    @hookimpl
    def tracarbon_started(self) -> None:
        self._hear("started")

    @hookimpl
    def tracarbon_window_closed(self, batch: Batch) -> None:
        self._hear(f"window {', '.join(batch.windows)}")

    @hookimpl
    def tracarbon_exported(self, exporter: str) -> None:
        self._hear(f"exported {exporter}")

    @hookimpl
    def tracarbon_stopped(self) -> None:
        self._hear("stopped")


def rig_of_many_moments() -> tuple[Rig, list[RecordingExporter]]:
    rig = Rig()
    rig.sensor()
    names = [f"generator-{number}" for number in range(8)]
    for name in names:
        rig.generator(name)
    return rig, [rig.exporter(f"of-{name}", inputs=[name]) for name in names]


async def test_what_is_lost_to_a_slow_hook_is_counted_and_delays_no_tick(caplog: pytest.LogCaptureFixture) -> None:
    seconds = 1000.0
    undisturbed, expected = rig_of_many_moments()
    rig, exporters = rig_of_many_moments()
    hook = Waiting()
    dispatcher = HookDispatcher(rig.pipeline.components)
    dispatcher.register(hook, rig.pipeline.components.add("hook", "waiting"))
    rig.pipeline.listeners.append(dispatcher)
    async with undisturbed.running():
        await undisturbed.to(seconds)
    async with rig.running():
        wait_until(hook.reached.is_set, "the first moment")
        await rig.to(seconds)
        lost = dispatcher.overruns
        assert lost > 0
        assert hook.heard == []
        hook.released.set()
        wait_until(lambda: len(hook.heard) == 1 + MOST_WAITING, "the moments that had room")
    moments = [it for it in rig.listener.moments if it.startswith(("started", "window", "exported", "stopped"))]
    assert [exporter.windows() for exporter in exporters] == [exporter.windows() for exporter in expected]
    assert dispatcher.overruns == lost
    assert len(hook.heard) + lost == len(moments)
    assert hook.heard[: 1 + MOST_WAITING] == moments[: 1 + MOST_WAITING]
    assert hook.heard[-1] == "stopped"
    assert f"hooks were too slow: {lost} moments were lost to them" in caplog.messages


class TestBrokenHook:
    def test_it_is_named_once_and_the_others_hear_all(self, caplog: pytest.LogCaptureFixture) -> None:
        component = Component("hook", "broken")
        good = Waiting()
        good.released.set()
        dispatcher = HookDispatcher([component])
        dispatcher.register(good, Component("hook", "good"))
        dispatcher.register(Broken(), component)
        with caplog.at_level(logging.WARNING, "tracarbon"):
            for _ in range(3):
                dispatcher.exported("stdout", Batch({}, {}, None))  # type: ignore[arg-type]
            dispatcher.stopped()
        assert good.heard == ["exported stdout"] * 3 + ["stopped"]
        assert (component.state, component.reason) == (
            ComponentState.DEGRADED,
            "tracarbon_exported: ZeroDivisionError: division by zero",
        )
        assert len(caplog.records) == 1


class Broken:
    @hookimpl
    def tracarbon_exported(self) -> None:
        1 / 0  # noqa: B018 - the flaw

    @hookimpl
    def tracarbon_stopped(self) -> None:
        raise RuntimeError("another flaw, of a hook that was named")


class Raising:
    """Raises at every window."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    def tracarbon_window_closed(self) -> None:
        raise self.error


class Counting:
    """Counts."""

    def __init__(self) -> None:
        self.windows = 0

    @hookimpl
    def tracarbon_window_closed(self) -> None:
        self.windows += 1


@pytest.mark.parametrize("error", [SystemExit(7), KeyboardInterrupt(7), asyncio.CancelledError(7), Panic(7)])
def test_whatever_a_hook_raises_is_named_and_keeps_nothing_from_the_others(error: BaseException) -> None:
    components, counting = Components(), Counting()
    dispatcher = HookDispatcher(components)
    for name, hook in (("raising", Raising(error)), ("counting", counting)):
        dispatcher.register(hook, components.add("hook", name))
    for _ in range(3):
        dispatcher.window_closed(Batch({}, {}, Window(0.0, 1.0, 0.0, 1.0)))
    dispatcher.stopped()
    assert counting.windows == 3
    raising = next(iter(components))
    assert raising.state is ComponentState.DEGRADED
    assert raising.reason == f"tracarbon_window_closed: {type(error).__name__}: 7"


class Deaf:
    """Listens, or would, in ways that are never heard of."""

    class Unmarked:
        def tracarbon_stopped(self) -> None: ...

    class Awaited:
        @hookimpl
        async def tracarbon_stopped(self) -> None: ...

    class AwaitedPieces:
        @hookimpl
        async def tracarbon_stopped(self) -> AsyncIterator[None]:
            yield

    class Pieces:
        @hookimpl
        def tracarbon_stopped(self) -> Iterator[None]:
            yield

    class Wrapper:
        @hookimpl(wrapper=True)
        def tracarbon_stopped(self) -> Iterator[None]:
            yield

    class OldWrapper:
        @hookimpl(hookwrapper=True)
        def tracarbon_stopped(self) -> Iterator[None]:
            yield


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (Deaf.Unmarked, "it would hear of nothing: mark the functions or methods that listen with @hookimpl"),
        (Deaf.Awaited, "tracarbon_stopped is asynchronous, and nobody would await it"),
        (Deaf.AwaitedPieces, "tracarbon_stopped is asynchronous, and nobody would await it"),
        (Deaf.Pieces, "tracarbon_stopped yields, and nobody would go through what it yields"),
        (Deaf.Wrapper, "tracarbon_stopped is marked as a wrapper, and there is nothing to wrap"),
        (Deaf.OldWrapper, "tracarbon_stopped is marked as a wrapper, and there is nothing to wrap"),
    ],
)
def test_one_that_would_never_run_is_refused(hook: type, message: str) -> None:
    dispatcher = HookDispatcher([])
    dispatcher.register(Counting(), Component("hook", "counting"))
    with pytest.raises(PluginError, match=re.escape(message)):
        dispatcher.register(hook(), Component("hook", "deaf"))


def test_one_hook_in_two_tables_is_refused() -> None:
    dispatcher, hook = HookDispatcher([]), Counting()
    dispatcher.register(hook, Component("hook", "one"))
    with pytest.raises(PluginError, match=r"another table of \[hooks\] names it already"):
        dispatcher.register(hook, Component("hook", "two"))


def test_one_that_would_never_run_is_a_problem_in_the_file(tmp_path: Path) -> None:
    make_distribution(
        tmp_path / "packages",
        "deaf-dist",
        entry_points={"tracarbon.hooks": {"deaf": "deaf_plugin"}},
        modules={"deaf_plugin": "def tracarbon_stopped(): pass\n"},
    )
    (tmp_path / "pipeline.toml").write_text("[sensors.estimate]\n[hooks.deaf]\n")
    env = environment(PYTHONPATH=str(tmp_path / "packages"))
    checked = run("check", "-c", "pipeline.toml", cwd=tmp_path, env=env)
    assert checked.status == 2
    assert checked.stderr == (
        "pipeline.toml: 1 problem\n  line 2  hooks.deaf   it would hear of nothing: mark the functions or methods that "
        "listen with @hookimpl\n          deaf, from deaf-dist 1.0.0\n"
    )


def test_a_file_that_is_only_checked_is_told_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text('[sensors.estimate]\n[hooks.acme_listener]\npath = "told"\n')
    assert run("check", "-c", "pipeline.toml", cwd=tmp_path).status == 0
    assert not (tmp_path / "told").exists()

"""Starting the installed `tracarbon` command as a user would, and waiting for what it says; all within deadlines."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeAlias

from tests.support.overlay import popen_in_overlay
from tests.support.powercap_tree import PowercapTree

TRACARBON = Path(sys.executable).parent / "tracarbon"
DEADLINE_SECONDS = 60.0
PATIENCE = Path(__file__).parent / "patience"
"""With this folder in PYTHONPATH, programs are patient with a slow machine; PATIENCE_SECONDS says how patient."""

Record: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What came of a program."""

    status: int
    stdout: str
    stderr: str


def environment(*, is_patient: bool = True, **variables: str) -> dict[str, str]:
    """Return a small environment without settings of tracarbon but `variables`; the time zone names no country.

    Without `is_patient`, programs have the limits of time that they have for users: for tests of what is late.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    all_of_it = {**kept, "TZ": "UTC", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1", **variables}
    if is_patient:
        folders = [*filter(None, [all_of_it.get("PYTHONPATH")]), str(PATIENCE)]
        all_of_it["PYTHONPATH"] = os.pathsep.join(folders)
    return all_of_it


class Program:
    """A running program; killed on leaving the `with` block if it has not ended by then."""

    def __init__(self, process: "subprocess.Popen[Any]") -> None:
        self.process = process
        self._output: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._collect, args=(name, stream), daemon=True)
            for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
            if stream is not None
        ]
        self._open_streams = len(self._threads)
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A program that is stopped cannot be waited for, but it can be killed.
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def output(self, name: str = "stdout") -> str:
        """What it has said so far."""
        return "".join(self._output[name])

    def wait_for(self, pattern: str, name: str = "stdout", *, times: int = 1) -> str:
        """Wait until a pattern has been said so many times; returns all that was said by then."""
        regex = re.compile(pattern, re.MULTILINE)
        with self._changed:
            said = self._changed.wait_for(
                lambda: len(regex.findall(self.output(name))) >= times or not self._open_streams, DEADLINE_SECONDS
            )
        text = self.output(name)
        assert len(regex.findall(text)) >= times, (
            f"{pattern!r} was not said {times} times {'before it ended' if said else 'in time'}:\n"
            f"{self.output()}\n{self.output('stderr')}"
        )
        return text

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def interrupt_twice(self) -> None:
        """Send two signals; of different numbers, since two of one number that a program has not seen yet are one."""
        self.send(signal.SIGINT)
        self.send(signal.SIGTERM)

    def wait(self, seconds: float = DEADLINE_SECONDS) -> Result:
        """Wait until it ends."""
        status = self.process.wait(seconds)
        for thread in self._threads:
            thread.join(seconds)
        return Result(status, self.output(), self.output("stderr"))

    def stop(self, number: int = signal.SIGINT) -> Result:
        """Send a signal and wait until it ends."""
        self.send(number)
        return self.wait()

    def _collect(self, name: str, stream: IO[str]) -> None:
        with suppress(ValueError):
            for line in stream:
                with self._changed:
                    self._output[name].append(line)
                    self._changed.notify_all()
        with self._changed:
            self._open_streams -= 1
            self._changed.notify_all()


def start(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    python: Sequence[str] = (),
    stdout: int = subprocess.PIPE,
) -> Program:
    """Start `tracarbon` with these arguments; with `python`, through the interpreter with these options."""
    assert TRACARBON.exists(), "the distributions are not installed beside this interpreter"
    command = [*([sys.executable, *python] if python else []), str(TRACARBON), *map(str, arguments)]
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(env if env is not None else environment()),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Program(process)


def run(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None, python: Sequence[str] = ()) -> Result:
    """Run `tracarbon` with these arguments to its end."""
    with start(*arguments, cwd=cwd, env=env, python=python) as program:
        return program.wait()


def start_in_overlay(
    tree: PowercapTree, *arguments: str | Path, cwd: Path, as_nobody: bool = False, env: Mapping[str, str] | None = None
) -> Program:
    """Start `tracarbon` where /sys has the zones of `tree`."""
    process = popen_in_overlay(
        tree,
        [sys.executable, TRACARBON, *arguments],
        as_nobody=as_nobody,
        env=env if env is not None else environment(),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Program(process)


def read_records(path: Path) -> list[Record]:
    """Return the records of a file of JSON lines, or of a JSON array; none where there is no file yet."""
    if not path.exists():
        return []
    text = path.read_text()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    records: list[Record] = json.loads(text)
    return records


def records_so_far(path: Path) -> list[Record]:
    """Return the records of a file that a program is writing: where a write was seen half done, those before it."""
    if path.suffix == ".jsonl":
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]
    try:
        return read_records(path)
    except json.JSONDecodeError:
        return []


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Look at a condition again and again until it holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.01)


def figures(records: Sequence[Record], name: str) -> Iterator[Record]:
    """Return the records of one metric, whatever its prefix."""
    return (record for record in records if record["name"].rpartition(".")[2] == name)


def make_distribution(
    folder: Path,
    name: str,
    *,
    entry_points: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str],
    version: str = "1.0.0",
    requires: Sequence[str] = (),
    description: str = "",
) -> None:
    """Lay out an installed distribution in a folder for PYTHONPATH: modules, and the metadata that pip would write."""
    folder.mkdir(exist_ok=True)
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    metadata = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {it}" for it in requires),
    ]
    (info / "METADATA").write_text("\n".join(metadata) + f"\n\n{description}\n")
    lines = [
        line
        for group, names in entry_points.items()
        for line in (f"[{group}]", *(f"{plugin} = {target}" for plugin, target in names.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")

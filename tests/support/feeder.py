"""A process that lets the zones of a powercap tree use energy at known wattages, and knows the truth afterwards.

    python -m tests.support.feeder ROOT --watts intel-rapl:0=50 --truth truth.json --event 2.5:reset:intel-rapl:0

It prints one line ``ready`` when the counters stand as scripted and time starts, runs for ``--seconds`` or until
SIGTERM, and then writes the truth. All times are those of CLOCK_MONOTONIC, which every process of the machine shares.
"""

import argparse
import json
import math
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from tests.support.powercap_tree import PowercapTree

Action: TypeAlias = Literal["wrap", "reset", "garble", "hide", "restore"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to a zone `at` seconds after the start.

    ``wrap`` places the counter at the start such that it passes its range then, by consumption alone. ``reset`` sets it
    to 0. ``garble`` empties its text and ``hide`` takes the zone and its sub-zones away, until ``restore``, after which
    the counters stand where they would have been. Energy is used, and is part of the truth, all the while.
    """

    at: float
    action: Action
    key: str

    @classmethod
    def parse(cls, text: str) -> "Event":
        """Read ``SECONDS:ACTION:KEY``."""
        at, action, key = text.split(":", 2)
        if action not in get_args(Action):
            raise ValueError(f"{action!r} is no action: use one of {', '.join(get_args(Action))}")
        return cls(float(at), cast(Action, action), key)


@dataclass(frozen=True, slots=True)
class Truth:
    """What the zones really used.

    `log` has one entry per tick: the time and, in the order of `keys`, the joules since the start that the counters had
    shown by then, over all wraps, resets and faults.
    """

    keys: tuple[str, ...]
    log: tuple[tuple[float, tuple[float, ...]], ...]

    @property
    def start(self) -> float:
        """Time of the first entry."""
        return self.log[0][0]

    @property
    def end(self) -> float:
        """Time of the last entry."""
        return self.log[-1][0]

    def joules_until(self, key: str, at: float) -> float:
        """Joules of a zone from the start until `at`, interpolated between two ticks."""
        if not self.start <= at <= self.end:
            raise ValueError(f"the truth is known from {self.start} to {self.end}, not at {at}")
        zone = self.keys.index(key)
        after = min(bisect_right(self.log, at, key=lambda entry: entry[0]), len(self.log) - 1)
        (t0, before_joules), (t1, after_joules) = self.log[after - 1], self.log[after]
        share = (at - t0) / (t1 - t0)
        return before_joules[zone] + share * (after_joules[zone] - before_joules[zone])

    def joules_between(self, key: str, start: float, end: float) -> float:
        """Joules of a zone in a window."""
        return self.joules_until(key, end) - self.joules_until(key, start)

    def step_joules(self, key: str) -> float:
        """The zone's largest step: as much as one reading can differ from `joules_until` at its instant."""
        zone = self.keys.index(key)
        values = [joules[zone] for _, joules in self.log]
        return max(after - before for before, after in pairwise(values))

    def save(self, path: Path) -> None:
        """Write as JSON."""
        totals = dict(zip(self.keys, self.log[-1][1], strict=True))
        path.write_text(json.dumps({"keys": self.keys, "joules": totals, "log": self.log}))

    @classmethod
    def load(cls, path: Path) -> "Truth":
        """Read what `save` wrote."""
        data = json.loads(path.read_text())
        return cls(tuple(data["keys"]), tuple((at, tuple(joules)) for at, joules in data["log"]))


class Feeder:
    """Advances the counters of `tree` by `watts` (zone key to watts), once per period, until told to stop.

    A feeder that was held up makes one long step; with `longest_step_seconds` it rather uses less than the watts, as it
    uses nothing between `hold` and `go_on`. The truth has what was used. Other threads may hold it, and have it `do`
    something to a zone.
    """

    def __init__(
        self,
        tree: PowercapTree,
        watts: Mapping[str, float],
        *,
        period_seconds: float = 0.02,
        events: Sequence[Event] = (),
        clock: Callable[[], float] = time.monotonic,
        longest_step_seconds: float = math.inf,
    ) -> None:
        self._tree = tree
        self._watts = dict(watts)
        self._period_seconds = period_seconds
        self._events = sorted((event for event in events if event.action != "wrap"), key=lambda event: event.at)
        self._ranges_uj = {key: tree.range_uj(key) for key in watts}
        # What the counter would show, in microjoules, had the zone used nothing since the start.
        self._origins_uj = {key: tree.value(key) for key in watts}
        for event in events:
            if event.action == "wrap":
                self._origins_uj[event.key] = round(-self._watts[event.key] * event.at * 1e6)
        self._unreachable: set[str] = set()
        self._clock = clock
        self._log: list[tuple[float, tuple[float, ...]]] = []
        self._longest_step_seconds = longest_step_seconds
        self._is_held = False
        self._elapsed = self._unused_seconds = 0.0
        self._lock = threading.Lock()

    @property
    def truth(self) -> Truth:
        """The truth so far."""
        return Truth(tuple(self._watts), tuple(self._log))

    def run(
        self, stop: threading.Event, seconds: float | None = None, on_ready: Callable[[], None] | None = None
    ) -> None:
        """Feed until `stop` is set, or for `seconds`; `on_ready` is called once the counters stand as scripted."""
        start = self._clock()
        self.tick(start)
        if on_ready is not None:
            on_ready()
        tick = 0
        while not stop.is_set() and (seconds is None or self._clock() < start + seconds):
            tick = max(tick + 1, int((self._clock() - start) / self._period_seconds))
            stop.wait(max(0.0, start + tick * self._period_seconds - self._clock()))
            self.tick(self._clock())

    def tick(self, now: float) -> None:
        """Bring every counter to where it is at `now`; the first call starts the time."""
        with self._lock:
            self._pass_time(now)
            while self._events and self._events[0].at <= self._elapsed:
                self._apply(self._events.pop(0), self._elapsed)
            joules = []
            for key, watts in self._watts.items():
                used_uj = int(watts * self._elapsed * 1e6)
                joules.append(used_uj / 1e6)
                if key not in self._unreachable:
                    self._tree.set(key, (self._origins_uj[key] + used_uj) % self._ranges_uj[key])
            self._log.append((now, tuple(joules)))

    @property
    def elapsed_seconds(self) -> float:
        """How long the zones have used their watts by now."""
        return self._elapsed

    def hold(self) -> None:
        """Let the zones use nothing until `go_on`."""
        with self._lock:
            self._is_held = True

    def go_on(self) -> None:
        """Let the zones use their watts again."""
        with self._lock:
            self._is_held = False

    def do(self, action: Action, key: str, *, lost_uj: int = 0) -> None:
        """Let something happen to a zone now, other than a wrap.

        After a reset the counter shows `lost_uj`: energy that nobody can tell from the rest, and no part of the truth.
        """
        with self._lock:
            self._apply(Event(self._elapsed, action, key), self._elapsed)
            self._origins_uj[key] += lost_uj

    def _pass_time(self, now: float) -> None:
        start = self._log[0][0] if self._log else now
        elapsed = now - start - self._unused_seconds
        step = elapsed - self._elapsed
        used = 0.0 if self._is_held else min(step, self._longest_step_seconds)
        self._unused_seconds += step - used
        self._elapsed = elapsed - (step - used)

    def _apply(self, event: Event, elapsed: float) -> None:
        inside = {key for key in self._watts if key == event.key or key.startswith(f"{event.key}:")}
        match event.action:
            case "reset":
                self._origins_uj[event.key] = -int(self._watts[event.key] * elapsed * 1e6)
            case "garble":
                self._tree.garble(event.key)
                self._unreachable.add(event.key)
            case "hide":
                self._tree.hide(event.key)
                self._unreachable |= inside
            case "restore":
                if not self._tree.path(event.key).exists():
                    self._tree.restore(event.key)
                self._unreachable -= inside


def start_feeder(
    root: Path,
    watts: Mapping[str, float],
    truth: Path,
    *,
    period_seconds: float = 0.02,
    seconds: float | None = None,
    events: Sequence[Event] = (),
) -> "subprocess.Popen[str]":
    """Start a feeder on the tree at `root` in a process of its own, and return once it is feeding.

    Terminate it with ``terminate()`` and ``wait()``, then read `truth` with `Truth.load`.
    """
    command = [sys.executable, "-m", "tests.support.feeder", str(root), "--truth", str(truth)]
    command += ["--period", str(period_seconds)]
    command += [part for key, power in watts.items() for part in ("--watts", f"{key}={power}")]
    command += [part for e in events for part in ("--event", f"{e.at}:{e.action}:{e.key}")]
    if seconds is not None:
        command += ["--seconds", str(seconds)]
    repository = Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise RuntimeError(f"the feeder ended with status {process.wait()} before it fed anything")
    # The line above is all it prints.
    process.stdout.close()
    return process


def _watts_argument(text: str) -> tuple[str, float]:
    key, _, watts = text.partition("=")
    return key, float(watts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the feeder of the command line."""
    parser = argparse.ArgumentParser(description="advance the counters of a powercap tree at known wattages")
    parser.add_argument("root", type=Path)
    parser.add_argument("--watts", type=_watts_argument, action="append", required=True, metavar="KEY=WATTS")
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--period", type=float, default=0.02)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--event", type=Event.parse, action="append", default=[], metavar="SECONDS:ACTION:KEY")
    options = parser.parse_args(arguments)
    stop = threading.Event()

    def on_signal(*_: object) -> None:
        # The handler may have interrupted `stop.wait` while it held the event's lock, which `set` needs.
        threading.Thread(target=stop.set).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    feeder = Feeder(
        PowercapTree(options.root), dict(options.watts), period_seconds=options.period, events=options.event
    )
    feeder.run(stop, options.seconds, on_ready=lambda: print("ready", flush=True))
    feeder.truth.save(options.truth)


if __name__ == "__main__":
    main()

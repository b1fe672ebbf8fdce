"""A made-up powercap tree, laid out file by file as the kernel lays out /sys, with counters that a test moves.

The state lives in the files alone, so that several processes (a test, a feeder, a sensor) can share one tree.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE_RANGE_UJ = 262_143_328_850
DRAM_RANGE_UJ = 65_712_999_613
# The widest 64-bit counter has 20 digits; a fixed width lets a write replace the whole text at once.
_COUNTER_DIGITS = 20


@dataclass(frozen=True, slots=True)
class ZoneSpec:
    """One zone of a tree to build.

    `max_power_uw` and `power_limit_uw` go into ``constraint_0_*``; a `max_power_uw` of None leaves the file out, as for
    zones without one. A `max_range_uj` of None leaves out ``max_energy_range_uj``.
    """

    name: str
    children: tuple["ZoneSpec", ...] = ()
    max_range_uj: int | None = PACKAGE_RANGE_UJ
    initial_uj: int = 1_000_000
    max_power_uw: int | None = None
    power_limit_uw: int = 0
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class TreeSpec:
    """The top zones of the two control types, in the order in which the kernel would number them."""

    msr: tuple[ZoneSpec, ...] = ()
    mmio: tuple[ZoneSpec, ...] = ()


def package(
    socket: int,
    *inner: str,
    die: int | None = None,
    max_power_uw: int | None = 165_000_000,
    max_range_uj: int | None = PACKAGE_RANGE_UJ,
) -> ZoneSpec:
    """Describe a package with the sub-zones named `inner`."""
    name = f"package-{socket}" if die is None else f"package-{socket}-die-{die}"
    return ZoneSpec(
        name,
        children=tuple(_inner(zone) for zone in inner),
        max_range_uj=max_range_uj,
        max_power_uw=max_power_uw,
        power_limit_uw=max_power_uw or 0,
    )


def _inner(name: str) -> ZoneSpec:
    if name == "dram":
        return ZoneSpec(name, max_range_uj=DRAM_RANGE_UJ, max_power_uw=40_000_000)
    return ZoneSpec(name)


def psys(max_power_uw: int | None = None) -> ZoneSpec:
    """Describe the whole-platform zone, a top zone of its own."""
    return ZoneSpec("psys", max_power_uw=max_power_uw)


def one_socket() -> TreeSpec:
    """``intel-rapl:0`` package-0, with core (``:0:0``), uncore (``:0:1``) and dram (``:0:2``)."""
    return TreeSpec(msr=(package(0, "core", "uncore", "dram"),))


def two_sockets_eight_zones() -> TreeSpec:
    """``intel-rapl:0`` and ``intel-rapl:1``, each with core (``:N:0``), uncore (``:N:1``) and dram (``:N:2``)."""
    return TreeSpec(msr=tuple(package(socket, "core", "uncore", "dram") for socket in (0, 1)))


class PowercapTree:
    """A tree below `root`, which stands for /sys: built when a description is given, else one that is there already.

    Zones are named by the kernel's key (``intel-rapl:0:1``). Counters have the kernel's mode 0400, and are written in
    place, as sysfs does: a reader's open descriptor sees the new value.
    """

    def __init__(self, root: Path, spec: TreeSpec | None = None) -> None:
        self.root = root
        self.class_folder = root / "class"
        self.virtual_folder = root / "devices" / "virtual"
        self.powercap = self.class_folder / "powercap"
        self._devices = self.virtual_folder / "powercap"
        self._hidden = root / "hidden"
        if spec is not None:
            self._build(spec)

    def keys(self) -> list[str]:
        """All zones that are not hidden, packages before their sub-zones."""
        return sorted(path.parent.name for path in self._devices.rglob("energy_uj"))

    def path(self, key: str) -> Path:
        """The real folder of a zone."""
        control_type, *numbers = key.split(":")
        folders = (":".join((control_type, *numbers[:depth])) for depth in range(len(numbers) + 1))
        return self._devices.joinpath(*folders)

    def counter(self, key: str) -> Path:
        """The zone's ``energy_uj``."""
        return self.path(key) / "energy_uj"

    def value(self, key: str) -> int:
        """Microjoules that the counter shows now."""
        return int(self.counter(key).read_bytes())

    def range_uj(self, key: str) -> int:
        """Microjoules at which the counter starts again from 0; that of a package where the zone does not tell."""
        try:
            return int((self.path(key) / "max_energy_range_uj").read_bytes())
        except FileNotFoundError:
            return PACKAGE_RANGE_UJ

    def set(self, key: str, microjoules: int) -> None:
        """Write the counter in place."""
        self._write(key, b"%-*d\n" % (_COUNTER_DIGITS, microjoules))

    def advance(self, key: str, microjoules: int) -> None:
        """Let the zone use energy: the counter grows, and wraps at its range."""
        self.set(key, (self.value(key) + microjoules) % self.range_uj(key))

    def reset(self, key: str) -> None:
        """Start the counter again from 0, as a reloaded module does."""
        self.set(key, 0)

    def garble(self, key: str, text: bytes = b"") -> None:
        """Replace the counter's text, in place, by something that is no number; `set` mends it."""
        self._write(key, text, truncate=True)

    def hide(self, key: str) -> None:
        """Take a zone and its sub-zones away.

        Descriptors that are open read empty text from then on (the kernel would give ENODEV, which no ordinary file
        can); paths give ENOENT.
        """
        for inner in self._inside(key):
            self.garble(inner)
            (self.powercap / inner).unlink()
        self._hidden.mkdir(exist_ok=True)
        self.path(key).rename(self._hidden / key)

    def restore(self, key: str, microjoules: int = 0) -> None:
        """Bring a hidden zone and its sub-zones back, with counters at `microjoules`.

        The files keep their inodes, so that this also works below an overlay, which holds on to them.
        """
        (self._hidden / key).rename(self.path(key))
        for inner in self._inside(key):
            self.set(inner, microjoules)
            self._link(self.path(inner))

    def chmod(self, mode: int, *keys: str) -> None:
        """Change the mode of the counters of `keys`, or of all."""
        for key in keys or self.keys():
            self.counter(key).chmod(mode)

    def _inside(self, key: str) -> list[str]:
        return [path.parent.name for path in self.path(key).rglob("energy_uj")]

    def _write(self, key: str, text: bytes, *, truncate: bool = False) -> None:
        with _writable(self.counter(key)) as descriptor:
            if truncate:
                os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text, 0)

    def _build(self, spec: TreeSpec) -> None:
        self.powercap.mkdir(parents=True)
        for control_type, zones in (("intel-rapl", spec.msr), ("intel-rapl-mmio", spec.mmio)):
            if zones:
                folder = self._devices / control_type
                folder.mkdir(parents=True)
                (folder / "enabled").write_text("1\n")
                self._link(folder)
                self._build_zones(control_type, folder, zones)

    def _build_zones(self, key: str, parent: Path, zones: Sequence[ZoneSpec]) -> None:
        for number, spec in enumerate(zones):
            folder = parent / f"{key}:{number}"
            folder.mkdir()
            for name, text in _files(spec):
                (folder / name).write_text(text)
                (folder / name).chmod(0o444)
            (folder / "device").symlink_to(f"../../{parent.name}")
            self._link(folder)
            (folder / "energy_uj").touch(mode=0o400)
            self.set(folder.name, spec.initial_uj)
            self._build_zones(folder.name, folder, spec.children)

    def _link(self, folder: Path) -> None:
        (self.powercap / folder.name).symlink_to(os.path.relpath(folder, self.powercap))
        subsystem = folder / "subsystem"
        if not subsystem.is_symlink():
            subsystem.symlink_to(os.path.relpath(self.powercap, folder))


def _files(spec: ZoneSpec) -> Iterator[tuple[str, str]]:
    yield "name", f"{spec.name}\n"
    yield "enabled", f"{int(spec.enabled)}\n"
    if spec.max_range_uj is not None:
        yield "max_energy_range_uj", f"{spec.max_range_uj}\n"
    yield "constraint_0_name", "long_term\n"
    yield "constraint_0_power_limit_uw", f"{spec.power_limit_uw}\n"
    yield "constraint_0_time_window_us", "999424\n"
    if spec.max_power_uw is not None:
        yield "constraint_0_max_power_uw", f"{spec.max_power_uw}\n"


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except PermissionError:
        # The owner of a 0400 file who is not root.
        mode = path.stat().st_mode
        path.chmod(mode | 0o200)
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        path.chmod(mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

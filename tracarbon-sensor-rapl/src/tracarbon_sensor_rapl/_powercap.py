"""Energy counters of the kernel's powercap tree (RAPL): where they are, what they are, and how to read them cheaply.

A powercap *zone* is a folder such as ``intel-rapl:0`` with a growing counter ``energy_uj`` in microjoules, which
starts again from 0 at ``max_energy_range_uj``. Processors of AMD appear under the same ``intel-rapl`` names. The layout
is that of the kernel's Documentation/power/powercap/powercap.rst. Nothing here interprets a counter: `ZoneReader` hands
out what the kernel wrote, and wraps, resets and watts are the business of whoever asks.

    with ZoneReader(find_zones(POWERCAP)) as reader:
        for zone, reading in zip(reader.zones, reader.read(), strict=True):
            ...  # an int in microjoules, or the error of this zone alone
"""

import errno
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

POWERCAP = Path("/sys/class/powercap")
"""Where the kernel shows its powercap zones."""

Reading: TypeAlias = int | OSError | ValueError
"""What one zone gave: its counter in microjoules, or the error that kept it from us."""

_MSR, _MMIO = "intel-rapl", "intel-rapl-mmio"
_ZONE_NAME = re.compile(r"(intel-rapl|intel-rapl-mmio)((?::\d+)+)")
_PACKAGE_NAME = re.compile(r"package-\d+(?:-die-\d+)?")
_LIMIT_NAME = re.compile(r"constraint_\d+_(?:max_power|power_limit)_uw")
# Longer than any 64-bit counter with its newline.
_COUNTER_BYTES = 32


class ZoneKind(Enum):
    """What a zone measures.

    ``CORE`` and ``UNCORE`` are parts of their ``PACKAGE``. ``DRAM`` is not, although its folder is inside; and ``PSYS``
    is the whole platform, which contains all the others.
    """

    PACKAGE = "package"
    CORE = "core"
    UNCORE = "uncore"
    DRAM = "dram"
    PSYS = "psys"
    OTHER = "other"

    @classmethod
    def of(cls, name: str) -> "ZoneKind":
        """Tell the kind from the text of a zone's ``name`` file, by the exact name: 'core' is also in 'uncore'."""
        if _PACKAGE_NAME.fullmatch(name):
            return cls.PACKAGE
        return _KINDS.get(name, cls.OTHER)


_KINDS = {kind.value: kind for kind in (ZoneKind.CORE, ZoneKind.UNCORE, ZoneKind.DRAM, ZoneKind.PSYS)}


@dataclass(frozen=True, slots=True)
class Zone:
    """One energy counter.

    Attributes:
        key: the kernel's name of the folder (``intel-rapl:0:1``); unique, but numbered in the order of registration.
        label: name for humans, unique among the zones found together: ``package-0``, ``dram-0``, ``core-0-die-1``,
            ``psys``. The second of two equal names has its key appended (``psys-intel-rapl:3``).
        kind: what it measures.
        parent: label of the package whose folder holds this zone; ``None`` for a package or psys itself.
        path: folder of the zone.
        max_range_uj: microjoules at which the counter starts again from 0; ``None`` where the kernel does not tell.
        max_power_uw: the largest of the zone's maximum powers and power limits in microwatts, an upper bound of what
            it can draw for long; ``None`` where there is none, or only 0.
        counter: name of the counter's file inside ``path``.
    """

    key: str
    label: str
    kind: ZoneKind
    parent: str | None
    path: Path
    max_range_uj: int | None
    max_power_uw: int | None
    counter: str = "energy_uj"

    @property
    def counter_path(self) -> Path:
        """The file with the counter, for messages and for `explain`."""
        return self.path / self.counter


def find_zones(powercap: Path = POWERCAP) -> list[Zone]:
    """Find every RAPL zone below a folder, sub-zones included, ordered by the numbers in their keys.

    The folder may be ``/sys/class/powercap`` (links into ``/sys/devices/virtual``), one control type inside it
    (``/sys/class/powercap/intel-rapl``), or any plain folder nested like that. A zone that the MSR and the MMIO
    interface both show counts once, by MSR unless only its MMIO twin can be read. Zones whose power capping is switched
    off (``enabled`` is 0) still count energy and are included, and so are zones that may not be read: their reading
    says why. What vanishes during the search is left out. Zones that appear later need another search.

    Raises:
        OSError: `powercap` itself cannot be listed (`explain` has words for it). A folder without zones gives ``[]``.
    """
    search = _Search(powercap)
    kept = sorted(search.without_twins(), key=_natural)
    labels = _unique_labels((key, search.label(key)) for key in kept)
    by_chain = {search.chain(key): label for key, label in reversed(labels.items())}
    return [search.zone(key, label, by_chain) for key, label in labels.items()]


class _Search:
    """The folders and names of all zones below one folder, twins and all."""

    def __init__(self, powercap: Path) -> None:
        folders = _zone_folders(powercap)
        self._names = {key: name for key, path in folders.items() if (name := _zone_name(key, path)) is not None}
        self._folders = folders

    def chain(self, key: str) -> tuple[str, ...]:
        """Names from the package down to the zone: the same for an MSR zone and its MMIO twin."""
        control_type, *numbers = key.split(":")
        keys = (":".join((control_type, *numbers[: depth + 1])) for depth in range(len(numbers)))
        return tuple(self._names.get(ancestor, ancestor) for ancestor in keys)

    def without_twins(self) -> Iterator[str]:
        devices: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
        for key in self._names:
            msr, mmio = devices.setdefault(self.chain(key), ([], []))
            (mmio if key.startswith(_MMIO) else msr).append(key)
        for msr, mmio in devices.values():
            use_mmio = mmio and (not msr or (not self._any_readable(msr) and self._any_readable(mmio)))
            yield from mmio if use_mmio else msr

    def _any_readable(self, keys: Iterable[str]) -> bool:
        return any(_read_int(self._folders[key] / "energy_uj") is not None for key in keys)

    def label(self, key: str) -> str:
        package, *inner = self.chain(key)
        if not inner or self._names[key] == key:
            return self._names[key]
        socket = package.removeprefix("package-") if ZoneKind.of(package) is ZoneKind.PACKAGE else key.split(":")[1]
        return f"{inner[-1]}-{socket}"

    def zone(self, key: str, label: str, labels: dict[tuple[str, ...], str]) -> Zone:
        package, *inner = self.chain(key)
        enclosing = (package,) if inner and ZoneKind.of(package) is ZoneKind.PACKAGE else None
        path = self._folders[key]
        return Zone(
            key=key,
            label=label,
            kind=ZoneKind.of(self._names[key]),
            parent=labels.get(enclosing) if enclosing else None,
            path=path,
            max_range_uj=_read_int(path / "max_energy_range_uj") or None,
            max_power_uw=_max_power_uw(path),
        )


def _zone_folders(powercap: Path) -> dict[str, Path]:
    # Breadth first, so that the shortest path to a zone wins. The links back up (device, subsystem) match no name.
    found: dict[str, Path] = {}
    pending = [(powercap, [entry.name for entry in powercap.iterdir()])]
    for folder, names in pending:
        for name in names:
            if _ZONE_NAME.fullmatch(name) and name not in found:
                found[name] = folder / name
            elif name not in (_MSR, _MMIO):
                continue
            pending.append((folder / name, _list_folder(folder / name)))
    return found


def _list_folder(folder: Path) -> list[str]:
    # A zone that has just gone, or is closed to us, must not hide the others.
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []


def _zone_name(key: str, folder: Path) -> str | None:
    """Text of the ``name`` file; None if the zone is gone, its key if the name cannot be had for another reason."""
    try:
        return (folder / "name").read_bytes().decode(errors="replace").strip() or key
    except OSError as error:
        return None if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR) else key


def _natural(key: str) -> tuple[str, list[int]]:
    control_type, *numbers = key.split(":")
    return control_type, [int(number) for number in numbers]


def _unique_labels(labelled: Iterable[tuple[str, str]]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for key, label in labelled:
        labels[key] = f"{label}-{key}" if label in labels.values() else label
    return labels


def _read_int(path: Path) -> int | None:
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return None


def _max_power_uw(folder: Path) -> int | None:
    limits = (_read_int(folder / name) for name in _list_folder(folder) if _LIMIT_NAME.fullmatch(name))
    return max((limit for limit in limits if limit), default=None)


class ZoneReader:
    """The counters of some zones, kept open: a context manager that costs one `os.pread` per zone and reading.

    A zone that fails, whatever the error, is closed and opened anew by a later `read`, so that a zone that comes back
    (module reloaded, processor online again, mode changed) is used again. Attempts to open are at least `retry_seconds`
    apart by `clock`, whatever the sampling interval; the clock is asked only while some zone is failing.

    Not safe for several threads at once.
    """

    def __init__(
        self, zones: Sequence[Zone], *, clock: Callable[[], float] = time.monotonic, retry_seconds: float = 1.0
    ) -> None:
        self.zones = tuple(zones)
        self._paths = [os.fspath(zone.counter_path) for zone in self.zones]
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._retry_at = 0.0
        # -1 is no descriptor: reading it fails, which keeps the loop of `read` free of a test per zone.
        self._descriptors: list[int] = []
        self._errors: dict[int, OSError | ValueError] = {}
        self._is_open = False

    def __enter__(self) -> Self:
        """Open every counter that can be opened; those that cannot have their error in each `read`."""
        self.close()
        self._is_open = True
        self._descriptors = [-1] * len(self._paths)
        self._open(range(len(self._paths)))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every descriptor. May be called more than once; entering again opens them again."""
        descriptors, self._descriptors, self._is_open = self._descriptors, [], False
        self._errors.clear()
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def read(self) -> list[Reading]:
        """Read each counter once.

        Returns:
            In the order of `zones`, the counter in microjoules, or the `OSError` (with its file name) or `ValueError`
            (empty or garbled text) that this zone met. One zone's error never affects another's reading. Never ``0``
            in place of an unknown counter.

        Raises:
            RuntimeError: the reader was not entered, or is closed.
        """
        if not self._is_open:
            raise RuntimeError("this ZoneReader is closed: use it inside a 'with' statement")
        if self._errors and self._clock() >= self._retry_at:
            self._open(list(self._errors))
        readings: list[Reading] = []
        pread = os.pread
        for descriptor in self._descriptors:
            try:
                readings.append(int(pread(descriptor, _COUNTER_BYTES, 0)))
            except (OSError, ValueError) as error:
                readings.append(self._failed(len(readings), error))
        return readings

    def _open(self, indexes: Iterable[int]) -> None:
        self._retry_at = self._clock() + self._retry_seconds
        for index in indexes:
            try:
                self._descriptors[index] = os.open(self._paths[index], os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                self._errors[index] = error
            else:
                self._errors.pop(index, None)

    def _failed(self, index: int, error: OSError | ValueError) -> OSError | ValueError:
        descriptor = self._descriptors[index]
        if descriptor < 0:
            return self._errors[index]
        self._descriptors[index] = -1
        os.close(descriptor)
        path = self._paths[index]
        self._errors[index] = (
            OSError(error.errno, error.strerror, path)
            if isinstance(error, OSError)
            else ValueError(f"{path}: not an energy counter: {error}")
        )
        return self._errors[index]


def explain(error: OSError, path: Path) -> tuple[str, str]:
    """Say for humans why energy counters cannot be used and what would help.

    Args:
        error: what listing, opening or reading raised. For a folder that exists but holds no zone, pass a
            `FileNotFoundError` with that folder.
        path: the counter's file (`Zone.counter_path`), or the folder that was searched.

    Returns:
        The reason and the remedy, one line each, without a full stop at the end. A remedy for closed counters names the
        group ``tracarbon``, which the administrator creates.
    """
    is_counter = path.name.startswith("energy")
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return _explain_denied(path, is_counter)
        case errno.ENOENT | errno.ENODEV | errno.ENOTDIR if is_counter:
            return (
                f"{path} is gone: the kernel took the zone away (module unloaded, or processor offline)",
                "nothing to do if it comes back, it is tried again; else 'modprobe intel_rapl_msr'",
            )
        case errno.ENOENT | errno.ENODEV | errno.ENOTDIR:
            return _explain_missing(path)
        case _:
            detail = error.strerror or str(error) or type(error).__name__
            return f"{path} cannot be read: {detail}", "no remedy is known; the kernel log (dmesg) may say more"


def _explain_denied(path: Path, is_counter: bool) -> tuple[str, str]:
    if not is_counter:
        return f"{path} may not be listed by this user", "run as a user that may enter the folder"
    files, cve = "/sys/class/powercap/*:*/energy_uj", "CVE-2020-8694"
    if path.name != "energy_uj":
        files, cve = "/sys/class/hwmon/hwmon*/energy*_input", "CVE-2020-12912"
    return (
        f"{path} is readable by root only, as the kernel has it since {cve}",
        f"put the line 'z {files} 0440 root tracarbon' into /etc/tmpfiles.d/tracarbon.conf, run "
        "'systemd-tmpfiles --create' and run as a member of the group tracarbon; or give the service "
        "AmbientCapabilities=CAP_DAC_READ_SEARCH; or run as root",
    )


def _explain_missing(path: Path) -> tuple[str, str]:
    reason = f"{path} holds no RAPL zone" if path.is_dir() else f"{path} does not exist"
    return (
        f"{reason}: no energy counters here",
        "on a physical machine 'modprobe intel_rapl_msr' (and intel_rapl_common) may show them; a virtual machine "
        "rarely has them; in a container mount the host's /sys, since container runtimes hide powercap",
    )

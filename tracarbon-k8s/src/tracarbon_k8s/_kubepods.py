"""Where the cgroup of all pods is, and what the names of the cgroups in it mean.

The kubelet makes one cgroup for all pods, below it one for each class of service (but none for the class Guaranteed),
below that one for each pod, and the runtime one for each container in it. Their names depend on the cgroup driver and
on the kubelet's `--cgroup-root`; so names are recognised wherever they are, and depth means nothing.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_MOUNT = Path("sys/fs/cgroup")
_KUBEPODS = re.compile(r"kubepods|(?:.+-)?kubepods\.slice")
_POD = re.compile(r"pod([0-9A-Za-z-]+)|.+-pod([0-9A-Za-z_]+)\.slice")
_CONTAINER = re.compile(r"(?P<runtime>[a-z][a-z-]*-)?(?P<id>[0-9A-Za-z]+)(?:\.scope)?")
_DEEPEST = 6  # of the cgroup of all pods, below the mount: a node that is itself a container has it at 3 or 4
_HELP = (
    "This has to run on a node whose kubelet runs, with the node's /sys/fs/cgroup mounted; "
    'where the kubelet has a --cgroup-root of its own, set `cgroup_root`; or set `usage = "metrics-api"`'
)
_HELP_VERSION = 'Boot the node with `systemd.unified_cgroup_hierarchy=1`, or set `usage = "metrics-api"`'


class CgroupError(Exception):
    """The pods' cgroups cannot be read; says where they were looked for, why, and what would help."""


class Kubepods(NamedTuple):
    """Where the cgroup of all pods is.

    Attributes:
        directory: in the hierarchy of version 2, where the processors' time is counted.
        memory: the same cgroup where memory is counted: on a hybrid machine that is another hierarchy; `None`: nowhere.
        memory_name: the name of the file there, in every cgroup.
    """

    directory: Path
    memory: Path | None = None
    memory_name: str = "memory.current"


def find_kubepods(host_root: Path, cgroup_root: str | Path | None = None) -> Kubepods:
    """Find the cgroup of all pods. Where there are several, the one that has pods, and then the highest, is taken.

    Args:
        host_root: where the node's file system is seen, `/` outside a container.
        cgroup_root: where to look: the cgroup of all pods itself, or one above it. A path on the node, such as
            `/sys/fs/cgroup/kubepods`, or in its cgroups, as the kubelet has it, such as `/kubepods`.

    Raises:
        CgroupError: there is none, or this user may not read it.
    """
    try:
        root = _hierarchy(host_root / _MOUNT) if cgroup_root is None else _given(host_root, Path(cgroup_root))
        return _found_below(root)
    except OSError as error:
        raise CgroupError(f"{error.filename or host_root}: {error.strerror}. {_HELP}") from error


def _found_below(root: Path) -> Kubepods:
    found = min(_kubepods_below(root), key=lambda place: not _has_pods(place), default=None)
    if found is None:
        raise CgroupError(f"{root}: no cgroup of pods (kubepods or …kubepods.slice) is there. {_HELP}")
    if not _is_there(found / "cpu.stat"):
        raise CgroupError(f"{found}: has no cpu.stat, so it is not a cgroup of version 2. {_HELP_VERSION}")
    return _with_memory(found)


def _is_there(path: Path) -> bool:
    """Return whether something is there. What may not be seen is an error, and not absent as it is to some Pythons."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _is_folder(path: Path) -> bool:
    return _is_there(path) and path.is_dir()


def folders(place: str | Path) -> list[os.DirEntry[str]]:
    """Return the folders in a folder, in the order of their names.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(place) as entries:
        found = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(found, key=lambda entry: entry.name)


def pod_uid(name: str) -> str | None:
    """Return the UID of the pod whose cgroup has this name, with dashes as the API writes it; else `None`."""
    match = _POD.fullmatch(name)
    return (match[1] or match[2].replace("_", "-")) if match else None


def container_id(name: str) -> str | None:
    """Return the id of the container whose cgroup, in that of its pod, has this name.

    `None` for anything else, such as `crio-conmon-….scope`, which has the id of a container but is its monitor's.
    """
    match = _CONTAINER.fullmatch(name)
    return match["id"] if match and "conmon" not in (match["runtime"] or "") else None


def _given(host_root: Path, cgroup_root: Path) -> Path:
    """Return the folder that a path names, which is one of the node's, whether or not its root is in it."""
    if cgroup_root.is_relative_to(host_root) and _is_folder(cgroup_root):
        return cgroup_root
    inside = cgroup_root.relative_to(cgroup_root.anchor)
    mounts = (host_root, host_root / _MOUNT / "unified", host_root / _MOUNT)
    for root in (mount / inside for mount in mounts):
        if _is_folder(root):
            return root
    raise CgroupError(f"{cgroup_root}: there is no such folder in {host_root}, nor in {host_root / _MOUNT}. {_HELP}")


def _hierarchy(mount: Path) -> Path:
    """Return the hierarchy of version 2: all there is, or `unified` beside those of version 1."""
    for root in (mount, mount / "unified"):
        if _is_there(root / "cgroup.controllers"):
            return root
    if any(_is_folder(mount / controller) for controller in ("cpuacct", "cpu,cpuacct", "memory")):
        raise CgroupError(f"{mount}: this node has cgroups of version 1 only. {_HELP_VERSION}")
    raise CgroupError(f"{mount}: there are no cgroups. {_HELP}")


def _kubepods_below(root: Path) -> Iterator[Path]:
    """Yield every cgroup of all pods, the highest first."""
    waiting = deque([(root, 0)])
    while waiting:
        place, depth = waiting.popleft()
        if _KUBEPODS.fullmatch(place.name):
            yield place
        elif depth < _DEEPEST:
            inner = folders(place) if depth == 0 else _folders_if_any(place)
            waiting.extend((Path(entry.path), depth + 1) for entry in inner)


def _has_pods(place: Path) -> bool:
    return any(pod_uid(entry.name) or _has_pods(Path(entry.path)) for entry in _folders_if_any(place))


def _folders_if_any(place: Path) -> list[os.DirEntry[str]]:
    try:
        return folders(place)
    except (FileNotFoundError, PermissionError):
        return []


def _with_memory(directory: Path) -> Kubepods:
    if _is_there(directory / "memory.current"):
        return Kubepods(directory, directory)
    name = "memory.usage_in_bytes"
    for mount in directory.parents:
        place = mount.parent / "memory" / directory.relative_to(mount)
        if mount.name == "unified" and _is_there(place / name):
            return Kubepods(directory, place, name)
    return Kubepods(directory)

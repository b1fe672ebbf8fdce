"""What the pods' cgroups have counted, read from files that are kept open between the readings."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

from tracarbon_k8s._kubepods import CgroupError as CgroupError
from tracarbon_k8s._kubepods import Kubepods, container_id, find_kubepods, folders, pod_uid
from tracarbon_k8s._usage import CgroupReading, ContainerKey, Counters, Key

_LABEL = len(b"usage_usec ")
_NUMBER = 32  # bytes: the label and any 64-bit number with its end of line
_SECONDS = 1e-6  # of a microsecond
_TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE})
_pread = os.pread  # a look-up less in the inmost loop
_READ_ONLY = os.O_RDONLY | os.O_CLOEXEC


class CgroupReader:
    """Reads the counters of every pod and container of the node. One thread at a time may use it.

    Args:
        host_root: where the node's file system is seen, `/` outside a container.
        cgroup_root: the cgroup of all pods, or one above it, where it is not found by itself.
        max_descriptors: files to keep open at most; by default half of what the process may. What is beyond is opened
            for each reading, which takes some ten times longer.
    """

    def __init__(
        self, host_root: Path, cgroup_root: str | Path | None = None, *, max_descriptors: int | None = None
    ) -> None:
        self._host_root = host_root
        self._cgroup_root = cgroup_root
        if max_descriptors is None:
            max_descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self._files = _Files(max_descriptors)
        self._all_pods: _Level | None = None

    def read(self) -> CgroupReading:
        """Return the counters as they are now.

        Containers are read first, then their pod, and all pods last: so no part is ever ahead of the whole. A cgroup
        that ends meanwhile is left out: what it has used is in that of its pod, or in that of all pods.

        Raises:
            CgroupError: the cgroup of all pods is not there, or cannot be read.
        """
        reading = self._read(self._all_pods) if self._all_pods else None
        if reading is not None:
            return reading
        self.close()  # at first, and where the kubelet has made its cgroups anew
        found = find_kubepods(self._host_root, self._cgroup_root)
        self._all_pods = self._files.keep(_Level(_Place.of(found)))
        reading = self._read(self._all_pods)
        if reading is None:
            raise CgroupError(
                f"{found.directory}/cpu.stat: cannot be read. See that it is there, readable for this user, "
                "and that the process may open more files (ulimit -n)"
            )
        return reading

    def close(self) -> None:
        """Close every file; a later `read` opens them again."""
        if self._all_pods is not None:
            self._files.release(self._all_pods.everything())
            self._all_pods = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _read(self, all_pods: _Level) -> CgroupReading | None:
        containers: _Columns[ContainerKey] = {}, {}
        pods: _Columns[str] = {}, {}
        whole: _Columns[str] = {}, {}
        for level in self._levels(all_pods):
            if not self._read_pods(level.pods.values(), pods, containers):
                known = set(level.pods.values())
                self._find_pods(level)
                self._read_pods([pod for pod in level.pods.values() if pod not in known], pods, containers)
        if not self._files.read((all_pods,), *whole):
            return None
        return CgroupReading(Counters(*containers), Counters(*pods), whole[0][all_pods.key], whole[1].get(all_pods.key))

    def _read_pods(self, some: Iterable[_Pod], pods: _Columns[str], containers: _Columns[ContainerKey]) -> bool:
        """Put in what pods and their containers have counted; tell whether all pods are there."""
        are_there, read, stamp = True, self._files.read, self._files.stamp
        for pod in some:
            if pod.stamp is None or pod.stamp != stamp(pod):
                self._find_containers(pod)
            if not read(pod.containers.values(), *containers):
                self._find_containers(pod)
                read(pod.containers.values(), *containers)
            if not read((pod,), *pods):
                are_there = False
                for container in pod.containers.values():
                    containers[0].pop(container.key, None)
                    containers[1].pop(container.key, None)
        return are_there

    def _levels(self, level: _Level) -> Iterator[_Level]:
        """Yield the cgroups that pods are in, with the pods that are in them now."""
        if level.stamp is None or level.stamp != self._files.stamp(level):
            self._find_pods(level)
        yield level
        for inner in level.levels.values():
            yield from self._levels(inner)

    def _find_pods(self, level: _Level) -> None:
        stamp, level.stamp = self._files.stamp(level), None
        entries = self._files.folders(level)
        if entries is None:
            return
        pods, levels, keep = level.pods, level.levels, self._files.keep
        level.stamp, level.pods, level.levels = stamp, {}, {}
        for entry in entries:
            key, uid = (entry.name, entry.inode()), pod_uid(entry.name)
            if uid is None:
                level.levels[key] = levels.pop(key) if key in levels else keep(_Level(level.place.inside(entry.name)))
            else:
                level.pods[key] = pods.pop(key) if key in pods else keep(_Pod(uid, level.place.inside(entry.name)))
        for gone in (*pods.values(), *levels.values()):
            self._files.release(gone.everything())

    def _find_containers(self, pod: _Pod) -> None:
        stamp, pod.stamp = self._files.stamp(pod), None
        entries = self._files.folders(pod)
        if entries is None:
            return
        known, keep = pod.containers, self._files.keep
        pod.stamp, pod.containers = stamp, {}
        for entry in entries:
            key, container = (entry.name, entry.inode()), container_id(entry.name)
            if key in known:
                pod.containers[key] = known.pop(key)
            elif container is not None:
                pod.containers[key] = keep(_Container(ContainerKey(pod.key, container), pod.place.inside(entry.name)))
        self._files.release(known.values())


_Stamp = tuple[int, float]
_Columns = tuple[dict[Key, float], dict[Key, int]]
_Name = tuple[str, int]
"""A name and its inode: a cgroup that was removed and made again is another one."""


class _Place(NamedTuple):
    """Where the files of a cgroup are: two hierarchies, on a hybrid machine, have the same tree."""

    folder: str
    memory_folder: str | None
    memory_name: str

    @classmethod
    def of(cls, found: Kubepods) -> _Place:
        return cls(str(found.directory), str(found.memory) if found.memory else None, found.memory_name)

    def inside(self, name: str) -> _Place:
        return _Place(f"{self.folder}/{name}", self.memory_folder and f"{self.memory_folder}/{name}", self.memory_name)


class _Cgroup(Generic[Key]):
    """The files of one cgroup; -1 stands for one that is not kept open."""

    __slots__ = ("cpu_fd", "cpu_path", "folder_fd", "key", "memory_fd", "memory_path", "place", "stamp")
    keeps_folder = True

    def __init__(self, key: Key, place: _Place) -> None:
        self.key: Key = key
        self.place = place
        self.cpu_path = f"{place.folder}/cpu.stat"
        self.memory_path = place.memory_folder and f"{place.memory_folder}/{place.memory_name}"
        self.cpu_fd = self.memory_fd = self.folder_fd = -1
        self.stamp: _Stamp | None = None

    def everything(self) -> Iterator[_AnyCgroup]:
        """Yield this cgroup and those inside."""
        yield self


class _Container(_Cgroup[ContainerKey]):
    __slots__ = ()
    keeps_folder = False


class _Pod(_Cgroup[str]):
    __slots__ = ("containers",)

    def __init__(self, uid: str, place: _Place) -> None:
        super().__init__(uid, place)
        self.containers: dict[_Name, _Container] = {}

    def everything(self) -> Iterator[_AnyCgroup]:
        return chain([self], self.containers.values())


class _Level(_Cgroup[str]):
    """A cgroup that pods are in: that of all pods, or that of a class of service."""

    __slots__ = ("levels", "pods")

    def __init__(self, place: _Place) -> None:
        super().__init__("", place)
        self.levels: dict[_Name, _Level] = {}
        self.pods: dict[_Name, _Pod] = {}

    def everything(self) -> Iterator[_AnyCgroup]:
        yield self
        for inner in (*self.pods.values(), *self.levels.values()):
            yield from inner.everything()


_AnyCgroup = _Cgroup[ContainerKey] | _Cgroup[str]
_Kept = TypeVar("_Kept", bound=_AnyCgroup)


class _Files:
    """The files that are kept open, up to a limit, and how they are read.

    The kernel tells by a folder's number of links that a cgroup was made or removed, and by an error at reading that
    one was removed: together they tell every change.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = 0
        self._holders: dict[_AnyCgroup, None] = {}

    def keep(self, cgroup: _Kept) -> _Kept:
        """Open the files of a cgroup for as long as it is there, unless too many are open."""
        cgroup.cpu_fd = self._opened(cgroup.cpu_path)
        if cgroup.memory_path is not None:
            cgroup.memory_fd = self._opened(cgroup.memory_path)
        if cgroup.keeps_folder:
            cgroup.folder_fd = self._opened(cgroup.place.folder)
        self._holders[cgroup] = None
        return cgroup

    def release(self, cgroups: Iterable[_AnyCgroup]) -> None:
        """Close the files of cgroups."""
        for cgroup in cgroups:
            for fd in (cgroup.cpu_fd, cgroup.memory_fd, cgroup.folder_fd):
                if fd >= 0:
                    os.close(fd)
                    self._open -= 1
            cgroup.cpu_fd = cgroup.memory_fd = cgroup.folder_fd = -1
            self._holders.pop(cgroup, None)

    def read(
        self, cgroups: Iterable[_Cgroup[Key]], cpu_seconds: dict[Key, float], memory_bytes: dict[Key, int]
    ) -> bool:
        """Put in what cgroups have counted, of those that are there; tell whether all are.

        The inmost loop: all the time of a reading is spent here, so it is written out.
        """
        are_there = True
        for cgroup in cgroups:
            key, fd = cgroup.key, cgroup.cpu_fd
            try:
                line = _pread(fd, _NUMBER, 0) if fd >= 0 else self._once(cgroup.cpu_path)
                cpu_seconds[key] = int(line[_LABEL : line.index(b"\n")]) * _SECONDS
            except (OSError, ValueError):
                are_there = False
                continue
            fd = cgroup.memory_fd
            try:
                if fd >= 0:
                    memory_bytes[key] = int(_pread(fd, _NUMBER, 0))
                elif cgroup.memory_path is not None:
                    memory_bytes[key] = int(self._once(cgroup.memory_path))
            except (OSError, ValueError):  # unknown, then
                pass
        return are_there

    def stamp(self, cgroup: _AnyCgroup) -> _Stamp | None:
        """Return what changes when a cgroup is made or removed inside this one."""
        fd = cgroup.folder_fd
        try:
            status = os.fstat(fd) if fd >= 0 else os.stat(cgroup.place.folder)  # noqa: PTH116
        except OSError:
            return None
        return status.st_nlink, status.st_mtime

    def folders(self, cgroup: _AnyCgroup) -> list[os.DirEntry[str]] | None:
        """Return the folders inside a cgroup, none where it is gone; `None` where they cannot be seen just now."""
        for _ in range(2):
            try:
                return folders(cgroup.place.folder)
            except OSError as error:
                if error.errno not in _TOO_MANY:
                    return []
                self._make_room()
        return None

    def _opened(self, path: str) -> int:
        if self._open >= self._limit:
            return -1
        try:
            fd = os.open(path, _READ_ONLY)
        except OSError as error:
            if error.errno in _TOO_MANY:
                self._make_room()
            return -1
        self._open += 1
        return fd

    def _once(self, path: str) -> bytes:
        try:
            fd = os.open(path, _READ_ONLY)
        except OSError as error:
            if error.errno not in _TOO_MANY or not self._make_room():
                raise
            fd = os.open(path, _READ_ONLY)
        try:
            return _pread(fd, _NUMBER, 0)
        finally:
            os.close(fd)

    def _make_room(self) -> bool:
        """Give half of the open files back for good, as the process has too many; tell whether there were any."""
        before = self._open
        self._limit = before // 2
        while self._holders and self._open > self._limit:
            self.release([next(reversed(self._holders))])
        return before > 0

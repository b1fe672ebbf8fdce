"""Runs a command on a machine that has RAPL: a made-up powercap tree is laid over /sys, for that command alone.

The command gets a mount namespace and a network namespace (loopback only) of its own. Needs root.
"""

import functools
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

from tests.support.powercap_tree import PowercapTree

Stream: TypeAlias = int | IO[Any] | None

NOBODY = 65534
_AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
# Arguments: folder for /sys/class, folder for /sys/devices/virtual, number of closed folders, an open folder, the
# closed folders, the command. The last exec makes the command the process that the caller holds.
_SCRIPT = """
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$1:/sys/class" /sys/class
mount -t overlay overlay -o "lowerdir=$2:/sys/devices/virtual" /sys/devices/virtual
ip link set lo up
closed=$3 open=$4
shift 4
while [ "$closed" -gt 0 ]; do
    mount -t overlay overlay -o "lowerdir=$open:$1" "$1"
    shift
    closed=$((closed - 1))
done
exec "$@"
"""


@functools.cache
def overlay_available() -> str | None:
    """Why `popen_in_overlay` cannot work here, or None when it can."""
    if sys.platform != "linux":
        return "overlays of /sys need Linux"
    if os.geteuid() != 0:
        return "overlays of /sys need root"
    missing = [tool for tool in ("unshare", "mount", "ip", "setpriv") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    with tempfile.TemporaryDirectory() as folder:
        tree = PowercapTree(Path(folder))
        tree.powercap.mkdir(parents=True)
        (tree.virtual_folder / "powercap").mkdir(parents=True)
        process = popen_in_overlay(tree, ["true"], stderr=subprocess.PIPE)
        _, error = process.communicate()
    return None if process.returncode == 0 else f"overlay of /sys refused: {error.decode().strip()}"


def popen_in_overlay(
    tree: PowercapTree,
    command: Sequence[str | Path],
    *,
    as_nobody: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    text: bool = False,
) -> "subprocess.Popen[Any]":
    """Start `command`, usually ``[interpreter, "-m", ...]``, where /sys has the zones of `tree`, and no others.

    The process returned is the command's own: its signals and its exit status are direct. The caller goes on moving the
    tree's counters by `tree`. With `as_nobody` the command runs as a user without rights; folders of the interpreter
    that such a user could not pass (a home of mode 0700) are opened for it, in its namespace only.
    """
    words = [str(word) for word in command]
    _hide_real_zones(tree)
    open_folder = tree.root / "open"
    open_folder.mkdir(mode=0o711, exist_ok=True)
    closed = _closed_folders(words[0]) if as_nobody else []
    folders = [_escaped(tree.class_folder), _escaped(tree.virtual_folder)]
    arguments = [*folders, str(len(closed)), _escaped(open_folder), *map(str, closed)]
    return subprocess.Popen(
        ["unshare", "-m", "-n", "--", "sh", "-ec", _SCRIPT, "overlay", *arguments, *(_AS_NOBODY * as_nobody), *words],
        env=env,
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        text=text,
    )


def _hide_real_zones(tree: PowercapTree) -> None:
    # An opaque folder is not merged with the machine's own of that name.
    for folder in (tree.powercap, tree.virtual_folder / "powercap"):
        os.setxattr(folder, "trusted.overlay.opaque", b"y")


def _escaped(folder: Path) -> str:
    return str(folder).replace("\\", "\\\\").replace(":", "\\:")


def _closed_folders(executable: str) -> list[Path]:
    """The folders on the way to an executable, through all its links, that others may not pass; outer ones first."""
    path = Path(shutil.which(executable) or executable).absolute()
    folders: set[Path] = set()
    while True:
        folders.update(path.parents)
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    folders.update(path.resolve().parents)
    return sorted(folder for folder in folders if not folder.stat().st_mode & stat.S_IXOTH)

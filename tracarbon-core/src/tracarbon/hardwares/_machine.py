"""Facts about this machine: its processor, its sockets, and whether it is virtual. Never raises on what is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_HYPERVISOR_NAMES = (
    "qemu",
    "kvm",
    "vmware",
    "virtualbox",
    "innotek",
    "xen",
    "bochs",
    "parallels",
    "bhyve",
    "virtual machine",
    "google compute engine",
    "amazon ec2",
    "openstack",
    "alibaba cloud",
    "digitalocean",
    "hetzner",
    "scaleway",
    "firecracker",
)


def cpu_model_name(host_root: Path = Path("/")) -> str | None:
    """Return the processor's name as it calls itself, such as `AMD EPYC 7R13 Processor`."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string")
    if sys.platform == "win32":
        return _registry_name()
    return next((value for key, value in _cpuinfo(host_root) if key == "model name" and value), None)


def socket_count(host_root: Path = Path("/")) -> int:
    """Return the number of processor sockets; 1 where nothing tells."""
    return max(1, len({value for key, value in _cpuinfo(host_root) if key == "physical id"}))


def is_virtual_machine(host_root: Path = Path("/")) -> str | None:
    """Return what shows that this is a virtual machine, or `None` on bare metal."""
    if any(key == "flags" and "hypervisor" in value.split() for key, value in _cpuinfo(host_root)):
        return "the processor reports a hypervisor"
    hypervisor = _text(host_root / "sys/hypervisor/type")
    if hypervisor:
        return f"hypervisor {hypervisor}"
    for name in ("sys_vendor", "product_name"):
        value = _text(host_root / "sys/class/dmi/id" / name)
        if any(known in value.lower() for known in _HYPERVISOR_NAMES) and "metal" not in _product(host_root):
            return f"{name} is {value}"
    return None


def _product(host_root: Path) -> str:
    """The product's name: the clouds' bare-metal machines carry the same vendor as their virtual ones."""
    return _text(host_root / "sys/class/dmi/id/product_name").lower()


def _cpuinfo(host_root: Path) -> Iterator[tuple[str, str]]:
    for line in _text(host_root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        yield key.strip(), value.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""


def _sysctl(name: str) -> str | None:
    try:
        answer = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, timeout=2, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode("utf-8", "replace").strip() or None


def _registry_name() -> str | None:
    if sys.platform == "win32":
        import winreg

        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
                return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
        except OSError:
            pass
    return None

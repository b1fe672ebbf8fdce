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
    "apple virtualization",
    "ovirt",
    "rhev",
)


def cpu_model_name(host_root: Path = Path("/")) -> str | None:
    """Return the processor's name as it calls itself, such as `AMD EPYC 7R13 Processor`."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string")
    if sys.platform == "win32":
        return _registry(r"CentralProcessor\0", "ProcessorNameString") or None
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
    firmware = _firmware(host_root)
    # The clouds' bare metal has the same vendor as their virtual machines.
    if "metal" in firmware["product_name"].lower():
        return None
    named = (item for item in firmware.items() if any(known in item[1].lower() for known in _HYPERVISOR_NAMES))
    return next((f"{name} is {value}" for name, value in named), None)


def _firmware(host_root: Path) -> dict[str, str]:
    if sys.platform == "win32":
        return {
            "sys_vendor": _registry("BIOS", "SystemManufacturer"),
            "product_name": _registry("BIOS", "SystemProductName"),
        }
    return {name: _text(host_root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name")}


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


def _registry(key: str, name: str) -> str:
    if sys.platform == "win32":
        import winreg

        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"HARDWARE\DESCRIPTION\System\{key}") as opened:
                return str(winreg.QueryValueEx(opened, name)[0]).strip()
        except OSError:
            pass
    return ""

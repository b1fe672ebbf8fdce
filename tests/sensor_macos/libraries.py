"""Stand-ins for Apple's two libraries, built by gcc, and what a test tells them and asks of them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from ctypes import c_char_p, c_double, c_int, c_int64
from pathlib import Path

SOURCES = Path(__file__).parent / "standin"
UTF_8, LATIN_1, NO_UTF_8, GARBAGE = range(4)


def why_not() -> str | None:
    """Why there can be no stand-ins here."""
    return None if shutil.which("gcc") else "there is no gcc to build the stand-ins for Apple's libraries"


class Libraries:
    """The two libraries, in this process."""

    def __init__(self, folder: Path) -> None:
        self.core_foundation_path = str(folder / "libCoreFoundation.so")
        self.ioreport_path = str(folder / "libIOReport.so")
        self.without_units_path = str(folder / "libIOReportWithoutUnits.so")
        build("core_foundation.c", self.core_foundation_path)
        build("ioreport.c", self.ioreport_path, self.core_foundation_path)
        build("ioreport.c", self.without_units_path, self.core_foundation_path, "-DWITHOUT_UNITS")
        self._foundation = ctypes.CDLL(self.core_foundation_path)
        self._report = ctypes.CDLL(self.ioreport_path)
        self._report.standin_channel.argtypes = [c_char_p, c_char_p, c_int64, c_double, c_int]
        self._report.standin_add.argtypes = [c_char_p, c_int64]

    @property
    def paths(self) -> tuple[str, str]:
        return self.core_foundation_path, self.ioreport_path

    @property
    def options(self) -> dict[str, str]:
        return {"core_foundation_path": self.core_foundation_path, "ioreport_path": self.ioreport_path}

    def reset(self) -> None:
        self._foundation.standin_reset()
        self._report.standin_clear()

    def channel(self, name: str, unit: str, value: int = 0, encoding: int = UTF_8) -> None:
        stored = {LATIN_1: "latin-1"}.get(encoding, "utf-8")
        raw = b"\xff\xfe" + name.encode() if encoding == GARBAGE else name.encode(stored)
        self._report.standin_channel(raw, unit.encode(stored), value, 0.0, encoding)

    def channels(self, *channels: tuple[str, str, int]) -> None:
        self._report.standin_clear()
        for name, unit, value in channels:
            self.channel(name, unit, value)

    def add(self, name: str, counts: int) -> None:
        self._report.standin_add(name.encode(), counts)

    def fail(self, fault: str) -> None:
        self._foundation.standin_fault(fault.encode())

    def heal(self) -> None:
        self._foundation.standin_heal()

    def hang(self, is_on: bool) -> None:
        self._report.standin_hang(is_on)

    @property
    def living(self) -> int:
        """How many objects have been retained oftener than released."""
        return int(self._foundation.standin_living())

    @property
    def balance(self) -> int:
        """Retains less releases."""
        return int(self._foundation.standin_retained()) - int(self._foundation.standin_released())

    @property
    def misused(self) -> int:
        """How often a dead object was used, or one for what it is not."""
        return int(self._foundation.standin_misused())

    @property
    def name_reads(self) -> int:
        return int(self._report.standin_name_reads())


def build(source: str, target: str, *more: str) -> None:
    arguments = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", target, str(SOURCES / source)]
    subprocess.run([*arguments, *more], check=True, timeout=180)

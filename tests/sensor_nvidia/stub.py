"""The stand-in for libnvidia-ml.so.1: building it, and telling it what to do while somebody uses it."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pynvml
import pytest
from tracarbon_sensor_nvidia._lane import Call, Lane

CARDS = 4
CONTROL = "NVML_STUB_CONTROL"
SOURCE = Path(__file__).with_name("nvml_stub.c")
DEADLINE_SECONDS = 60.0

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, GPU_IS_LOST, UNKNOWN = 3, 4, 9, 15, 999


class CardState(ctypes.Structure):
    """`struct card` of the stub."""

    _fields_ = (
        ("present", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
        ("handle_fault", ctypes.c_int32),
        ("fault", ctypes.c_int32),
        ("energy_fault", ctypes.c_int32),
        ("power_fault", ctypes.c_int32),
        ("limit_fault", ctypes.c_int32),
        ("uuid_fault", ctypes.c_int32),
        ("name_fault", ctypes.c_int32),
        ("pci_fault", ctypes.c_int32),
        ("hang", ctypes.c_uint32),
        ("hung", ctypes.c_uint32),
        ("power_mw", ctypes.c_uint32),
        ("limit_mw", ctypes.c_uint32),
        ("calls", ctypes.c_uint32),
        ("energy_mj", ctypes.c_uint64),
        ("since_ns", ctypes.c_int64),
        ("first_mj", ctypes.c_uint64),
        ("last_mj", ctypes.c_uint64),
        ("uuid", ctypes.c_char * 96),
        ("name", ctypes.c_char * 96),
        ("bus_id", ctypes.c_char * 32),
    )

    @property
    def key(self) -> str:
        """The UUID as text."""
        return bytes(self.uuid).decode()

    def use(self, joules: float) -> None:
        """Let its counter go on."""
        self.energy_mj += round(joules * 1000)

    def take_out(self) -> None:
        """Let it fall off the bus."""
        self.present = 0

    def put_in(self) -> None:
        """Let it come back, or be new."""
        self.generation += 1
        self.present = 1


class Control(ctypes.Structure):
    """`struct control` of the stub."""

    _fields_ = (
        ("init_fault", ctypes.c_int32),
        ("init_hang", ctypes.c_uint32),
        ("count_hang", ctypes.c_uint32),
        ("shutdown_hang", ctypes.c_uint32),
        ("lives_on", ctypes.c_uint32),
        ("forgets", ctypes.c_uint32),
        ("inits", ctypes.c_uint32),
        ("shutdowns", ctypes.c_uint32),
        ("references", ctypes.c_uint32),
        ("lives", ctypes.c_uint32),
        ("in_flight", ctypes.c_uint32),
        ("waiting", ctypes.c_uint32),
        ("stale_handles", ctypes.c_uint32),
        ("shut_below", ctypes.c_uint32),
        ("without_init", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("numbers", ctypes.c_uint32 * CARDS),
        ("generations", ctypes.c_uint32 * CARDS),
        ("cards", CardState * CARDS),
    )


def build(folder: Path) -> Path:
    """Compile it; the folder is for LD_LIBRARY_PATH.

    It has no name of its own inside (no soname): once loaded by its path, it is nobody else's libnvidia-ml.so.1.
    """
    library = folder / "libnvidia-ml.so.1"
    command = ["gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread", "-o", str(library)]
    subprocess.run([*command, str(SOURCE)], check=True, timeout=180)
    return library


class Stub:
    """A machine with `cards` cards, all of them with a counter, which stands still unless a test moves it."""

    def __init__(self, library: Path, folder: Path, cards: int = 2) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.library = library
        self.path = folder / "control"
        self.path.write_bytes(bytes(ctypes.sizeof(Control)))
        with self.path.open("r+b") as file:
            self.control = Control.from_buffer(mmap.mmap(file.fileno(), 0))
        for number in range(CARDS):
            self._furnish(number, is_present=number < cards)

    @property
    def cards(self) -> Any:
        """The cards, by their number in the machine."""
        return self.control.cards

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to find this machine's cards."""
        return {"LD_LIBRARY_PATH": str(self.library.parent), CONTROL: str(self.path)}

    @contextmanager
    def in_this_process(self) -> Iterator[None]:
        """Let pynvml of this process use it; afterwards, nothing hangs in it any more."""
        os.environ[CONTROL] = str(self.path)
        library, pynvml.nvmlLib = pynvml.nvmlLib, ctypes.CDLL(str(self.library))
        functions = dict(pynvml._nvmlGetFunctionPointer_cache)
        pynvml._nvmlGetFunctionPointer_cache.clear()
        try:
            with self._without_haste():
                yield
        finally:
            self.release()
            wait_for(no_thread, "the end of all threads")
            pynvml.nvmlLib = library
            pynvml._nvmlGetFunctionPointer_cache.clear()
            pynvml._nvmlGetFunctionPointer_cache.update(functions)
            del os.environ[CONTROL]

    @contextmanager
    def _without_haste(self) -> Iterator[None]:
        """Let nobody give up a call before all that do not hang are done: a busy machine is no slow card."""
        pending: list[tuple[Lane, Call[Any]]] = []
        submit, give_up = Lane.submit, Call.wait

        def noted(lane: Lane, function: Callable[[], Any]) -> Call[Any]:
            call = submit(lane, function)
            pending[:] = [entry for entry in pending if not entry[1].is_done]
            pending.append((lane, call))
            return call

        def is_at_rest() -> bool:
            return len({lane for lane, call in [*pending] if not call.is_done}) <= self.control.waiting

        def wait(call: Call[Any], deadline: float) -> bool:
            if not give_up(call, deadline):
                wait_for(lambda: call.is_done or is_at_rest(), "an end of all calls but those that hang")
            return call.is_done

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Lane, "submit", noted)
            patch.setattr(Call, "wait", wait)
            yield

    def shut_down(self) -> int:
        """Shut it down as somebody else in this process might."""
        return int(pynvml.nvmlLib.nvmlShutdown())

    def release(self) -> None:
        """Let nothing hang any more."""
        self.control.init_hang = self.control.count_hang = self.control.shutdown_hang = 0
        for card in self.cards:
            card.hang = 0

    def wait_until_hung(self, number: int, calls: int = 1) -> None:
        """Wait until so many calls hang in a card."""
        wait_for(lambda: bool(self.cards[number].hung >= calls), f"{calls} calls that hang in card {number}")

    def check_balance(self) -> None:
        """Each initialisation was undone, no handle outlived its life, and NVML was never shut down below a call."""
        control = self.control
        assert (control.references, control.inits) == (0, control.shutdowns)
        assert (control.stale_handles, control.shut_below, control.without_init) == (0, 0, 0)

    def _furnish(self, number: int, *, is_present: bool) -> None:
        card = self.cards[number]
        card.present = is_present
        card.power_mw, card.limit_mw = 100_000, 400_000
        card.energy_mj = 1_000_000_000 * (number + 1)
        card.uuid = f"GPU-{number}0000000-1111-2222-3333-44444444444{number}".encode()
        card.name = b"NVIDIA Stub " + b"ABCD"[number : number + 1]
        card.bus_id = f"00000000:{0x65 + number:02X}:00.0".encode()


def our_threads() -> list[str]:
    """The names of the threads that speak NVML."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("tracarbon-nvidia-"))


def no_thread() -> bool:
    """Whether nobody in this process speaks NVML."""
    return not our_threads()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Look at a condition again and again until it holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.002)

"""All graphics cards of the machine: which there are, what they say, and how the ones that were away come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tracarbon_sensor_nvidia._lane import Call
from tracarbon_sensor_nvidia._nvml import (
    GPU_NOT_FOUND,
    LATE,
    NO_ANSWER,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    Card,
    NvmlFailure,
    NvmlThread,
    Reading,
    Slot,
    explain,
)

_ANSWER_SECONDS = 0.2
"""A window's close does not wait for more than this: half a second, or a quarter of the interval."""
_LEAVE_SECONDS = 0.5
_FIRST_RESTART_SECONDS = 10.0
_LONGEST_RESTART_SECONDS = 640.0
_LASTING = (NOT_SUPPORTED, NO_PERMISSION, NO_ANSWER, LATE)
"""Failures that initialising NVML again would not mend."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A card that could not be read.

    Attributes:
        index: where it is, or was.
        card: which it is, where that is known.
        failure: why.
    """

    index: int
    card: Card | None
    failure: NvmlFailure

    def __str__(self) -> str:
        return f"{self.card or f'card {self.index}'}: {self.failure.reason}"


@dataclass(slots=True)
class Survey:
    """What all cards said.

    Attributes:
        readings: in the order in which they were taken; of one card there may be several, or a late one.
        silences: the cards that could not be read.
        trouble: why it is not known how many cards there are.
    """

    readings: list[Reading] = field(default_factory=list)
    silences: list[Silence] = field(default_factory=list)
    trouble: NvmlFailure | None = None


class Cards:
    """The cards of this machine, each read in a thread of its own, which may hang without the others.

    NVML knows the cards that were there when it was initialised. It is initialised again when the kernel's driver shows
    others than before, and, less and less often, while a card is away. Energy counters belong to the driver and go on.

    Args:
        clock: monotonic seconds, for the readings' time.
        answer_seconds: how long all cards may take to answer, at least half of it for each, and half as long again to
            initialise NVML anew; what one says later counts at the next reading.
        folder: where the kernel's driver shows its cards, one entry each.
        asks_power: read the power, also of cards with an energy counter.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        answer_seconds: float = _ANSWER_SECONDS,
        folder: Path = Path("/proc/driver/nvidia/gpus"),
        asks_power: bool = False,
    ) -> None:
        self._clock = clock
        self._answer_seconds = answer_seconds
        self._folder = folder
        self._asks_power = asks_power
        self._has_counter: dict[str, bool] = {}
        self._known: dict[str, Card] = {}
        self._census = NvmlThread("census", clock)
        self._slots: list[Slot] = []
        self._count = 0
        self._overdue: dict[Slot, Call[Reading]] = {}
        self._entries: frozenset[str] = frozenset()
        self._restarts = 0
        self._restart_at: float | None = None
        self._is_restart_owed = False
        self._lock = threading.Lock()

    def open(self, seconds: float) -> Survey:
        """Initialise NVML, find the cards and read each; takes `seconds` at most.

        Raises:
            NvmlFailure: there is no driver, or it does not answer.
        """
        self._entries, self._is_restart_owed = self._shown_by_kernel(), False
        return self._survey(seconds)

    def read(self) -> Survey:
        """Read every card; the first time, or after `close`, find them first.

        Raises:
            NvmlFailure: there is no driver, or it does not answer.
        """
        if self._is_restart_owed and not self._is_any_busy():
            self._let_go()  # one that is always late is busy at the end of every reading
        survey = self._survey(self._answer_seconds)
        if not self._needs_restart(survey):
            return survey
        # What the counters say just before is kept: without a client, a driver may put them back to 0.
        self._let_go()
        if self._is_any_busy():
            return survey  # nor does the answer wait until NVML is let go: the next reading initialises it again
        try:
            after = self._survey(self._answer_seconds / 2)
        except NvmlFailure as failure:
            return Survey(survey.readings, survey.silences, failure)
        return Survey(survey.readings + after.readings, after.silences, after.trouble)

    def close(self, seconds: float = _LEAVE_SECONDS) -> None:
        """Let NVML go and end the threads; those that hang end by themselves once they no longer do.

        Args:
            seconds: how long to wait for that.
        """
        threads = (self._census, *self._slots)
        hanging = [thread for thread in threads if thread.is_busy]
        leaving = [call for thread in threads if (call := thread.leave()) is not None and thread not in hanging]
        deadline = time.monotonic() + seconds
        for call in leaving:
            call.wait(deadline)

    def _let_go(self) -> None:
        self._is_restart_owed = False
        self.close(self._answer_seconds / 2)

    def once(self, seconds: float) -> Survey:
        """Find the cards, read each once, and let go of them; one caller after another.

        Raises:
            NvmlFailure: there is no driver, or it does not answer.
        """
        with self._lock:
            try:
                self._forget()
                return self.open(seconds)
            finally:
                self.close()

    def _forget(self) -> None:
        self._known.clear()
        self._has_counter.clear()
        for slot in self._slots:
            slot.card = None

    def _survey(self, seconds: float) -> Survey:
        begun_at = time.monotonic()
        survey = Survey(trouble=self._renumber(begun_at + seconds / 2))
        begun = self._begin(self._slots[: self._count], survey)
        for slot, call in begun.items():
            self._collect(slot, call, begun_at + seconds, survey)
        if survey.trouble is not None and survey.trouble.code != LATE and not survey.readings:
            raise survey.trouble
        self._note_missing(survey)
        return survey

    def _renumber(self, deadline: float) -> NvmlFailure | None:
        """Ask how many cards there are, and have a slot for each; returns why that is not known."""
        if self._census.is_busy:
            return self._silence_of_census()
        census = self._census.ask(lambda nvml: int(nvml.nvmlDeviceGetCount()))
        if not census.wait(deadline):
            return self._silence_of_census()
        try:
            count = census.outcome()
        except Exception as error:
            return _failure_of(error)
        if count != self._count:
            for slot in self._slots:
                slot.forget()
            for slot in self._slots[count:]:
                slot.leave()
            self._slots += [self._slot(index) for index in range(len(self._slots), count)]
            self._count = count
        return None

    def _silence_of_census(self) -> NvmlFailure:
        return self._census.silence if self._count else explain(NO_ANSWER)

    def _slot(self, index: int) -> Slot:
        return Slot(index, self._clock, self._has_counter, asks_power=self._asks_power)

    def _begin(self, slots: Iterable[Slot], survey: Survey) -> dict[Slot, Call[Reading]]:
        """Begin to read; one that still hangs in an earlier call is not waited for again."""
        begun = {}
        for slot in slots:
            if slot.is_busy:
                survey.silences.append(Silence(slot.index, slot.card, slot.silence))
                continue
            late = self._overdue.pop(slot, None)
            if late is not None:
                with suppress(Exception):  # whatever went wrong, it is asked again just below
                    survey.readings.append(late.outcome())
            begun[slot] = slot.read()
        return begun

    def _collect(self, slot: Slot, call: Call[Reading], deadline: float, survey: Survey) -> None:
        if not call.wait(deadline):
            self._overdue[slot] = call
            survey.silences.append(Silence(slot.index, slot.card, slot.silence))
            return
        try:
            survey.readings.append(call.outcome())
        except Exception as error:
            survey.silences.append(Silence(slot.index, slot.card, _failure_of(error)))

    def _note_missing(self, survey: Survey) -> None:
        """Name the cards that were there before, and are not any more; and none twice."""
        read = {reading.card.uuid: reading.card for reading in survey.readings}
        self._known.update(read)
        numbered = [silence for silence in survey.silences if silence.index < self._count]
        survey.silences = [
            Silence(silence.index, None, silence.failure) if _is_elsewhere(silence, read) else silence
            for silence in numbered
        ]
        here = {silence.card.uuid for silence in survey.silences if silence.card} | read.keys()
        survey.silences += [
            Silence(card.index, card, explain(GPU_NOT_FOUND)) for uuid, card in self._known.items() if uuid not in here
        ]

    def _needs_restart(self, survey: Survey) -> bool:
        entries = self._shown_by_kernel()
        if entries != self._entries:
            self._entries, self._is_restart_owed = entries, True
        elif self._is_away(survey):
            self._is_restart_owed = self._is_restart_due() or self._is_restart_owed
        # NVML must not be shut down below a call.
        return self._is_restart_owed and not self._is_any_busy()

    def _is_away(self, survey: Survey) -> bool:
        """Whether something is away that initialising NVML again might bring back."""
        failures = [silence.failure for silence in survey.silences] + [survey.trouble]
        if all(failure is None or failure.code in _LASTING for failure in failures):
            self._restarts, self._restart_at = 0, None
            return False
        return True

    def _is_any_busy(self) -> bool:
        return any(thread.is_busy for thread in (self._census, *self._slots))

    def _is_restart_due(self) -> bool:
        now = self._clock()
        if self._restart_at is not None and now < self._restart_at:
            return False
        is_due = self._restart_at is not None
        self._restart_at = now + min(_LONGEST_RESTART_SECONDS, _FIRST_RESTART_SECONDS * 2.0**self._restarts)
        self._restarts += 1
        return is_due

    def _shown_by_kernel(self) -> frozenset[str]:
        try:
            return frozenset(path.name for path in self._folder.iterdir())
        except OSError:
            return frozenset()  # another platform, another driver, or a container that does not show it


def _is_elsewhere(silence: Silence, read: Mapping[str, Card]) -> bool:
    """Whether the card that was at the place of a silence was read at another one."""
    card = silence.card
    return card is not None and card.uuid in read and read[card.uuid].index != silence.index


def _failure_of(error: Exception) -> NvmlFailure:
    if isinstance(error, NvmlFailure):
        return error
    failure = NvmlFailure(UNKNOWN, f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure

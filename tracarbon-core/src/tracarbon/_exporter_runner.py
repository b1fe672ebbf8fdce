"""Delivering one exporter's batches, each until it has arrived."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracarbon._mailbox import Mailbox
from tracarbon._runner import Runner, Terms, TimeoutExceeded, back_off_seconds, describe
from tracarbon._states import Component
from tracarbon._text import human
from tracarbon.exceptions import DeliveryUnknown, PermanentExportError, ReceiverGone, RetryableExportError
from tracarbon.exporters.exporter import Exporter
from tracarbon.hardwares.energy import JOULES_PER_WH
from tracarbon.metrics import Batch

_HOST = "energy_consumption_host"
_SOON_SECONDS = 0.25
"""How long a receiver is left alone after a failure at the end, where there is little time left."""
_LATE_SECONDS = 2.5
"""The same, at the most, where it wishes to be left alone."""


class ExporterRunner(Runner):
    """Delivers one exporter's batches, each until it has arrived.

    Args:
        mailbox: what there is to deliver.
        terms: at least the interval lies between two deliveries; 0 for every batch.
        on_exported: called with each batch that arrived.
        on_gone: called when the receiver is gone for good.
    """

    plugin: Exporter

    def __init__(
        self,
        component: Component,
        plugin: Exporter,
        mailbox: Mailbox,
        terms: Terms,
        *,
        on_exported: Callable[[str, Batch], None],
        on_gone: Callable[[], None],
    ) -> None:
        super().__init__(component, plugin, terms)
        self.mailbox = mailbox
        self._on_exported = on_exported
        self._on_gone = on_gone
        self._in_flight: Batch | None = None
        self._leave_alone_seconds: float | None = None
        self.is_gone = False
        self._has_given_up = False
        self._must_rest = False

    @property
    def undelivered_records(self) -> int:
        """How many records are waiting."""
        return 0 if self.is_gone else len(self.mailbox) + len(self._in_flight or ())

    @property
    def owes_something(self) -> bool:
        """Whether there are records that were not delivered."""
        return self.undelivered_records > 0

    def put(self, batch: Batch) -> None:
        """Take a batch to be delivered; never waits. One that is merged since the exporter is late is counted."""
        merged = self.mailbox.merged
        self.mailbox.put(batch)
        if self._in_flight is not None or self._failures:
            self.component.merged_batches += self.mailbox.merged - merged

    def undelivered(self) -> str | None:
        """Say how much is waiting, and how much of it may have arrived; `None` where nothing is."""
        if not self.owes_something or self._has_given_up:
            return None
        in_flight = self._in_flight
        waiting = [batch for batch in (in_flight, self.mailbox.pending) if batch is not None]
        return _in_words(waiting) + (f", of which {len(in_flight)} may have arrived," if in_flight else "")

    def give_up(self) -> str | None:
        """Count what was not delivered as dropped, and say what it was; `None` where everything was."""
        lost = self.undelivered()
        self._has_given_up = True
        self.component.dropped_records += self.undelivered_records
        self._in_flight = None
        self.mailbox.leave()
        return lost

    def finish(self) -> None:
        """Ask it to deliver what is there and come to its end."""
        super().finish()
        self.mailbox.close()

    async def serve(self) -> None:
        """Deliver until the end."""
        due = 0.0
        while not self.is_gone:
            if self._must_rest:
                await self._back_off()
            batch = self._in_flight or await self.mailbox.take()
            if batch is None:
                return
            self._in_flight = batch
            begun_at = max(due, self.clock.monotonic())
            if await self._deliver(batch) and self._interval:
                due = begun_at + self._interval
                await self._pause_for(due - self.clock.monotonic())
        await self.ending.wait()

    def timed_out(self, error: TimeoutExceeded) -> None:
        """It may have arrived: the same batch is tried again, unchanged."""
        super().timed_out(error)
        self._must_rest = True

    async def _deliver(self, batch: Batch) -> bool:
        """Try once; what is left goes back to the mailbox, or stays in flight where it may have arrived."""
        try:
            await self.call(self.plugin.export(batch))
        except DeliveryUnknown as error:
            self.failed(error)
            self._must_rest = True
            return False
        except ReceiverGone as error:
            self._in_flight = None
            self.is_gone = True
            self.failed(error)
            self._on_gone()
            return True
        except PermanentExportError as error:
            self._in_flight = None
            self.component.dropped_records += len(batch)
            self.component.failed(f"{_in_words([batch])} dropped: {describe(error)}")
            return True
        except Exception as error:
            self._in_flight = None
            self._leave_alone_seconds = getattr(error, "retry_after_seconds", None)
            is_partial = isinstance(error, RetryableExportError) and error.remaining is not None
            self.mailbox.give_back(error.remaining if is_partial else batch)  # type: ignore[attr-defined]
            self.failed(error)
            self._must_rest = True
            return False
        self._in_flight = None
        self.succeeded()
        self._on_exported(self.component.name, batch)
        return True

    async def _back_off(self) -> None:
        wish = self._leave_alone_seconds
        seconds = max(wish or 0.0, back_off_seconds(self._failures))
        self._leave_alone_seconds, self._must_rest = None, False
        if self._finishing:
            seconds = min(seconds, _SOON_SECONDS if wish is None else max(_SOON_SECONDS, min(wish, _LATE_SECONDS)))
            await self.clock.sleep_until(self.clock.monotonic() + seconds)
        else:
            await self._pause_for(seconds)


def _in_words(batches: Sequence[Batch]) -> str:
    """Say how much is in batches: records, time, and the energy of the host."""
    records = sum(map(len, batches))
    seconds = sum(batch.window.seconds for batch in batches)
    hosts = [record for batch in batches for record in batch if record.name == _HOST and record.unit == "watts"]
    energy = f", {human(sum(record.total for record in hosts) / JOULES_PER_WH)} Wh" if hosts else ""
    return f"{records} records ({seconds:.3g} s{energy})"

"""One pending batch per exporter: what comes while it is busy is merged. Memory is bounded and nothing is lost."""

from __future__ import annotations

import anyio

from tracarbon.metrics import Batch

MAX_SERIES = 10_000


class Mailbox:
    """Holds at most one batch; `put` never waits.

    Args:
        max_series: past this many series, amounts and energy fold into one `overflow` series per name.

    Attributes:
        merged: how many batches were merged into one of an older window, since that one was still there.
    """

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self._max_series = max_series
        self._pending: Batch | None = None
        self._changed = anyio.Event()
        self._closed = False
        self.merged = 0

    def __len__(self) -> int:
        """How many series are pending."""
        return 0 if self._pending is None else len(self._pending)

    def put(self, batch: Batch) -> None:
        """Add a batch of a newer window."""
        if self._pending is None:
            self._pending = batch if len(batch) <= self._max_series else batch.folded_to(self._max_series, ())
        else:
            self.merged += batch.window.end > self._pending.window.end
            self._pending = self._pending.merged_with(batch, self._max_series)
        self._changed.set()

    def give_back(self, batch: Batch) -> None:
        """Return a batch that could not be delivered; what came meanwhile is merged into it."""
        newer, self._pending = self._pending, None
        self.put(batch)
        if newer is not None:
            self.put(newer)

    async def take(self) -> Batch | None:
        """Wait for a batch and take it; `None` once the mailbox is closed and empty."""
        while self._pending is None and not self._closed:
            self._changed = anyio.Event()
            await self._changed.wait()
        return self.leave()

    @property
    def pending(self) -> Batch | None:
        """What is there."""
        return self._pending

    def leave(self) -> Batch | None:
        """Take what is there, without waiting."""
        batch, self._pending = self._pending, None
        return batch

    def close(self) -> None:
        """Let `take` return what is there, and then `None`."""
        self._closed = True
        self._changed.set()

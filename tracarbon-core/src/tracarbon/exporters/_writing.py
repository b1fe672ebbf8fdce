"""Writing a batch once, in a thread, however often the pipeline offers it."""

from __future__ import annotations

from collections.abc import Callable

from tracarbon._worker import Call, Worker
from tracarbon.metrics import Batch


class BatchWriter:
    """Gives each batch to a thread of its own, once.

    A write that outlasts the pipeline's patience goes on; when the pipeline offers the same batch again, its outcome is
    waited for, instead of writing the batch a second time. Another batch is written after it.
    """

    def __init__(self, name: str) -> None:
        self._worker = Worker(name)
        self._outstanding: tuple[Batch, Call] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a write is still under way."""
        return self._outstanding is not None

    async def write(self, batch: Batch, function: Callable[[], None]) -> None:
        """Call `function`, which writes `batch`, in the thread; raises what it raises."""
        outstanding = self._outstanding
        if outstanding is None or outstanding[0] is not batch:
            outstanding = self._outstanding = (batch, self._worker.submit(function))
        try:
            await outstanding[1].wait()
        except Exception:
            self._forget(outstanding)
            raise
        self._forget(outstanding)

    async def run(self, function: Callable[[], None]) -> None:
        """Call `function` in the thread, after all that was given to it before."""
        await self._worker.run(function)

    def _forget(self, settled: tuple[Batch, Call]) -> None:
        if self._outstanding is settled:
            self._outstanding = None

    def close(self) -> None:
        """Let the thread end."""
        self._worker.close()

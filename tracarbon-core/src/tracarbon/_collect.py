"""From the metrics that a generator yields to a batch of records."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from tracarbon.metrics import Batch, Metric, Record, Tag, Window

logger = logging.getLogger("tracarbon")

_MAX_KNOWN_TAGS = 20_000


class Collector:
    """Collects one generator's metrics, window by window.

    Args:
        generator: the generator's name.
        tags: tags for every metric of the pipeline; a metric's own tag of the same key wins.
        kind: what it is in messages, where it is no generator.
    """

    def __init__(self, generator: str, tags: Sequence[Tag] = (), *, kind: str = "generator") -> None:
        self._generator = generator
        self._kind = kind
        self._tags = tuple(tags)
        self._known_tags: dict[tuple[Tag, ...], tuple[Tag, ...]] = {}
        self._warned: set[str] = set()

    async def collect(self, metrics: AsyncGenerator[Metric, None], window: Window) -> Batch:
        """Take every metric and return the batch of `window`; what is unknown is left out."""
        records = []
        async with aclosing(metrics):
            async for metric in metrics:
                value = metric.value
                if callable(value) and not isinstance(value, float):
                    value = value()
                    if inspect.isawaitable(value):
                        value = await value
                if value is not None and self._is_sound(metric.name, value):
                    records.append(self._record(metric, value, window))
        return Batch.of_window(self._generator, window, records)

    def _record(self, metric: Metric, value: float, window: Window) -> Record:
        covered = metric.covered_seconds
        return Record(
            metric.name,
            value,
            self._complete(metric.tags),
            metric.unit,
            metric.kind,
            window.end - window.start if covered is None else covered,
            self._generator,
            window.end,
            metric.band,
        )

    def _complete(self, tags: Sequence[Tag]) -> tuple[Tag, ...]:
        given = tuple(tags)
        complete = self._known_tags.get(given)
        if complete is None:
            if len(self._known_tags) >= _MAX_KNOWN_TAGS:
                self._known_tags.clear()
            complete = tuple(sorted({tag.key: tag for tag in (*self._tags, *given)}.values()))
            self._known_tags[given] = complete
        return complete

    def _is_sound(self, name: str, value: float) -> bool:
        try:
            if math.isfinite(value):
                return True
        except TypeError:
            raise TypeError(f"{name} is {value!r}, which is no number") from None
        if name not in self._warned:
            self._warned.add(name)
            logger.warning(
                "%s %s: %s is %r, which is no figure; it is left out", self._kind, self._generator, name, value
            )
        return False

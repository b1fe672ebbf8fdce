"""The second that a batch's points are of.

Datadog keeps one value for a series and second: the one that was submitted last. So no second may be used twice, or the
first value is gone. And it silently leaves out points that are older than an hour or more than ten minutes ahead.
Sources: https://docs.datadoghq.com/metrics/custom_metrics/historical_metrics/ and
https://github.com/vectordotdev/vector/issues/13867
"""

from __future__ import annotations

from collections.abc import Iterable

OLDEST_SECONDS = 3000.0
_FURTHEST_SECONDS = 300.0
_MOST_REMEMBERED = 10_000


class Seconds:
    """Hands out seconds, each once for an owner."""

    def __init__(self) -> None:
        self._taken: dict[str, dict[int, None]] = {}

    def take(self, owners: Iterable[str], wanted: float, now: float) -> int:
        """Return the first second from `wanted` on that none of the owners has; it is theirs now.

        Args:
            owners: names of generators: what they generate is of different series.
            wanted: in seconds since the epoch; where Datadog would not take it, `now` is meant.
            now: likewise.
        """
        if not now - OLDEST_SECONDS <= wanted <= now + _FURTHEST_SECONDS:
            wanted = now
        taken = [self._taken.setdefault(owner, {}) for owner in owners]
        second = int(wanted)
        while any(second in of_owner for of_owner in taken):
            second += 1
        for of_owner in taken:
            of_owner[second] = None
            if len(of_owner) > _MOST_REMEMBERED:
                del of_owner[next(iter(of_owner))]
        return second

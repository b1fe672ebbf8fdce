"""The second that a batch's points are of.

Datadog keeps one value for a series and second: the one that was submitted last. So no second may be used twice, or the
first value is gone, and nobody remembers what an earlier process has used. Therefore nobody uses seconds that are
further ahead of the time than `MOST_AHEAD_SECONDS`, and everybody begins with one that is. And Datadog silently leaves
out points that are older than an hour or more than ten minutes ahead.
Sources: https://docs.datadoghq.com/metrics/custom_metrics/historical_metrics/ and
https://github.com/vectordotdev/vector/issues/13867
"""

from __future__ import annotations

from collections.abc import Iterable

MOST_AHEAD_SECONDS = 2
_OLDEST_SECONDS = 3000.0
_FURTHEST_SECONDS = 300.0
_MOST_REMEMBERED = 10_000


class Seconds:
    """Hands out seconds since the epoch, each once for an owner, and none that may have been used before.

    Args:
        now: when this begins.
    """

    def __init__(self, now: float) -> None:
        self._first = int(now) + MOST_AHEAD_SECONDS + 1
        self._taken: dict[str, dict[int, None]] = {}

    def take(self, owners: Iterable[str], wanted: float, now: float) -> int:
        """Return the first second from `wanted` on that none of the owners has; it is theirs now.

        Args:
            owners: names of generators: what they generate is of different series.
            wanted: where Datadog would not take it, `now` is meant.
            now: in seconds since the epoch.
        """
        if not is_taken_by_datadog(wanted, now):
            wanted = now
        if self._first > now + _FURTHEST_SECONDS:  # the clock was put back
            self._first = int(now)
        taken = [self._taken.setdefault(owner, {}) for owner in owners]
        second = max(int(wanted), self._first)
        while any(second in of_owner for of_owner in taken):
            second += 1
        for of_owner in taken:
            of_owner[second] = None
            if len(of_owner) > _MOST_REMEMBERED:
                del of_owner[next(iter(of_owner))]
        return second

    def give_back(self, owners: Iterable[str], second: int) -> None:
        """Note that a second was not used after all."""
        for owner in owners:
            self._taken.get(owner, {}).pop(second, None)


def is_taken_by_datadog(second: float, now: float) -> bool:
    """Return whether points of `second` are not left out in silence."""
    return now - _OLDEST_SECONDS <= second <= now + _FURTHEST_SECONDS


def seconds_until_usable(second: int, now: float) -> float:
    """Return how long to wait until `second` may be used without being in the way of those who come later."""
    return max(0.0, second - MOST_AHEAD_SECONDS - now)

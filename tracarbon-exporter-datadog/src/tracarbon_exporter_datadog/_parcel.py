"""What is delivered: points, in parcels that arrive whole, each of which knows how far it got."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["gauge", "count"]


@dataclass(frozen=True, slots=True)
class Point:
    """A value of a series.

    Attributes:
        name: the metric's, in Datadog.
        kind: a gauge has its latest value, a count is added up.
        value: a finite number.
        tags: such as `platform:Linux`.
        interval_seconds: over which a count was counted.
    """

    name: str
    kind: Kind
    value: float
    tags: tuple[str, ...]
    interval_seconds: int = 0


class Progress(Enum):
    """How far a parcel got."""

    WAITING = auto()
    """It has not arrived."""
    UNKNOWN = auto()
    """It was sent, and nobody said whether it arrived."""
    DONE = auto()
    """It has arrived, or was dropped."""


@dataclass(slots=True, eq=False)
class Parcel:
    """The points of one record, or of records that are one series in Datadog.

    Attributes:
        points: gauges before counts: should only the first arrive, a gauge comes again and nothing counts twice.
        wire: each point as it is sent.
        progress: how far it got.
        dropped: why it never will arrive; empty where it may.
    """

    points: tuple[Point, ...]
    wire: tuple[bytes, ...] = ()
    progress: Progress = Progress.WAITING
    dropped: str = ""

    @property
    def has_arrived(self) -> bool:
        """Whether there was something to send, and it has arrived."""
        return self.progress is Progress.DONE and not self.dropped and bool(self.points)

    def drop(self, reason: str) -> None:
        """Give it up."""
        self.progress, self.dropped = Progress.DONE, reason


def undone(parcels: Iterable[Parcel]) -> list[Parcel]:
    """Return those that may still have to be sent."""
    return [parcel for parcel in parcels if parcel.progress is not Progress.DONE]


class NotDelivered(Exception):
    """Some parcels did not arrive, or may not have; each says of itself which.

    Args:
        message: why; holds no secret.
        retry_after_seconds: how long the receiver asked to be left alone.
    """

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds

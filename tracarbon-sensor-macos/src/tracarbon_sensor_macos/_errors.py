"""What every source raises when it has nothing to say."""

from __future__ import annotations


class SourceError(Exception):
    """A source of energy cannot be read.

    Attributes:
        reason: why, in a few words.
        remedy: what the user would have to do; empty where nothing helps.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(". ".join(filter(None, (reason, remedy))))

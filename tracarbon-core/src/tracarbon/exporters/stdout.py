"""The exporter `stdout`: one line per metric, for humans and for grep."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

from pydantic import Field

from tracarbon._text import human
from tracarbon.exceptions import DeliveryUnknown, ReceiverGone, RetryableExportError, TracarbonException
from tracarbon.exporters._writing import BatchWriter
from tracarbon.exporters.exporter import Batch, Exporter, Record
from tracarbon.metrics import Tag
from tracarbon.plugin import PluginContext, PluginOptions

_NAME_WIDTH = 35
_SAID = frozenset({"sensor", "fidelity", "location"})
_MOST_SERIES = 20_000
_AT_ONCE_BYTES: int = getattr(select, "PIPE_BUF", 512)
"""What a pipe that is writable at all takes without blocking."""


class StdoutExporter(Exporter):
    """Print each metric as a line on standard output: time, name, value, unit, window, and where it comes from."""

    color: Literal["auto", "always", "never"] = "auto"

    class Options(PluginOptions):
        """Options of `[exporters.stdout]`."""

        color: Literal["auto", "always", "never"] = Field(
            default="auto", description="auto: on a terminal, unless NO_COLOR is set"
        )

    def __post_init__(self) -> None:
        self._opened: _Output | None = None

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the exporter."""
        return "Stdout"

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it."""
        return cls(color=options.color, metric_prefix_name=context.metric_prefix_name)

    async def __aenter__(self) -> Self:
        """Look at what standard output is.

        Raises:
            TracarbonException: it is closed.
        """
        self._output()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the thread for slow readers end."""
        if self._opened is not None:
            self._opened.writer.close()
            self._opened = None

    async def export(self, batch: Batch) -> None:
        """Print the series that are known now; the totals of the others are in the report.

        Raises:
            ReceiverGone: nobody reads standard output any more.
            RetryableExportError: nothing was written, such as for want of space.
            DeliveryUnknown: a part was written; the rest follows when the same batch is offered again.
        """
        await self._output().deliver(batch, self.metric_prefix_name)

    def _output(self) -> _Output:
        if self._opened is None:
            self._opened = _Output(self.color)
        return self._opened


@dataclass(slots=True, eq=False)
class _Pending:
    batch: Batch
    unwritten: bytes
    is_begun: bool = False


class _Output:
    def __init__(self, color: str) -> None:
        if sys.stdout is None:
            raise TracarbonException("standard output is closed; use another exporter, such as json")
        sys.stdout.flush()
        self.writer = BatchWriter("tracarbon-stdout")
        self._descriptor = _descriptor_of_standard_output()
        self._mode = os.fstat(self._descriptor).st_mode if self._descriptor is not None else 0
        self._is_terminal = self._descriptor is not None and os.isatty(self._descriptor)
        wants_color = self._is_terminal and not os.environ.get("NO_COLOR")
        self._lines = _Lines(color == "always" or (color == "auto" and wants_color))
        self._poll = select.poll() if hasattr(select, "poll") and self._descriptor is not None else None
        if self._poll is not None and self._descriptor is not None:
            self._poll.register(self._descriptor, select.POLLOUT)
        self._pending: _Pending | None = None

    async def deliver(self, batch: Batch, prefix: str | None) -> None:
        pending = self._pending
        if pending is None or pending.batch is not batch:
            pending = self._pending = _Pending(batch, self._lines.render(batch, prefix))
        if not self.writer.is_busy and self._takes_at_once(pending.unwritten):
            self._write_all(pending)
        else:
            await self.writer.write(batch, partial(self._write_all, pending))
        if self._pending is pending:
            self._pending = None

    def _takes_at_once(self, data: bytes) -> bool:
        """Whether the descriptor takes all of it without blocking: that saves the way through the thread."""
        if stat.S_ISREG(self._mode):
            return True
        # A terminal is writable as soon as it has room for a single byte.
        if self._poll is None or self._is_terminal or len(data) > _AT_ONCE_BYTES:
            return False
        return any(event & select.POLLOUT and not event & select.POLLERR for _, event in self._poll.poll(0))

    def _write_all(self, pending: _Pending) -> None:
        try:
            while pending.unwritten:
                written = self._write(pending.unwritten)
                pending.unwritten = pending.unwritten[written:]
                pending.is_begun = pending.is_begun or written > 0
        except BrokenPipeError:
            raise ReceiverGone("nobody reads standard output any more") from None
        except OSError as error:
            message = f"standard output: {error.strerror}"
            if pending.is_begun:
                raise DeliveryUnknown(message) from error
            raise RetryableExportError(message) from error

    def _write(self, data: bytes) -> int:
        if self._descriptor is None:
            sys.stdout.write(data.decode())
            sys.stdout.flush()
            return len(data)
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            # Somebody made the descriptor non-blocking; here, in the thread, there is time.
            select.select([], [self._descriptor], [], 1.0)
            return 0


def _descriptor_of_standard_output() -> int | None:
    """Return the descriptor, or `None` in notebooks and wherever else standard output is no file."""
    try:
        return sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        return None


class _Lines:
    """Renders records, keeping what never changes of each series."""

    def __init__(self, is_colored: bool) -> None:
        self._dim, self._bold, self._plain = ("\x1b[2m", "\x1b[1m", "\x1b[0m") if is_colored else ("", "", "")
        self._known: dict[tuple[str, tuple[Tag, ...]], tuple[str, str, str]] = {}
        self._telling: defaultdict[str, set[str]] = defaultdict(set)

    def render(self, batch: Batch, prefix: str | None) -> bytes:
        instant = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(batch.window.ended_at))
        records = [record for record in batch if batch.is_current(record)]
        if len(records) > len({record.name for record in records}):
            self._tell_apart(records)
        return "".join([self._line(record, instant, prefix) for record in records]).encode("utf-8", "backslashreplace")

    def _tell_apart(self, records: Sequence[Record]) -> None:
        """Find the keys of the tags in which the series of one name differ: such as pods, and cards."""
        by_name: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            by_name[record.name].append(record)
        for name, alike in by_name.items():
            common = set(alike[0].tags).intersection(*(record.tags for record in alike[1:]))
            keys = {tag.key for record in alike for tag in record.tags if tag not in common} - _SAID
            if not keys <= self._telling[name]:
                self._telling[name] |= keys
                self._known.clear()

    def _line(self, record: Record, instant: str, prefix: str | None) -> str:
        known = self._known.get((record.name, record.tags))
        if known is None:
            known = self._remember(record, prefix)
        name, unit, origin = known
        value = f"{self._bold}{human(record.value):>10}{self._plain}"
        return (
            f"{self._dim}{instant}{self._plain}  {name}{value} {unit} "
            f"{self._dim}over {human(record.covered_seconds)} s{origin}{self._plain}\n"
        )

    def _remember(self, record: Record, prefix: str | None) -> tuple[str, str, str]:
        if len(self._known) >= _MOST_SERIES:
            self._known.clear()
        tags = {tag.key: tag.value for tag in record.tags}
        fidelity = f", {tags['fidelity']} by {tags['sensor']}" if "fidelity" in tags and "sensor" in tags else ""
        place = f", {tags['location']}" if "source" in tags else ""
        telling = [f"{key} {tags[key]}" for key in tags if key in self._telling[record.name]]
        which = f", of {', '.join(telling)}" if telling else ""
        name, unit = _printable(record.format_name(prefix)), _printable(record.unit or "")
        known = (f"{name:<{_NAME_WIDTH}} ", f"{unit:<6}", _printable(fidelity + place + which))
        self._known[record.name, record.tags] = known
        return known


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


__all__ = ["StdoutExporter"]

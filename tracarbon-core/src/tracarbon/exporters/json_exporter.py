"""The exporter `json`: records in a local file that is valid JSON after every tick."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from tracarbon.exceptions import RetryableExportError, TracarbonException
from tracarbon.exporters._record_file import RecordFile
from tracarbon.exporters._writing import BatchWriter
from tracarbon.exporters.exporter import Batch, Exporter, Record
from tracarbon.metrics import Tag
from tracarbon.plugin import PluginContext, PluginOptions

DEFAULT_PATH = "tracarbon_export.json"
_LINE_SUFFIXES = (".jsonl", ".ndjson")
_MOST_SERIES = 20_000


class JSONExporter(Exporter):
    """Write each metric as a record to a local file: a JSON array, or JSON lines where the path ends in `.jsonl`.

    The file is appended to, valid after every tick, and repaired at the start if a crash has torn it. It is not flushed
    to the disk on every tick (no fsync): a power cut may cost the last records.

    Attributes:
        path: the file.
        indent: spaces to indent the records of an array by; `None` for one record per line, which is far cheaper and
            what a `pipeline.toml` has by default.
    """

    path: str = DEFAULT_PATH
    indent: int | None = 4

    class Options(PluginOptions):
        """Options of `[exporters.json]`."""

        path: str = Field(
            default=DEFAULT_PATH, min_length=1, description="the file; .jsonl or .ndjson gives one JSON object per line"
        )
        indent: int | None = Field(
            default=None,
            ge=0,
            le=16,
            description="spaces to indent an array's records by; default: one record per line",
        )

    def __post_init__(self) -> None:
        self._sink: _Sink | None = None
        self._fragments: _Fragments | None = None

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the exporter."""
        return "JSON"

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it."""
        return cls(path=options.path, indent=options.indent, metric_prefix_name=context.metric_prefix_name)

    async def __aenter__(self) -> Self:
        """Open the file, and repair it where a crash has torn it.

        Raises:
            TracarbonException: it cannot be written, is used by another process, or holds something else.
        """
        sink = _Sink(self.path)
        try:
            await sink.writer.run(sink.open)
        except BaseException:
            sink.writer.close()
            raise
        self._sink = sink
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the file."""
        sink, self._sink = self._sink, None
        if sink is not None:
            try:
                await sink.writer.run(sink.close)
            finally:
                sink.writer.close()

    async def export(self, batch: Batch) -> None:
        """Append the records of a batch.

        Raises:
            RetryableExportError: they could not be written; the file is as it was.
        """
        if self._sink is None:
            await self.__aenter__()
        sink = self._sink
        assert sink is not None
        await sink.writer.write(batch, lambda: sink.append(self._serialised(batch)))

    def flush(self) -> None:
        """Do nothing: the file is valid after every tick."""

    def _serialised(self, batch: Batch) -> list[str]:
        if self._fragments is None:
            self._fragments = _Fragments(self.metric_prefix_name)
        fragment = self._fragments.of
        instant = datetime.fromtimestamp(batch.window.ended_at, UTC).isoformat(timespec="milliseconds")
        opening = f'{{"timestamp":"{instant.removesuffix("+00:00")}Z",'
        closing = f',"window_seconds":{_number(batch.window.seconds)}}}'
        records = [f"{opening}{fragment(record)}{_figures(record)}{closing}" for record in batch]
        if self.indent is None or self.path.endswith(_LINE_SUFFIXES):
            return records
        padding = " " * self.indent
        return [textwrap.indent(json.dumps(json.loads(record), indent=self.indent), padding) for record in records]


def _figures(record: Record) -> str:
    band = record.band
    limits = "" if band is None else f',"low":{_number(band.low)},"high":{_number(band.high)}'
    return f'"value":{_number(record.value)}{limits},"covered_seconds":{_number(record.covered_seconds)}'


def _number(value: float) -> str:
    # Plugins may hand over subclasses of float whose repr is no JSON; and JSON knows neither NaN nor infinity.
    return repr(float(value)) if math.isfinite(value) else "null"


class _Fragments:
    """The part of each series' records that never changes."""

    def __init__(self, prefix: str | None) -> None:
        self._prefix = prefix
        self._known: dict[tuple[str, tuple[Tag, ...]], str] = {}

    def of(self, record: Record) -> str:
        fragment = self._known.get((record.name, record.tags))
        if fragment is None:
            if len(self._known) >= _MOST_SERIES:
                self._known.clear()
            constant = {
                "name": record.format_name(self._prefix),
                "unit": record.unit,
                "kind": record.kind.value,
                "tags": dict(record.tags),
            }
            fragment = self._known[record.name, record.tags] = _constant_text(constant)
        return fragment


def _constant_text(constant: Mapping[str, object]) -> str:
    text = json.dumps(constant, ensure_ascii=False, separators=(",", ":"))
    if not _is_encodable(text):
        text = json.dumps(constant, separators=(",", ":"))
    return text[1:-1] + ","


def _is_encodable(text: str) -> bool:
    """Whether it is UTF-8: names of files and processes that are not come with lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Sink:
    """The file and its thread; opened anew when it was moved away."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).expanduser()
        self._file: RecordFile | None = None
        self.writer = BatchWriter("tracarbon-json")

    def open(self) -> None:
        if self._path.is_dir():
            raise TracarbonException(f"{self._path} is a folder; give the path of a file")
        self._file = RecordFile(self._path, is_array=not self._path.name.endswith(_LINE_SUFFIXES))

    def append(self, records: list[str]) -> None:
        if not records:
            return
        if self._file is None or not self._file.is_in_place():
            self.close()
            self.open()
        assert self._file is not None
        try:
            self._file.append(records)
        except OSError as error:
            raise RetryableExportError(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

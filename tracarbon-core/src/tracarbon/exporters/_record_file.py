"""A file of JSON records that is valid after every append: an array, or one record per line.

Appending costs the same whatever the size of the file: what closes the array is overwritten, by a single write, with
the new records and the closing again. A tail that a crash has torn is cut back to the last whole record when the file
is opened.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tracarbon.exceptions import TracarbonException

logger = logging.getLogger("tracarbon")

_TAIL_BYTES = 64 * 1024
_MOST_TRIES = 3
"""A crash tears one record; where none of the last few is followed by what a crash leaves, the file is not ours."""
_OPENING = b"["
_CLOSING = b"\n]\n"


@dataclass(frozen=True, slots=True)
class _Layout:
    """How records lie in a file.

    Attributes:
        head: what precedes the first record.
        start: what precedes a record that begins a line; a line break is never inside a JSON string.
        separator: what lies between two records, on one line or not.
        end: what follows the last record where nothing is lost.
        torn: what else a crash leaves: the beginning of one record, and the zeros that a power cut leaves.
        is_line_wise: whether each record is one line.
    """

    head: re.Pattern[str]
    start: re.Pattern[str]
    separator: re.Pattern[str]
    end: re.Pattern[str]
    torn: re.Pattern[str]
    is_line_wise: bool


_ARRAY = _Layout(
    head=re.compile(r"\s*\[(?=\s*(?:[{\]\0]|\Z))"),
    start=re.compile(r",[ \t\r]*\n[ \t]*(?=\{)"),
    separator=re.compile(r"\s*,\s*(?=\{)"),
    end=re.compile(r"\s*,?\s*\]?\s*"),
    torn=re.compile(r"\s*,?\s*\]?\s*\0+|\s*(?:,\s*)?\{\s*(?:\".*)?\0*", re.DOTALL),
    is_line_wise=False,
)
_LINES = _Layout(
    head=re.compile(r"(?=\{)"),
    start=re.compile(r"\n(?=\{)"),
    separator=re.compile(r"\s*\n(?=\{)"),
    end=re.compile(r"\s*"),
    torn=re.compile(r"\s*\0+|(?:\s*\n)?\{(?:\"[^\n]*)?\0*"),
    is_line_wise=True,
)
_DECODER = json.JSONDecoder()


class RecordFile:
    """An open file, locked against a second writer.

    Args:
        path: where it is; made if there is none.
        is_array: an array, or lines.

    Raises:
        TracarbonException: it cannot be written, is used by another process, or is no file of records.
    """

    def __init__(self, path: Path, *, is_array: bool) -> None:
        self._path = path
        self._is_array = is_array
        self._layout = _ARRAY if is_array else _LINES
        self._closing = _CLOSING if is_array else b""
        self._descriptor = _open(path)
        try:
            _lock(self._descriptor, path)
            status = os.fstat(self._descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise TracarbonException(f"{path} is no regular file; give the path of one")
            self._identity = (status.st_dev, status.st_ino)
            self._end = self._repair(status.st_size)
        except OSError as error:
            os.close(self._descriptor)
            raise TracarbonException(f"{path} cannot be written: {error.strerror}") from error
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, records: Sequence[str]) -> None:
        """Append records, each a JSON text.

        Raises:
            OSError: they could not be written; the file is as it was before.
        """
        data = self._joined(records)
        try:
            _write_at(self._descriptor, data + self._closing, self._end)
        except OSError:
            self._restore()
            raise
        self._end += len(data)

    def is_in_place(self) -> bool:
        """Whether the path still leads to this file as it was left: not moved, not replaced, not cut."""
        try:
            status = self._path.stat()
        except OSError:
            return False
        is_whole = status.st_size == self._end + len(self._closing)
        return is_whole and (status.st_dev, status.st_ino) == self._identity

    def close(self) -> None:
        """Close the file and give up the lock, which a forked child would otherwise keep."""
        _unlock(self._descriptor)
        os.close(self._descriptor)

    def _joined(self, records: Sequence[str]) -> bytes:
        if not self._is_array:
            return "".join(f"{record}\n" for record in records).encode()
        first = "\n" if self._end == self._start else ",\n"
        return (first + ",\n".join(records)).encode()

    def _restore(self) -> None:
        with suppress(OSError):
            _write_at(self._descriptor, self._closing, self._end)
        with suppress(OSError):
            os.ftruncate(self._descriptor, self._end + len(self._closing))

    def _repair(self, size: int) -> int:
        """Return where the next record goes, after cutting off what is torn."""
        head = os.pread(self._descriptor, 4096, 0).decode("latin-1")
        if not head.strip():
            self._start = len(_OPENING)
            return self._begin()
        opening = self._layout.head.match(head)
        if opening is None:
            self._refuse()
        self._start = opening.end()
        end, is_clean = self._last_record(size)
        if not is_clean:
            logger.warning("%s: a torn record at its end was cut off, %d bytes", self._path, size - end)
        self._end = end
        self._restore()
        if not self._is_array and end and os.pread(self._descriptor, 1, end - 1) != b"\n":
            _write_at(self._descriptor, b"\n", end)
            return end + 1
        return end

    def _begin(self) -> int:
        os.ftruncate(self._descriptor, 0)
        if self._is_array:
            _write_at(self._descriptor, _OPENING + _CLOSING, 0)
            return len(_OPENING)
        return 0

    def _last_record(self, size: int) -> tuple[int, bool]:
        """Return the end of the last whole record, and whether nothing is lost after it."""
        length = min(size, _TAIL_BYTES)
        while True:
            offset = size - length
            # Latin-1 keeps one character per byte, so that positions are offsets even in torn text.
            tail = os.pread(self._descriptor, length, offset).decode("latin-1")
            starts = [match.end() for match in self._layout.start.finditer(tail)]
            if offset == 0:
                starts.insert(0, self._start)
            for start in reversed(starts[-_MOST_TRIES:]):
                end = self._end_of_records(tail, start)
                if end == start and (offset or start != self._start):
                    continue  # the torn record itself
                if (is_clean := self._is_clean(tail[end:])) is not None:
                    return offset + end + self._breaks_line(tail, end), is_clean
            if offset == 0 or len(starts) >= _MOST_TRIES:
                self._refuse()
            length = min(size, length * 4)

    def _end_of_records(self, text: str, start: int) -> int:
        """Return where the whole records that follow one another from `start` end; `start` where there is none."""
        end, record = start, len(text) - len(text[start:].lstrip())
        while True:
            try:
                _, record_end = _DECODER.raw_decode(text, record)
            except (ValueError, RecursionError):
                return end
            if self._layout.is_line_wise and "\n" in text[record:record_end]:
                return end
            end = record_end
            gap = self._layout.separator.match(text, end)
            if gap is None:
                return end
            record = gap.end()

    def _is_clean(self, rest: str) -> bool | None:
        """Whether nothing is lost in what follows the last whole record; `None` where no crash leaves such a thing."""
        if self._layout.end.fullmatch(rest):
            return True
        is_torn = len(rest.rstrip("\0")) <= _TAIL_BYTES and self._layout.torn.fullmatch(rest)
        return False if is_torn else None

    def _breaks_line(self, text: str, end: int) -> bool:
        return self._layout.is_line_wise and end > 0 and text[end : end + 1] == "\n"

    def _refuse(self) -> NoReturn:
        kind = "JSON array" if self._is_array else "file of JSON lines"
        raise TracarbonException(f"{self._path} is no {kind} of records, and is left alone; give another path")


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0), 0o644)
    except FileNotFoundError:
        raise TracarbonException(f"{path} cannot be written: there is no folder {path.parent}") from None
    except OSError as error:
        raise TracarbonException(f"{path} cannot be written: {error.strerror}") from None


def _lock(descriptor: int, path: Path) -> None:
    if sys.platform == "win32":  # no advisory locks: two writers are not told apart there
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            logger.debug("%s cannot be locked: %s", path, error.strerror)
            return
        raise TracarbonException(f"{path} is being written by another process or exporter; give another path") from None


def _unlock(descriptor: int) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        if hasattr(os, "pwrite"):
            written = os.pwrite(descriptor, data, offset)
        else:
            os.lseek(descriptor, offset, os.SEEK_SET)
            written = os.write(descriptor, data)
        data, offset = data[written:], offset + written

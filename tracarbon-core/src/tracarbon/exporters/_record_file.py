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
from pathlib import Path

from tracarbon.exceptions import TracarbonException

logger = logging.getLogger("tracarbon")

_TAIL_BYTES = 64 * 1024
_RECORD_START = re.compile(r"^[ \t]*\{", re.MULTILINE)
_OPENING = b"["
_CLOSING = b"\n]\n"


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
        self._closing = _CLOSING if is_array else b""
        self._descriptor = _open(path)
        try:
            _lock(self._descriptor, path)
            status = os.fstat(self._descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise TracarbonException(f"{path} is no regular file; give the path of one")
            self._identity = (status.st_dev, status.st_ino)
            self._end = self._repair(status.st_size)
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
        head = os.pread(self._descriptor, 4096, 0).lstrip() if size else b""
        self._start = os.pread(self._descriptor, 4096, 0).find(_OPENING) + 1 if head else 1
        if not head:
            return self._begin()
        if not head.startswith(_OPENING if self._is_array else b"{"):
            self._refuse()
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
        """Return the end of the last whole record, and whether only the proper closing follows it."""
        length = min(size, _TAIL_BYTES)
        while True:
            offset = size - length
            # Latin-1 keeps one character per byte, so that positions are offsets even in torn text.
            tail = os.pread(self._descriptor, length, offset).decode("latin-1")
            found = self._find_last_record(tail)
            if found is not None:
                end, rest = found
                return offset + end, not rest.strip(",] \n\r\t")
            if offset == 0:
                return self._without_records(tail)
            length = min(size, length * 4)

    def _find_last_record(self, tail: str) -> tuple[int, str] | None:
        decoder = json.JSONDecoder()
        for start in reversed([match.end() - 1 for match in _RECORD_START.finditer(tail)]):
            try:
                _, end = decoder.raw_decode(tail, start)
            except ValueError:
                continue
            if not self._is_array and tail[end : end + 1] == "\n":
                end += 1
            return end, tail[end:]
        return None

    def _without_records(self, text: str) -> tuple[int, bool]:
        if not self._is_array:
            return 0, not text.strip()
        inside = text[self._start :].strip()
        if inside and inside != "]" and not inside.startswith("{"):
            self._refuse()
        return self._start, inside == "]"

    def _refuse(self) -> None:
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

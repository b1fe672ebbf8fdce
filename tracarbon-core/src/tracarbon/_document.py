"""Reading `pipeline.toml` and `.env`: what was written, on which line, and what is wrong with it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import tomli

from tracarbon.exceptions import ConfigurationError

MAX_FILE_BYTES = 1024 * 1024
MIN_DURATION_SECONDS = 0.001
MAX_DURATION_SECONDS = 86_400
ENVIRONMENT_PREFIX = "TRACARBON_"

Key: TypeAlias = str | int

# tomli does not know positions, so that statements are found by parsing again; past this, lines are left unknown.
_MAX_PARSED_CHARACTERS = 16 * MAX_FILE_BYTES

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
NUMBER = r"[0-9]+(?:\.[0-9]+)?"
DURATION = re.compile(r"\s*".join(rf"(?:({NUMBER})\s*{unit})?" for unit in ("d", "h", "m", "s", "ms")))
_UNIT = re.compile(rf"{NUMBER}\s*([^0-9.\s]+)")
_UNITS = ("d", "h", "m", "s", "ms")
_UNIT_SECONDS = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)

_QUOTE_HINT = 'text and durations go in quotes, such as interval = "15s"; true and false are lower case'
_SYNTAX = {
    "Invalid value": ("not a value", _QUOTE_HINT),
    "Expected newline or end of document after a statement": ("the line should have ended here", _QUOTE_HINT),
    "Invalid statement": ("neither a [table] nor a key = value", ""),
    "Expected '=' after a key in a key/value pair": ("expected '=' after the key", ""),
    "Expected ']' at the end of a table declaration": ("expected ']' after the table's name", ""),
    "Found invalid character '\\n'": ("the string does not end on its line", ""),
    "Illegal character '\\n'": ("the string does not end on its line", ""),
    "Unescaped '\\' in a string": ("a backslash that escapes nothing", "in 'single quotes' a backslash is a backslash"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        line: where, counted from 1; `None` where no line is to blame.
        place: the dotted key, such as `sensors.gpu.devicess`.
        message: what is wrong.
        hint: what would help, or who says so; may be several lines.
    """

    line: int | None
    place: str
    message: str
    hint: str = ""


class DocumentError(ConfigurationError):
    """A file cannot be read, or what it says cannot be meant."""


def render_problems(source: str, problems: Sequence[Problem]) -> str:
    """Return the problems as a table for people: sorted by line, aligned, hints below, control characters escaped."""
    ordered = sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0))
    lines = ["" if problem.line is None else f"line {problem.line}" for problem in ordered]
    places = [_printable(problem.place) for problem in ordered]
    indent = "  " + _column("", lines, gap=2)
    rows = [f"{_printable(source)}: {len(ordered)} problem{'' if len(ordered) == 1 else 's'}"]
    for problem, line, place in zip(ordered, lines, places, strict=True):
        rows.append(f"  {_column(line, lines, gap=2)}{_column(place, places, gap=3)}{_printable(problem.message)}")
        rows.extend(indent + _printable(hint) for hint in problem.hint.splitlines())
    return "\n".join(rows)


def _column(cell: str, cells: list[str], *, gap: int) -> str:
    width = max(map(len, cells))
    return cell.ljust(width + gap) if width else ""


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def dotted(path: Iterable[Key]) -> str:
    """Return a path the way TOML writes it, such as `tags."my key"` or, into an array, `rules.0.name`."""
    return ".".join(str(key) if _BARE_KEY.fullmatch(str(key)) else _quoted(str(key)) for key in path)


def _quoted(key: str) -> str:
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Document:
    """A TOML file.

    Attributes:
        source: the file's name, as it was given.
        data: what it says.
    """

    def __init__(self, text: str, source: str, data: dict[str, Any]) -> None:
        self.source = source
        self.data = data
        self._text = text

    def line_of(self, *path: Key) -> int | None:
        """Return the line, from 1, where a key or table is first written; `None` where the file does not have it.

        Whatever is inside a value over several lines is on the line where the statement begins.
        """
        mark = self._marks
        for key in path:
            if key not in mark.children:
                return None
            mark = mark.children[key]
        return mark.line

    @cached_property
    def _marks(self) -> _Mark:
        return _mark_statements(_statements(self._text.split("\n")))[0]


def read_document(path: Path) -> Document:
    """Read a TOML file of at most 1 MiB.

    Raises:
        DocumentError: it cannot be read, is not UTF-8, or is not TOML.
    """
    return parse_document(_read_text(path, missing_hint="'tracarbon init' writes one"), str(path))


def parse_document(text: str, source: str) -> Document:
    """Parse TOML; `source` is the name under which problems are reported.

    Raises:
        DocumentError: it is not TOML.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        return Document(text, source, tomli.loads(text))
    except tomli.TOMLDecodeError as error:
        raise DocumentError(source, [_explain(error, text)]) from error
    except RecursionError as error:
        raise DocumentError(source, [_unparsable(text, "arrays or tables nested too deeply")]) from error
    except ValueError as error:  # from int(), which limits the digits it takes
        raise DocumentError(source, [_unparsable(text, "a number of too many digits")]) from error


def _read_text(path: Path, *, missing_hint: str = "") -> str:
    def refuse(message: str, hint: str = "", line: int | None = None) -> DocumentError:
        return DocumentError(str(path), [Problem(line, "", message, hint)])

    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise refuse("no such file", missing_hint) from error
    except OSError as error:
        if path.is_dir():
            raise refuse("a folder, not a file") from error
        if isinstance(error, PermissionError):
            raise refuse("no permission to read it") from error
        raise refuse(f"cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise refuse("more than 1 MiB; this cannot be the right file")
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise refuse(f"not UTF-8 (byte 0x{content[error.start]:02x})", "save it as UTF-8", line) from error


class _Statement(NamedTuple):
    """A `[table]`, `[[table]]` or `key = value`; `data` is what it alone parses to, `None` where it does not."""

    first_line: int
    last_line: int
    is_header: bool
    data: dict[str, Any] | None


def _statements(lines: list[str]) -> Iterator[_Statement]:
    """Cut a file into statements, each the smallest number of lines that is TOML by itself."""
    start, allowance = 0, _MAX_PARSED_CHARACTERS
    while start < len(lines) and allowance > 0:
        first = lines[start].lstrip(" \t")
        end = start + 1
        if first and not first.startswith("#"):
            data = None
            while (data := _parse_alone(lines[start:end])) is None and end < len(lines) and allowance > 0:
                allowance -= sum(map(len, lines[start:end]))
                end += 1
            yield _Statement(start + 1, end, first.startswith("["), data)
        start = end


def _parse_alone(lines: list[str]) -> dict[str, Any] | None:
    try:
        return tomli.loads("\n".join(lines))
    except (ValueError, RecursionError):
        return None


class _Mark:
    """The line of a key, and of the keys below it."""

    __slots__ = ("children", "is_table_array", "line")

    def __init__(self, line: int | None) -> None:
        self.line = line
        self.children: dict[Key, _Mark] = {}
        self.is_table_array = False

    def mark(self, key: Key, line: int) -> _Mark:
        return self.children.setdefault(key, _Mark(line))


def _mark_statements(statements: Iterable[_Statement]) -> tuple[_Mark, _Mark, list[Key]]:
    """Return the marks of all statements, and the table that is open at the end, with its path."""
    root = table = _Mark(None)
    path: list[Key] = []
    for statement in statements:
        if statement.data is None:
            break
        if statement.is_header:
            table, path = _open_table(root, statement.data, statement.first_line)
        else:
            _mark_values(table, statement.data, statement.first_line)
    return root, table, path


def _open_table(root: _Mark, header: Any, line: int) -> tuple[_Mark, list[Key]]:
    """Mark a table by its header, which alone parses to `{"a": {"b": {}}}`, or for an array to `{"a": [{}]}`."""
    table, path = root, list[Key]()
    while header:
        [(key, header)] = header.items()
        table = table.mark(key, line)
        path.append(key)
        is_new_element = isinstance(header, list)
        if is_new_element or table.is_table_array:
            table.is_table_array = True
            path.append(len(table.children) - (not is_new_element))
            table = table.mark(path[-1], line)
            header = {} if is_new_element else header
    return table, path


def _mark_values(table: _Mark, data: dict[str, Any], line: int) -> None:
    waiting: list[tuple[_Mark, Any]] = [(table, data)]
    while waiting:
        parent, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend((parent.mark(key, line), below) for key, below in value.items())
        elif isinstance(value, list):
            waiting.extend((parent.mark(index, line), below) for index, below in enumerate(value))


def _explain(error: tomli.TOMLDecodeError, text: str) -> Problem:
    statements = list(_statements(text.split("\n")[: error.lineno]))
    culprit = statements[-1] if statements else None
    if culprit is not None and culprit.data is not None:
        return _explain_conflict(culprit, culprit.data, statements[:-1])
    message, hint = _SYNTAX.get(error.msg, (error.msg[:1].lower() + error.msg[1:], ""))
    if culprit is not None and culprit.first_line < error.lineno and error.pos >= len(text):
        return Problem(culprit.first_line, "", f"{message}: what begins here does not end", hint)
    return Problem(error.lineno, "", f"{message} (column {error.colno})", hint)


def _explain_conflict(culprit: _Statement, data: dict[str, Any], before: list[_Statement]) -> Problem:
    """Say of a statement that is fine by itself with which earlier one it is at odds."""
    root, mark, path = _mark_statements(before)
    if culprit.is_header:
        mark, path = root, []
    value: Any = data
    while isinstance(value, dict) and len(value) == 1:
        [(key, value)] = value.items()
        path = [*path, key]
        if key not in mark.children:
            return Problem(
                culprit.first_line, dotted(path), f"does not go with '{dotted(path[:-1])}' on line {mark.line}"
            )
        mark = mark.children[key]
    what = "table" if culprit.is_header else "key"
    return Problem(culprit.first_line, dotted(path), f"{what} declared twice; the first is on line {mark.line}")


def _unparsable(text: str, message: str) -> Problem:
    culprits = (statement for statement in _statements(text.split("\n")) if statement.data is None)
    culprit = next(culprits, None)
    return Problem(culprit.first_line if culprit else None, "", message)


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that `word` was probably meant to be, whatever its case; `None` if none is near."""
    by_folded: dict[str, str] = {}
    for candidate in candidates:
        by_folded.setdefault(candidate.casefold(), candidate)
    matches = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return by_folded[matches[0]] if matches else None


def parse_seconds(value: object) -> float:
    """Return a duration in seconds.

    Args:
        value: such as `"15s"`, `"500ms"`, `"1m30s"`, `"2h"` or `"1d"`; a number, also as text, is seconds.

    Raises:
        ValueError: it is not a duration, less than a millisecond, or more than a day.
    """
    if isinstance(value, str):
        seconds = _parse_duration(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    else:
        raise ValueError(f'a duration is text such as "15s" or a number of seconds, not {value!r}')
    if seconds > MAX_DURATION_SECONDS:
        raise ValueError(f"{value!r} is too long; at most 1d")
    if math.isnan(seconds):
        raise ValueError("nan is not a number of seconds")
    if seconds <= 0:
        raise ValueError(f"{value!r} must be more than 0")
    if seconds < MIN_DURATION_SECONDS:
        raise ValueError(f"{value!r} is too short; at least 1ms")
    return float(seconds)


def _parse_duration(text: str) -> float:
    text = text.strip()
    if re.fullmatch(rf"-?{NUMBER}", text):
        return float(text)
    match = DURATION.fullmatch(text.removeprefix("-"))
    if match is None or not any(match.groups()):
        units = (unit for unit in _UNIT.findall(text) if unit not in _UNITS)
        unknown = next(units, None)
        raise ValueError(
            f"{text!r} is not a duration, such as '15s', '500ms', '1m30s', '2h' or '1d'"
            if unknown is None
            else f"{text!r} has the unknown unit {unknown!r}; use ms, s, m, h or d"
        )
    pairs = zip(match.groups(default="0"), _UNIT_SECONDS, strict=True)
    seconds = sum(float(number) * unit_seconds for number, unit_seconds in pairs)
    return -seconds if text.startswith("-") else seconds


def read_env_file(path: Path) -> dict[str, str]:
    """Return the `TRACARBON_*` variables of a `.env` file, none where there is no such file.

    The process's environment is neither read nor changed, and other variables of the file are not looked at.

    Raises:
        DocumentError: it cannot be read, or is not UTF-8.
    """
    if not path.exists():
        return {}
    from dotenv import dotenv_values

    variables = dotenv_values(stream=StringIO(_read_text(path)), interpolate=False)
    ours = {name: value for name, value in variables.items() if name.startswith(ENVIRONMENT_PREFIX)}
    return {name: value for name, value in ours.items() if value is not None}

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st
from tracarbon._document import (
    MAX_FILE_BYTES,
    DocumentError,
    Key,
    Problem,
    dotted,
    nearest,
    parse_document,
    parse_seconds,
    read_document,
    read_env_file,
    render_problems,
)

PIPELINE = """\
interval = "15s"

[tags]   # on every series
cluster = "prod-1"

[location]
plugin  = "country"
country = "FR"

[sensors.rapl]

[sensors.gpu]
devicess = [
    0,
    1,
]
api_key = { env = "KEY" }

[sensors]
ups.port = 1

[[rules]]
name = "a"
[[rules]]
text = '''
[sensors.fake]
x = 1
'''
[rules.sub]
more = [{ deep = true }]
"""


def problem_of(text: str) -> Problem:
    with pytest.raises(DocumentError) as caught:
        parse_document(text, "pipeline.toml")
    [problem] = caught.value.problems
    return problem


def problem_of_file(path: Path) -> Problem:
    with pytest.raises(DocumentError) as caught:
        read_document(path)
    assert caught.value.source == str(path)
    [problem] = caught.value.problems
    return problem


class TestRendering:
    def test_the_table_of_the_documentation(self) -> None:
        problems = [
            Problem(
                24,
                "exporters.datadog",
                "no exporter named 'datadog' is installed",
                "pip install tracarbon-exporter-datadog",
            ),
            Problem(
                13,
                "sensors.gpu.devicess",
                "unknown option; did you mean 'devices'?",
                "nvidia, from tracarbon-sensor-nvidia 0.1.0",
            ),
        ]
        assert str(DocumentError("pipeline.toml", problems)) == (
            "pipeline.toml: 2 problems\n"
            "  line 13  sensors.gpu.devicess   unknown option; did you mean 'devices'?\n"
            "           nvidia, from tracarbon-sensor-nvidia 0.1.0\n"
            "  line 24  exporters.datadog      no exporter named 'datadog' is installed\n"
            "           pip install tracarbon-exporter-datadog"
        )

    def test_a_problem_without_a_line_comes_last_with_its_column_blank(self) -> None:
        problems = [Problem(None, "TRACARBON_X", "unknown"), Problem(3, "a", "wrong", "one\ntwo")]
        assert render_problems("p", problems).splitlines() == [
            "p: 2 problems",
            "  line 3  a             wrong",
            "          one",
            "          two",
            "          TRACARBON_X   unknown",
        ]

    def test_columns_that_nobody_needs_are_left_out(self) -> None:
        assert render_problems("p", [Problem(None, "", "no such file", "do this")]) == (
            "p: 1 problem\n  no such file\n  do this"
        )

    def test_control_characters_are_shown_and_not_obeyed(self) -> None:
        rendered = render_problems("p\x1b[2J", [Problem(1, "a.\x07", "bad\nvalue \u202e", "hint\x00")])
        assert rendered == "p\\x1b[2J: 1 problem\n  line 1  a.\\x07   bad\\nvalue \\u202e\n          hint\\x00"

    def test_a_name_that_is_not_utf8_can_be_encoded(self) -> None:
        render_problems(os.fsdecode(b"p\xff"), [Problem(1, "a", "b")]).encode()

    def test_a_path_is_written_as_toml_writes_it(self) -> None:
        assert dotted(("rules", 0, "my key", "", 'q"\\')) == 'rules.0."my key".""."q\\"\\\\"'


class TestLines:
    @pytest.mark.parametrize(
        ("path", "line"),
        [
            (("interval",), 1),
            (("tags",), 3),
            (("tags", "cluster"), 4),
            (("location", "country"), 8),
            (("sensors",), 10),
            (("sensors", "rapl"), 10),
            (("sensors", "gpu"), 12),
            (("sensors", "gpu", "devicess"), 13),
            (("sensors", "gpu", "devicess", 1), 13),
            (("sensors", "gpu", "api_key", "env"), 17),
            (("sensors", "ups", "port"), 20),
            (("rules",), 22),
            (("rules", 0, "name"), 23),
            (("rules", 1), 24),
            (("rules", 1, "text"), 25),
            (("rules", 1, "sub"), 29),
            (("rules", 1, "sub", "more", 0, "deep"), 30),
            (("sensors", "fake"), None),
            (("rules", 2), None),
            (("interval", "x"), None),
            ((), None),
        ],
    )
    def test_each_key_knows_its_line(self, path: tuple[Key, ...], line: int | None) -> None:
        assert parse_document(PIPELINE, "p").line_of(*path) == line

    @pytest.mark.parametrize("text", [PIPELINE.replace("\n", "\r\n"), "\ufeff" + PIPELINE], ids=["crlf", "bom"])
    def test_line_ends_and_byte_order_marks_move_nothing(self, text: str) -> None:
        document = parse_document(text, "p")
        assert document.data == tomli.loads(PIPELINE)
        assert document.line_of("rules", 1, "sub", "more") == 30

    def test_an_empty_file_is_no_error(self) -> None:
        assert parse_document("", "p").data == {}
        assert parse_document("# nothing\n\n", "p").data == {}

    def test_a_huge_value_costs_a_bounded_time_and_then_lines_are_unknown(self) -> None:
        document = parse_document("a = 1\nb = [\n" + "'some text',\n" * 30_000 + "]\nc = 1\n", "p")
        assert document.line_of("a") == 1
        assert document.line_of("c") is None

    def test_a_path_of_many_parts_needs_no_recursion(self) -> None:
        names = [f"k{index}" for index in range(400)]
        assert parse_document("\n" + ".".join(names) + " = 1", "p").line_of(*names) == 2


VALUES = [
    ("1", 1),
    ('"#"', 1),
    ("[1, [2, { x = 3 }]]", 1),
    ("{ a = 1, b = { c = [true] } }", 1),
    ("[\n  1, # one\n\n  2,\n]", 5),
    ('"""\n[table]\nkey = 1\n"""', 4),
    ("'''\n# no comment\n'''", 3),
]
NAMES = st.sampled_from(["a", "b", "port", "a-b", "_", "1"])
FILLERS = st.sampled_from(["", "# a = 1", "   ", "\t# [a]", '# """'])


@st.composite
def written_files(draw: st.DrawFn) -> tuple[str, dict[tuple[Key, ...], int]]:
    """Return a file and the lines of the keys that were written into it, noted while it was written."""
    lines: list[str] = []
    expected: dict[tuple[Key, ...], int] = {}

    def write(text: str, *paths: tuple[Key, ...]) -> None:
        for path in paths:
            expected.setdefault(path, len(lines) + 1)
        lines.extend(text.split("\n"))

    def write_keys(table: tuple[Key, ...]) -> None:
        for name in draw(st.lists(NAMES, max_size=3, unique=True)):
            lines.extend(draw(st.lists(FILLERS, max_size=2)))
            value, _ = draw(st.sampled_from(VALUES))
            write(f"{draw(st.sampled_from(['', '  ']))}{name} = {value}", (*table, name))

    write_keys(())
    for number in range(draw(st.integers(0, 4))):
        kind, name = draw(st.sampled_from(["table", "quoted", "dotted", "array"])), f"t{number}"
        match kind:
            case "table":
                write(f"[{name}] # comment", (name,))
                write_keys((name,))
            case "quoted":
                write(f'[ "{name}.x" ]', (f"{name}.x",))
                write_keys((f"{name}.x",))
            case "dotted":
                write(f"[{name}.sub]", (name,), (name, "sub"))
                write_keys((name, "sub"))
            case "array":
                for index in range(draw(st.integers(1, 3))):
                    write(f"[[{name}]]", (name,), (name, index))
                    write_keys((name, index))
                    write(f"[{name}.sub]", (name, index, "sub"))
                    write_keys((name, index, "sub"))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines), expected


def paths_of(value: Any, prefix: tuple[Key, ...] = ()) -> Iterator[tuple[Key, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in below:
        yield (*prefix, key)
        yield from paths_of(inner, (*prefix, key))


@given(written_files())
def test_lines_are_those_that_were_written(written: tuple[str, dict[tuple[Key, ...], int]]) -> None:
    text, expected = written
    document = parse_document(text, "p")
    assert {path: document.line_of(*path) for path in expected} == expected


@given(written_files())
def test_every_key_has_a_line_and_the_file_up_to_the_statement_before_does_not_have_it(
    written: tuple[str, dict[tuple[Key, ...], int]],
) -> None:
    document = parse_document(written[0], "p")
    lines = written[0].replace("\r\n", "\n").split("\n")
    for path in paths_of(document.data):
        line = document.line_of(*path)
        assert line is not None
        assert path not in set(paths_of(tomli.loads("\n".join(lines[: line - 1]))))


class TestSyntaxErrors:
    @pytest.mark.parametrize(
        ("text", "line", "message"),
        [
            ("a = 1\nb\n", 2, "expected '=' after the key (column 2)"),
            ("interval = 15s\n", 1, "the line should have ended here (column 14)"),
            ("\na = yes", 2, "not a value (column 5)"),
            ("= 1", 1, "neither a [table] nor a key = value (column 1)"),
            ("[a\n", 1, "expected ']' after the table's name (column 3)"),
            ("[a]\nb = [1,\n2\n", 2, "unclosed array: what begins here does not end"),
            ('b = """\n2\n', 1, "unterminated string: what begins here does not end"),
            ('a = "b\nc = "d"\n', 1, "the string does not end on its line (column 7)"),
            ("a = 'b\nc = 'd'\n", 1, "the string does not end on its line (column 7)"),
            ("a = [\n1,\nx,\n]", 3, "not a value (column 1)"),
            ("x = 1\na = " + "[" * 2000, 2, "arrays or tables nested too deeply"),
            ("x = 1\na = " + "1" * 5000, 2, "a number of too many digits"),
        ],
    )
    def test_line_and_reason(self, text: str, line: int, message: str) -> None:
        problem = problem_of(text)
        assert (problem.line, problem.place, problem.message) == (line, "", message)

    def test_a_value_that_lacks_its_quotes_is_told_so(self) -> None:
        assert 'interval = "15s"' in problem_of("interval = 15s").hint

    @pytest.mark.parametrize(
        ("text", "line", "place", "message"),
        [
            ("a = 1\nb = 2\na = 3", 3, "a", "key declared twice; the first is on line 1"),
            ("[a.b]\n[x]\n[a.b]", 3, "a.b", "table declared twice; the first is on line 1"),
            ("[a]\nb = [\n1]\nb = [\n2]", 4, "a.b", "key declared twice; the first is on line 2"),
            ("[[a]]\nb = 1\nb = 2", 3, "a.0.b", "key declared twice; the first is on line 2"),
            ("[a]\nb.c = 1\nb.c.d = 2", 3, "a.b.c.d", "does not go with 'a.b.c' on line 2"),
            ("a = 1\n[a.b]", 2, "a.b", "does not go with 'a' on line 1"),
        ],
    )
    def test_what_is_declared_twice_is_named(self, text: str, line: int, place: str, message: str) -> None:
        problem = problem_of(text)
        assert (problem.line, problem.place, problem.message) == (line, place, message)

    @given(st.text(alphabet=st.sampled_from("ab.=[]{}\"'\n#,1 \\\r"), max_size=40))
    def test_whatever_is_written_is_read_or_explained(self, text: str) -> None:
        try:
            document = parse_document(text, "p")
        except DocumentError as error:
            [problem] = error.problems
            assert problem.line is not None
            assert 1 <= problem.line <= text.count("\n") + 1
            assert str(error)
        else:
            assert all(document.line_of(*path) for path in paths_of(document.data))


class TestFiles:
    def test_a_file_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "pipeline.toml"
        path.write_bytes(b"\xef\xbb\xbf" + PIPELINE.encode())
        document = read_document(path)
        assert (document.source, document.line_of("tags")) == (str(path), 3)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        problem = problem_of_file(tmp_path / "none.toml")
        assert (problem.line, problem.message) == (None, "no such file")
        assert "tracarbon init" in problem.hint

    def test_a_folder(self, tmp_path: Path) -> None:
        assert problem_of_file(tmp_path).message == "a folder, not a file"

    def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "pipeline.toml"
        path.write_text(PIPELINE)
        path.chmod(0)
        if os.access(path, os.R_OK):  # root reads whatever it likes

            def refuse(*_: object) -> None:
                raise PermissionError(13, "Permission denied")

            monkeypatch.setattr(Path, "open", refuse)
        assert problem_of_file(path).message == "no permission to read it"

    def test_any_other_reason_is_the_system_s(self, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to("loop")
        assert problem_of_file(tmp_path / "loop").message.startswith("cannot be read: Too many")

    def test_the_first_byte_that_is_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "pipeline.toml"
        path.write_bytes(b"a = 1\n# caf\xe9\n# \xff")
        problem = problem_of_file(path)
        assert (problem.line, problem.message) == (2, "not UTF-8 (byte 0xe9)")

    def test_a_file_larger_than_any_pipeline_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "pipeline.toml"
        path.write_bytes(b"#" * MAX_FILE_BYTES)
        assert read_document(path).data == {}
        path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
        assert problem_of_file(path).message.startswith("more than 1 MiB")


@pytest.mark.parametrize(
    ("word", "expected"),
    [("devicess", "devices"), ("DEVICES", "devices"), ("Prot", "port"), ("datadog", None), ("", None)],
)
def test_the_nearest_word(word: str, expected: str | None) -> None:
    assert nearest(word, ["devices", "port", "interval"]) == expected


def test_the_nearest_word_keeps_its_own_case() -> None:
    assert nearest("stdout", ["Stdout", "JSON"]) == "Stdout"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("15s", 15.0),
        ("500ms", 0.5),
        ("1m30s", 90.0),
        (" 1m 30 s ", 90.0),
        ("2h", 7200.0),
        ("1d", 86_400.0),
        ("1.5h", 5400.0),
        ("60", 60.0),
        (15, 15.0),
        (0.25, 0.25),
        (86_400, 86_400.0),
    ],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_seconds(value) == seconds
    assert type(parse_seconds(value)) is float


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "must be more than 0"),
        ("0s", "must be more than 0"),
        (-5, "must be more than 0"),
        ("-5s", "must be more than 0"),
        (True, "not True"),
        (None, "not None"),
        ([], r"not \[\]"),
        (float("nan"), "not a number"),
        (float("inf"), "at most 1d"),
        ("", "not a duration"),
        ("s", "not a duration"),
        ("1s1m", "not a duration"),
        ("1m30", "not a duration"),
        ("15x", "unknown unit 'x'"),
        ("1h 2weeks", "unknown unit 'weeks'"),
        ("٣s", "not a duration"),
        ("25h", "at most 1d"),
        (86_401, "at most 1d"),
        ("9" * 400 + "s", "at most 1d"),
        (10**400, "at most 1d"),
    ],
)
def test_what_is_not_a_duration(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_seconds(value)


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.integers(1, 999))
def test_parts_of_a_duration_add_up(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    total = hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    assert parse_seconds(f"{hours}h{minutes}m{seconds}s{milliseconds}ms") == pytest.approx(total)


class TestEnvFile:
    def test_only_ours_are_read_and_the_environment_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / ".env"
        path.write_text(
            "# comment\nDATABASE_PASSWORD=secret\nexport TRACARBON_LOG_LEVEL='debug'\n"
            'TRACARBON_KEY="a${DATABASE_PASSWORD}"\nTRACARBON_BARE\ntracarbon_x=1\n'
        )
        before = dict(os.environ)
        assert read_env_file(path) == {"TRACARBON_LOG_LEVEL": "debug", "TRACARBON_KEY": "a${DATABASE_PASSWORD}"}
        assert dict(os.environ) == before

    def test_no_file_is_no_variables(self, tmp_path: Path) -> None:
        assert read_env_file(tmp_path / ".env") == {}

    def test_a_file_that_cannot_be_read_is_a_problem(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_bytes(b"A=1\nTRACARBON_X=\xff")
        with pytest.raises(DocumentError, match=r"line 2  not UTF-8"):
            read_env_file(tmp_path / ".env")
        with pytest.raises(DocumentError, match="a folder"):
            read_env_file(tmp_path)

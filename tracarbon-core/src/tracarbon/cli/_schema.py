"""`tracarbon schema`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from tracarbon._schema import pipeline_schema
from tracarbon.cli import EXIT_OK
from tracarbon.exceptions import TracarbonException


def main(options: argparse.Namespace) -> int:
    """Print the schema, or write it to a file; standard error says which plugins are not described in it."""
    with redirect_stdout(sys.stderr):  # what plugins print when they are imported is no part of the schema
        schema, remarks = pipeline_schema()
    for remark in remarks:
        print(f"tracarbon: {remark}", file=sys.stderr)
    text = json.dumps(schema, indent=2) + "\n"
    path: Path = options.output
    if str(path) == "-":
        print(text, end="")
        return EXIT_OK
    try:
        _write(path, text)
    except OSError as error:
        raise TracarbonException(f"{path} cannot be written: {error.strerror}") from None
    print(f"wrote {path}")
    return EXIT_OK


def _write(path: Path, text: str) -> None:
    """Write a file whole, in place of the old one: an editor that looks meanwhile sees either."""
    if path.exists() and not path.is_file():
        path.write_text(text, "utf-8")
        return
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_text(text, "utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)

"""The command `tracarbon`.

Parsing the arguments imports nothing but argparse; each subcommand imports what it needs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tracarbon import __version__
from tracarbon._forwarding import forward

if TYPE_CHECKING:
    from tracarbon.cli._from_code import add_containers_generator as add_containers_generator
    from tracarbon.cli._from_code import get_exporter as get_exporter
    from tracarbon.cli._from_code import run as run
    from tracarbon.cli._from_code import run_metrics as run_metrics
    from tracarbon.cli._list_exporters import list_exporters as list_exporters

__all__ = ["add_containers_generator", "get_exporter", "list_exporters", "main", "run", "run_metrics"]

__getattr__ = forward(
    __name__,
    {
        "add_containers_generator": "tracarbon.cli._from_code",
        "get_exporter": "tracarbon.cli._from_code",
        "list_exporters": "tracarbon.cli._list_exporters",
        "run": "tracarbon.cli._from_code",
        "run_metrics": "tracarbon.cli._from_code",
    },
)

EXIT_OK = 0
EXIT_NOTHING_MEASURED = 1
EXIT_USAGE = 2

_EPILOG = """\
Without a file, the best sensor that works here is used, the location is worked out without leaving the machine, and
energy and carbon go to standard output. The command line wins over TRACARBON_* variables (and .env), these over the
file. Exit status: 0 fine, 1 every sensor had failed at the end, 2 nothing was started.
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and leave with its exit status."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    if options.command is None:
        _parser().print_help()
        sys.exit(EXIT_USAGE)
    try:
        status: int = import_module(f"tracarbon.cli._{options.command.replace('-', '_')}").main(options)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a failure can still be told in one line
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        _silence_standard_output()
        sys.exit(EXIT_OK)
    except OSError as error:
        print(f"tracarbon: {error.strerror or error}", file=sys.stderr)
        _silence_standard_output()
        sys.exit(EXIT_NOTHING_MEASURED)
    except Exception as error:
        from tracarbon.exceptions import ConfigurationError, TracarbonException

        if not isinstance(error, TracarbonException):
            raise
        print(error if isinstance(error, ConfigurationError) else f"tracarbon: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    _leave(status)


def _leave(status: int) -> NoReturn:
    """Leave; where the import or the probe of a plugin hangs, without the interpreter's farewell to its threads."""
    import os
    import threading

    if any(thread.name.startswith("tracarbon-attempt") for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _silence_standard_output() -> None:
    """Keep the interpreter from complaining, at its exit, of a reader that is gone."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tracarbon",
        description="Measure the energy this machine uses and the carbon emitted for it, and export both.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tracarbon {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_run(commands)
    check = commands.add_parser("check", help="show the resolved pipeline, or every problem")
    _add_file(check)
    _add_plugins(commands)
    commands.add_parser("list-exporters", help="list the installed exporters")
    doctor = commands.add_parser("doctor", help="try every sensor and location: what works here, and what to do")
    _add_host_root(doctor)
    init = commands.add_parser("init", help="write a commented pipeline.toml for what is found here")
    init.add_argument(
        "-o", "--output", type=Path, default=Path("pipeline.toml"), metavar="FILE", help="default: pipeline.toml"
    )
    _add_host_root(init)
    schema = commands.add_parser("schema", help="print the JSON Schema of a pipeline.toml, for editors")
    schema.add_argument(
        "-o", "--output", type=Path, default=Path("-"), metavar="FILE", help="default: -, standard output"
    )
    return parser


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = commands.add_parser(
        "run",
        help="measure and export until stopped",
        description="Measure and export until Ctrl-C or SIGTERM; then the report goes to standard error.",
    )
    _add_file(run)
    run.add_argument("--interval", metavar="TIME", help="time between two windows, such as 15s or 1m")
    run.add_argument("--duration", metavar="TIME", help="stop after this time")
    run.add_argument("--once", action="store_true", help="measure one window (1s, or --interval), print it and stop")
    run.add_argument(
        "--exporter-name",
        action="append",
        default=[],
        metavar="NAME",
        help="export to this exporter, in place of the file's; may be given several times",
    )
    run.add_argument(
        "--country-code-alpha-iso-2", "--country", dest="country", metavar="CODE", help="country, such as fr, or world"
    )
    run.add_argument(
        "--containers",
        action="store_true",
        help="energy and carbon of Kubernetes containers as well (with tracarbon-k8s)",
    )
    run.add_argument(
        "--log-level", metavar="LEVEL", help="DEBUG, INFO, WARNING, ERROR or CRITICAL; the log is standard error"
    )


def _add_plugins(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plugins = commands.add_parser(
        "plugins",
        help="list the installed plugins, show the options of one, or begin a new one",
        usage="tracarbon plugins [NAME]\n       tracarbon plugins new KIND NAME [-o FOLDER]",
        description="List the installed plugins, or show the options of one. "
        "With `new`, write a distribution for a new plugin, with tests that pass, to go on from.",
        epilog="KIND is sensor, location, generator, exporter or hook.",
    )
    plugins.add_argument(
        "words", nargs="*", metavar="NAME", help="a plugin, such as json, rapl or, for a new one, acme-thermometer"
    )
    plugins.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="of the new plugin; default: tracarbon-KIND-NAME"
    )


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the pipeline, a TOML file")


def _add_host_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host-root", type=Path, metavar="DIR", help="where the host's /sys and /proc are; default: /")

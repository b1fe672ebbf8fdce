"""`tracarbon init`."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

from tracarbon._discovery import EXPORTER, LOCATION, installed_plugins
from tracarbon._probing import Probed, probe_plugins, working_location, working_sensors
from tracarbon.cli import EXIT_OK
from tracarbon.cli._loading import host_root_of
from tracarbon.exceptions import TracarbonException

_HEAD = """\
# A pipeline of tracarbon. Check it with `tracarbon check -c {file}`, run it with `tracarbon run -c {file}`.
# `tracarbon plugins NAME` shows the options of a plugin.

interval = "60s"                 # a window is closed, and exported, this often
metric_prefix_name = "tracarbon"

# [tags]                         # on every metric
# cluster = "prod-1"

"""

_COUNTRY = """\
[location]                       # {reason}
plugin = "country"
# country = "FR"                 # ISO 3166 code; without it, the system's time zone says

"""
_OTHER_LOCATION = """\
[location]                       # {reason}
plugin = "{name}"

"""

_GENERATORS = """\
[generators.energy]              # watts of host, cpu, memory, gpu
[generators.carbon]              # grams of CO2e
"""


def main(options: argparse.Namespace) -> int:
    """Write a commented file for what is found; an existing one is never touched."""
    path: Path = options.output
    with redirect_stdout(sys.stderr):  # what plugins print when they are imported is no part of the file
        text = _file_text(host_root_of(options), path)
    if str(path) == "-":
        print(text, end="")
        return EXIT_OK
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise TracarbonException(f"{path} exists and is left alone; -o FILE writes to another one") from None
    except OSError as error:
        raise TracarbonException(f"{path} cannot be written: {error.strerror}") from None
    print(f"wrote {path}; run it with: tracarbon run -c {path}")
    return EXIT_OK


def _file_text(host_root: Path, path: Path) -> str:
    found, probed = working_sensors(host_root)
    used = {item.plugin.name for item in found}
    sensors = "".join(f"[sensors.{item.plugin.name}]{_comment(item)}\n" for item in found)
    others = "".join(
        f"# [sensors.{item.plugin.name}]{_comment(item)}\n" for item in probed if item.plugin.name not in used
    )
    names = [plugin.name for plugin in installed_plugins(EXPORTER)]
    exporters = "".join(f"{'' if name == 'stdout' else '# '}[exporters.{name}]\n" for name in names)
    root = f'host_root = "{host_root}"\n\n' if host_root != Path("/") else ""
    return f"{_HEAD.format(file=path)}{root}{_location(host_root)}{sensors}{others}\n{_GENERATORS}\n{exporters}"


def _location(host_root: Path) -> str:
    other, _ = working_location(host_root)
    if other is not None:
        return _OTHER_LOCATION.format(name=other.plugin.name, reason=other.probe.reason)
    country = next((item for item in probe_plugins(LOCATION, host_root) if item.plugin.name == "country"), None)
    return _COUNTRY.format(reason=country.probe.reason if country else "where the machine is")


def _comment(item: Probed) -> str:
    probe = item.probe
    quality = probe.fidelity.value if probe.works and probe.fidelity else "does not work here"
    return f"  # {quality}{': ' + probe.reason if probe.reason else ''}"

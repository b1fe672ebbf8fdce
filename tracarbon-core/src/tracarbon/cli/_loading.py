"""What several commands do: read the configuration as `run` would."""

from __future__ import annotations

import argparse
from pathlib import Path

from tracarbon._assembly import Plan, plan
from tracarbon._configuration import Overrides, load_configuration
from tracarbon._environment import read_environment, read_setting
from tracarbon.conf import logger_configuration


def host_root_of(options: argparse.Namespace) -> Path:
    """Return where the host's `/sys` and `/proc` are: by the command line, else by the environment."""
    return options.host_root or Path(read_setting("TRACARBON_HOST_ROOT") or "/")


def load_plan(file: Path | None, overrides: Overrides | None = None) -> Plan:
    """Read the configuration, set up the log and check everything against the installed plugins.

    Raises:
        ConfigurationError: with every problem at once.
    """
    logger_configuration("INFO")
    configuration = load_configuration(file, read_environment(), overrides)
    logger_configuration(configuration.log_level)
    return plan(configuration)

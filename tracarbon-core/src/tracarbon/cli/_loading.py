"""What several commands do: read the configuration as `run` would."""

from __future__ import annotations

from pathlib import Path

from tracarbon._assembly import Plan, plan
from tracarbon._configuration import Overrides, load_configuration
from tracarbon._environment import read_environment
from tracarbon.conf import logger_configuration


def load_plan(file: Path | None, overrides: Overrides | None = None) -> Plan:
    """Read the configuration, set up the log and check everything against the installed plugins.

    Raises:
        ConfigurationError: with every problem at once.
    """
    logger_configuration("INFO")
    configuration = load_configuration(file, read_environment(), overrides)
    logger_configuration(configuration.log_level)
    return plan(configuration)

"""Settings from `TRACARBON_*` variables and the `.env` file. Nothing is ever written to the environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from tracarbon._document import ENVIRONMENT_PREFIX, nearest, read_env_file

logger = logging.getLogger("tracarbon")

VARIABLES = {
    "TRACARBON_METRIC_PREFIX_NAME": "prefix of metric names",
    "TRACARBON_INTERVAL_IN_SECONDS": "seconds between two windows",
    "TRACARBON_LOG_LEVEL": "DEBUG, INFO, WARNING or ERROR",
    "TRACARBON_COUNTRY": "country, as an ISO 3166 code, or `world`",
    "TRACARBON_HOST_ROOT": "where the host's /sys and /proc are mounted, in a container",
    "TRACARBON_CO2SIGNAL_API_KEY": "key of a live carbon intensity service",
    "TRACARBON_CO2SIGNAL_URL": "address of a live carbon intensity service",
}

_OF_NO_USE_YET = {"TRACARBON_CO2SIGNAL_API_KEY", "TRACARBON_CO2SIGNAL_URL"}


def read_environment(env_file: Path | None = None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the settings by name: variables first, then the `.env` file (by default the one in this folder)."""
    path = env_file or Path(".env")
    from_file = read_env_file(path) if env_file is not None or path.is_file() else {}
    found = {**from_file, **{name: value for name, value in environ.items() if name.startswith(ENVIRONMENT_PREFIX)}}
    for name in found.keys() - VARIABLES.keys():
        # A Kubernetes service named tracarbon brings variables of its own: only what looks like a slip is worth a word.
        meant = nearest(name, VARIABLES)
        if meant is not None:
            logger.warning("unknown variable %s is ignored; did you mean %s?", name, meant)
    for name in sorted(found.keys() & _OF_NO_USE_YET):
        logger.warning("%s is of no use: no live carbon intensity service is installed", name)
    return {name: value for name, value in found.items() if name in VARIABLES and value != ""}

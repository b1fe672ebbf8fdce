"""Settings from `TRACARBON_*` variables and the `.env` file. Nothing is ever written to the environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from tracarbon._document import ENVIRONMENT_PREFIX, nearest, read_env_file
from tracarbon._text import Secret
from tracarbon.exceptions import TracarbonException

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

_SECRETS = {"TRACARBON_CO2SIGNAL_API_KEY"}


def read_environment(env_file: Path | None = None, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the settings by name: variables first, then the `.env` file (by default the one in this folder).

    Raises:
        TracarbonException: the file cannot be read.
    """
    found = _found(env_file, environ)
    for name in found.keys() - VARIABLES.keys():
        # A Kubernetes service named tracarbon brings variables of its own: only what looks like a slip is worth a word.
        meant = nearest(name, VARIABLES)
        if meant is not None:
            logger.warning("unknown variable %s is ignored; did you mean %s?", name, meant)
    known = {name: value for name, value in found.items() if name in VARIABLES and value != ""}
    return {name: Secret(value) if name in _SECRETS else value for name, value in known.items()}


def read_setting(name: str) -> str | None:
    """Return one setting, of which nothing has to be said; `None` where it is not set.

    Raises:
        TracarbonException: the `.env` file cannot be read.
    """
    return _found(None, os.environ).get(name) or None


def _found(env_file: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    if env_file is not None and not env_file.is_file():
        raise TracarbonException(f"there is no file {env_file} to read settings from")
    path = env_file or Path(".env")
    from_file = read_env_file(path) if env_file is not None or path.is_file() else {}
    return {**from_file, **{name: value for name, value in environ.items() if name.startswith(ENVIRONMENT_PREFIX)}}

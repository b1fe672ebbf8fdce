"""The documented configuration from code."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from tracarbon._configuration import LOG_LEVELS
from tracarbon._document import ENVIRONMENT_PREFIX, Problem, parse_seconds
from tracarbon._environment import read_environment
from tracarbon.exceptions import ConfigurationError

logger = logging.getLogger("tracarbon")

_DOCUMENTED_URL = "https://api.co2signal.com/v1/latest?countryCode="


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    metric_prefix_name: str = "tracarbon"
    interval_in_seconds: float = 60
    log_level: str = "INFO"
    co2signal_api_key: SecretStr = SecretStr("")
    co2signal_url: str = Field(_DOCUMENTED_URL, validate_default=False)


class TracarbonConfiguration:
    """The configuration of tracarbon: arguments, over `TRACARBON_*` variables, over a `.env` file, over the defaults.

    Args:
        metric_prefix_name: prefix of metric names.
        interval_in_seconds: seconds between two windows.
        log_level: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`, in any case.
        co2signal_api_key: key of a live carbon intensity service; never shown.
        co2signal_url: its address.
        env_file_path: the `.env` file; by default the one in the current folder.

    Raises:
        ConfigurationError: a setting makes no sense; names it, and where it is from.
    """

    def __init__(  # noqa: PLR0917 - documented so
        self,
        metric_prefix_name: str | None = None,
        interval_in_seconds: float | None = None,
        log_level: str | None = None,
        co2signal_api_key: str | None = None,
        co2signal_url: str | None = None,
        env_file_path: str | None = None,
    ) -> None:
        arguments = {
            "metric_prefix_name": metric_prefix_name,
            "interval_in_seconds": interval_in_seconds,
            "log_level": log_level,
            "co2signal_api_key": co2signal_api_key,
            "co2signal_url": co2signal_url,
        }
        given = {name: value for name, value in arguments.items() if value is not None}
        environment = read_environment(Path(env_file_path) if env_file_path else None)
        found = {
            name: environment[ENVIRONMENT_PREFIX + name.upper()]
            for name in arguments
            if ENVIRONMENT_PREFIX + name.upper() in environment
        }
        if co2signal_api_key:
            logger.warning("co2signal_api_key is of no use: no live carbon intensity service is installed")
        settings = _checked({**found, **given}, given)
        self.environment = environment
        self.env_file_path = env_file_path
        self.metric_prefix_name = settings.metric_prefix_name
        self.interval_in_seconds = settings.interval_in_seconds
        self.log_level = settings.log_level.upper()
        self.co2signal_api_key = settings.co2signal_api_key.get_secret_value()
        self.co2signal_url = settings.co2signal_url

    def __repr__(self) -> str:
        shown = f"metric_prefix_name={self.metric_prefix_name!r}, interval_in_seconds={self.interval_in_seconds:g}"
        return f"TracarbonConfiguration({shown}, log_level={self.log_level!r})"


def _checked(values: dict[str, Any], arguments: dict[str, Any]) -> _Settings:
    def place(name: str) -> str:
        return name if name in arguments else ENVIRONMENT_PREFIX + name.upper()

    try:
        settings = _Settings(**values)
        parse_seconds(settings.interval_in_seconds)
    except ValidationError as error:
        problems = [Problem(None, place(str(item["loc"][0])), item["msg"], "") for item in error.errors()]
        raise ConfigurationError("settings", problems) from None
    except ValueError as error:
        raise ConfigurationError("settings", [Problem(None, place("interval_in_seconds"), str(error), "")]) from None
    if settings.log_level.upper() not in LOG_LEVELS:
        message = f"no log level {settings.log_level!r}; there are {', '.join(LOG_LEVELS)}"
        raise ConfigurationError("settings", [Problem(None, place("log_level"), message, "")])
    return settings


def logger_configuration(level: str) -> None:
    """Send the log of tracarbon to standard error, from `level` on."""
    logger = logging.getLogger("tracarbon")
    for handler in [*logger.handlers]:
        if getattr(handler, "is_tracarbon", False):
            logger.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.is_tracarbon = True  # type: ignore[attr-defined]
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False

"""The documented configuration from code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tracarbon._configuration import parse_log_level, parse_prefix
from tracarbon._document import ENVIRONMENT_PREFIX, Problem, parse_seconds
from tracarbon._environment import read_environment
from tracarbon._text import Secret
from tracarbon.exceptions import ConfigurationError
from tracarbon.locations._settings import checked_key, checked_prefix


class _DefaultText(str):
    """A default, told apart from the same text that a caller gives."""

    __slots__ = ()


class _DefaultNumber(int):
    """A default, told apart from the same number that a caller gives."""


_PREFIX = _DefaultText("tracarbon")
_INTERVAL = _DefaultNumber(60)
_LOG_LEVEL = _DefaultText("INFO")
_API_KEY = _DefaultText("")
_URL = _DefaultText("https://api.co2signal.com/v1/latest?countryCode=")


class TracarbonConfiguration:
    """The configuration of tracarbon: arguments, over `TRACARBON_*` variables, over a `.env` file, over the defaults.

    Args:
        metric_prefix_name: prefix of metric names.
        interval_in_seconds: seconds between two windows.
        log_level: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`, in any case.
        co2signal_api_key: key of a live carbon intensity service; never shown.
        co2signal_url: its address. The documented service has closed: its address stands for Electricity Maps, which
            has taken its place.
        env_file_path: the `.env` file; by default the one in the current folder.

    Raises:
        ConfigurationError: a setting makes no sense; names it, and where it is from.
        TracarbonException: there is no such `.env` file.
    """

    def __init__(  # noqa: PLR0917 - documented so
        self,
        metric_prefix_name: str = _PREFIX,
        interval_in_seconds: float = _INTERVAL,
        log_level: str = _LOG_LEVEL,
        co2signal_api_key: str = _API_KEY,
        co2signal_url: str = _URL,
        env_file_path: str | None = None,
    ) -> None:
        arguments = {
            "metric_prefix_name": metric_prefix_name,
            "interval_in_seconds": interval_in_seconds,
            "log_level": log_level,
            "co2signal_api_key": co2signal_api_key,
            "co2signal_url": co2signal_url,
        }
        given = {
            name: value
            for name, value in arguments.items()
            if value is not None and not isinstance(value, _DefaultText | _DefaultNumber)
        }
        environment = read_environment(Path(env_file_path) if env_file_path else None)
        settings = _settled(given, environment)
        self.environment = environment
        self.env_file_path = env_file_path
        self.metric_prefix_name: str = settings["metric_prefix_name"]
        self.interval_in_seconds: float = settings["interval_in_seconds"]
        self.log_level: str = settings["log_level"]
        self.co2signal_api_key: str = Secret(settings["co2signal_api_key"])
        self.co2signal_url: str = settings["co2signal_url"]

    def __repr__(self) -> str:
        shown = f"metric_prefix_name={self.metric_prefix_name!r}, interval_in_seconds={self.interval_in_seconds:g}"
        return f"TracarbonConfiguration({shown}, log_level={self.log_level!r})"


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if not isinstance(value, str):
        raise ValueError(f"has to be a text, not {type(value).__name__}")
    return str(value)  # no default any more


def _address(text: str) -> str:
    return checked_prefix(text) if text else text


_SETTINGS: dict[str, tuple[object, Callable[[Any], Any]]] = {
    "metric_prefix_name": (_PREFIX, lambda value: parse_prefix(_text(value))),
    "interval_in_seconds": (_INTERVAL, parse_seconds),
    "log_level": (_LOG_LEVEL, lambda value: parse_log_level(_text(value))),
    "co2signal_api_key": (_API_KEY, lambda value: checked_key(_text(value))),
    "co2signal_url": (_URL, lambda value: _address(_text(value))),
}


def _settled(given: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """Return every setting, checked as in a `pipeline.toml`.

    Raises:
        ConfigurationError: some make no sense; names each.
    """
    settings: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, (default, parse) in _SETTINGS.items():
        variable = ENVIRONMENT_PREFIX + name.upper()
        place = variable if name not in given and variable in environment else name
        try:
            settings[name] = parse(given.get(name, environment.get(variable, default)))
        except ValueError as error:
            problems.append(Problem(None, place, str(error), ""))
    if problems:
        raise ConfigurationError("settings", problems)
    return settings


def logger_configuration(level: str) -> None:
    """Send the log of tracarbon to standard error, from `level` on.

    Raises:
        ConfigurationError: there is no such level.
    """
    try:
        known_level = parse_log_level(_text(level))
    except ValueError as error:
        raise ConfigurationError("settings", [Problem(None, "level", str(error), "")]) from None
    logger = logging.getLogger("tracarbon")
    for handler in [*logger.handlers]:
        if getattr(handler, "is_tracarbon", False):
            logger.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.is_tracarbon = True  # type: ignore[attr-defined]
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(known_level)
    logger.propagate = False

"""Settings from variables, `.env` and arguments."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from tracarbon._environment import read_environment
from tracarbon.conf import TracarbonConfiguration, logger_configuration
from tracarbon.exceptions import ConfigurationError


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TRACARBON_")]:
        monkeypatch.delenv(name)


def test_variables_win_over_the_env_file_and_nothing_is_written_back(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TRACARBON_LOG_LEVEL=debug\nTRACARBON_COUNTRY=FR\nDATABASE_PASSWORD=secret\n")
    found = read_environment(environ={"TRACARBON_COUNTRY": "DE", "HOME": "/root"})
    assert found == {"TRACARBON_LOG_LEVEL": "debug", "TRACARBON_COUNTRY": "DE"}
    assert "DATABASE_PASSWORD" not in os.environ
    assert "TRACARBON_LOG_LEVEL" not in os.environ


def test_the_env_file_of_a_parent_folder_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("TRACARBON_COUNTRY=FR\n")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert read_environment(environ={}) == {}


def test_a_slip_is_said_and_a_kubernetes_variable_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tracarbon"):
        read_environment(environ={"TRACARBON_INTERVALL_IN_SECONDS": "5", "TRACARBON_PORT_8081_TCP_ADDR": "10.0.0.1"})
    assert [record.getMessage() for record in caplog.records] == [
        "unknown variable TRACARBON_INTERVALL_IN_SECONDS is ignored; did you mean TRACARBON_INTERVAL_IN_SECONDS?"
    ]


def test_configuration_takes_arguments_then_variables_then_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACARBON_INTERVAL_IN_SECONDS", "30")
    monkeypatch.setenv("TRACARBON_METRIC_PREFIX_NAME", "acme")
    configuration = TracarbonConfiguration(interval_in_seconds=5)
    assert configuration.interval_in_seconds == 5
    assert configuration.metric_prefix_name == "acme"
    assert configuration.log_level == "INFO"


def test_the_env_file_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("TRACARBON_LOG_LEVEL=warning\n")
    assert TracarbonConfiguration(env_file_path=str(tmp_path / "settings")).log_level == "WARNING"


def test_a_key_is_never_shown() -> None:
    configuration = TracarbonConfiguration(co2signal_api_key="SECRET")
    assert configuration.co2signal_api_key == "SECRET"
    assert "SECRET" not in repr(configuration) + str(configuration)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TRACARBON_INTERVAL_IN_SECONDS", "0", "TRACARBON_INTERVAL_IN_SECONDS"),
        ("TRACARBON_INTERVAL_IN_SECONDS", "-5", "TRACARBON_INTERVAL_IN_SECONDS"),
        ("TRACARBON_INTERVAL_IN_SECONDS", "abc", "TRACARBON_INTERVAL_IN_SECONDS"),
        ("TRACARBON_LOG_LEVEL", "LOUD", "no log level 'LOUD'; there are DEBUG, INFO"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(
    variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        TracarbonConfiguration()
    assert said in str(caught.value)
    assert str(caught.value).startswith("settings: 1 problem\n")


def test_the_log_goes_to_standard_error_once(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("tracarbon")
    before = (logger.level, logger.propagate, list(logger.handlers))
    try:
        logger_configuration("info")
        logger_configuration("INFO")
        logger.info("once")
        captured = capsys.readouterr()
    finally:
        logger.level, logger.propagate, logger.handlers = before
    assert captured.out == ""
    assert captured.err.count("once") == 1

"""Settings from variables, `.env` and arguments."""

from __future__ import annotations

import inspect
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from tracarbon._environment import read_environment
from tracarbon._text import Secret
from tracarbon.builder import TracarbonBuilder
from tracarbon.conf import TracarbonConfiguration, logger_configuration
from tracarbon.exceptions import ConfigurationError, TracarbonException
from tracarbon.locations import CarbonIntensitySource, Country


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


def test_a_slip_is_said_once_in_a_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TRACARBON_COUNTRI", "fr")
    with caplog.at_level(logging.WARNING, "tracarbon"):
        TracarbonConfiguration()
        Country.get_location()
    assert sum("TRACARBON_COUNTRI" in message for message in caplog.messages) == 1


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


def test_an_env_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(TracarbonException, match=r"there is no file .*elsewhere"):
        TracarbonConfiguration(env_file_path=str(tmp_path / "elsewhere"))


def test_the_defaults_are_as_documented_and_in_the_signature() -> None:
    configuration = TracarbonConfiguration()
    for name, parameter in inspect.signature(TracarbonConfiguration).parameters.items():
        assert getattr(configuration, name) == parameter.default
        if name != "env_file_path":
            assert type(getattr(configuration, name)) in (str, float, Secret)


@pytest.mark.parametrize(
    ("name", "variable", "default"),
    [
        ("metric_prefix_name", "acme", "tracarbon"),
        ("interval_in_seconds", "5", 60),
        ("log_level", "DEBUG", "INFO"),
        ("co2signal_api_key", "from-the-environment", ""),
        (
            "co2signal_url",
            "http://localhost/?zone=",
            "https://api.co2signal.com/v1/latest?countryCode=",
        ),
    ],
)
def test_what_is_given_wins_even_where_it_is_the_default(
    name: str, variable: str, default: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L47: the environment won over arguments."""
    monkeypatch.setenv(f"TRACARBON_{name.upper()}", variable)
    assert str(getattr(TracarbonConfiguration(), name)).removesuffix(".0") == variable
    arguments: dict[str, Any] = {name: default}
    assert getattr(TracarbonConfiguration(**arguments), name) == default
    handed_on: dict[str, Any] = {name: getattr(TracarbonConfiguration(**arguments), name)}
    assert getattr(TracarbonConfiguration(**handed_on), name) == default
    assert str(getattr(TracarbonConfiguration(**{name: None}), name)).removesuffix(".0") == variable


def test_a_key_may_end_as_files_do() -> None:
    assert TracarbonConfiguration(co2signal_api_key=" KEY\n").co2signal_api_key == "KEY"


def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TRACARBON_CO2SIGNAL_API_KEY", "SECRET")
    for configuration in (TracarbonConfiguration(), TracarbonConfiguration(co2signal_api_key="SECRET")):
        assert configuration.co2signal_api_key == "SECRET"
        assert "SECRET" not in repr(configuration) + str(configuration) + repr(vars(configuration)) + caplog.text
        tracarbon = TracarbonBuilder(configuration=configuration).build()
        assert isinstance(tracarbon.location, Country)
        assert tracarbon.location.co2signal_api_key == "SECRET"
        assert tracarbon.location.co2g_kwh_source is CarbonIntensitySource.CO2SignalAPI
        assert "SECRET" not in repr(tracarbon.location) + repr(vars(tracarbon.location))


def test_the_logger_is_configured_once_and_no_level_is_made_up(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("tracarbon")
    try:
        logger_configuration("debug")
        logger_configuration("warning")
        logger.info("not this")
        logger.warning("but this")
        assert capsys.readouterr().err.count("but this") == 1
        with pytest.raises(ConfigurationError, match="no log level 'LOUD'; there are DEBUG, INFO"):
            logger_configuration("LOUD")
    finally:
        for handler in [*logger.handlers]:
            logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TRACARBON_INTERVAL_IN_SECONDS", "0", "TRACARBON_INTERVAL_IN_SECONDS"),
        ("TRACARBON_INTERVAL_IN_SECONDS", "-5", "TRACARBON_INTERVAL_IN_SECONDS"),
        ("TRACARBON_INTERVAL_IN_SECONDS", "abc", "TRACARBON_INTERVAL_IN_SECONDS"),
        ("TRACARBON_LOG_LEVEL", "LOUD", "no log level 'LOUD'; there are DEBUG, INFO"),
        (
            "TRACARBON_METRIC_PREFIX_NAME",
            "a b",
            "TRACARBON_METRIC_PREFIX_NAME   has to be printable and without blanks",
        ),
        (
            "TRACARBON_CO2SIGNAL_URL",
            "notaurl",
            "TRACARBON_CO2SIGNAL_URL   this is no address such as https://example.org/intensity",
        ),
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"metric_prefix_name": "a b\n"}, "metric_prefix_name   has to be printable and without blanks, not 'a b\\n'"),
        ({"metric_prefix_name": 5}, "metric_prefix_name   has to be a text, not int"),
        ({"co2signal_url": "notaurl"}, "co2signal_url   this is no address such as https://example.org/intensity"),
        (
            {"co2signal_url": "http://host:99999/"},
            "co2signal_url   this is no address such as https://example.org/intensity",
        ),
        ({"co2signal_api_key": 5}, "co2signal_api_key   has to be a text, not int"),
        ({"co2signal_api_key": "s ecret"}, "co2signal_api_key   the key has blanks or characters that no key has"),
        ({"co2signal_api_key": "sécret"}, "co2signal_api_key   the key has blanks or characters that no key has"),
        ({"interval_in_seconds": True}, "interval_in_seconds   a duration is text such as"),
        ({"log_level": 10}, "log_level   has to be a text, not int"),
    ],
)
def test_an_argument_that_makes_no_sense_is_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TracarbonConfiguration(**arguments)
    assert said in str(caught.value)


def test_all_that_makes_no_sense_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACARBON_LOG_LEVEL", "LOUD")
    with pytest.raises(ConfigurationError) as caught:
        TracarbonConfiguration(interval_in_seconds=-5)
    assert [problem.place for problem in caught.value.problems] == ["interval_in_seconds", "TRACARBON_LOG_LEVEL"]


@pytest.mark.parametrize("level", [None, 10])
def test_a_log_level_of_another_type_is_refused(level: Any) -> None:
    with pytest.raises(ConfigurationError, match="level   has to be a text, not"):
        logger_configuration(level)


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

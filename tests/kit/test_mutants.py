"""The kit bites: of all standard tests, exactly the one that a flawed plugin is made for fails it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tracarbon import _discovery
from tracarbon.testing import (
    ExporterContract,
    GeneratorContract,
    LocationContract,
    PluginContract,
    SensorContract,
    _contract,
    _watching,
    deviates,
)

from tests.kit import plugins
from tests.pipelines.support import make_distribution

GROUPS = {
    "Sensor": "tracarbon.sensors",
    "Location": "tracarbon.locations",
    "Generator": "tracarbon.generators",
    "Exporter": "tracarbon.exporters",
}
README = "`path` `token` `interval` `passphrase` `credential`"


class _Given:
    """What the author of the plugins gives to the kit."""

    distribution = "acme-kit"

    def options(self, folder: Path) -> Mapping[str, Any]:
        (folder / "watts").write_text("40.0")
        return {"path": str(folder / "watts"), "token": "SECRET-TOKEN"}


class GivenSensor(_Given, SensorContract):
    plugin = "goodsensor"


class GivenLocation(_Given, LocationContract):
    plugin = "goodlocation"


class GivenGenerator(_Given, GeneratorContract):
    plugin = "goodgenerator"


class GivenExporter(_Given, ExporterContract):
    plugin = "goodexporter"

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"path": str(folder / "lines"), "token": "SECRET-TOKEN"}

    def arrived(self, folder: Path) -> Iterable[tuple[str, float]]:
        path = folder / "lines"
        for line in path.read_text().splitlines() if path.exists() else ():
            name, value = json.loads(line)
            yield name, value

    @contextmanager
    def failing(self, fault: str, folder: Path) -> Iterator[None]:
        path = folder / "lines.fault"
        path.write_text(fault)
        yield
        path.unlink()


CONTRACTS: dict[str, type[PluginContract]] = {
    "Sensor": GivenSensor,
    "Location": GivenLocation,
    "Generator": GivenGenerator,
    "Exporter": GivenExporter,
}


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the plugins under entry points of their names, in lower case."""
    folder = tmp_path_factory.mktemp("kit")
    entry_points = {
        group: {
            name.lower(): f"tests.kit.plugins:{name}"
            for name, cls in vars(plugins).items()
            if isinstance(cls, type) and cls.__module__ == plugins.__name__ and issubclass(cls, contract)
        }
        for group, contract in zip(
            GROUPS.values(), (plugins.Sensor, plugins.Location, plugins.MetricGenerator, plugins.Exporter), strict=True
        )
    }
    entry_points["tracarbon.sensors"]["shared"] = "tests.kit.plugins:GoodSensor"
    make_distribution(folder, "acme-kit", entry_points=entry_points, modules={}, description=README)
    make_distribution(
        folder,
        "acme-other",
        entry_points={
            "tracarbon.sensors": {
                "misplaced": "tests.kit.plugins:GoodSensor",
                "shared": "tests.kit.plugins:GoodSensor",
            }
        },
        modules={},
    )
    sys.path.insert(0, str(folder))
    forget()
    yield
    sys.path.remove(str(folder))
    forget()


@pytest.fixture(autouse=True)
def _nothing_ends_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these plugins leave behind they leave for good, and nobody needs to wait for it."""
    monkeypatch.setattr(_watching, "_SETTLE_SECONDS", 0.2)


def forget() -> None:
    for cached in (_discovery.installed_plugins, _discovery._entry_points, _discovery._name_and_version):
        cached.cache_clear()


def failures(contract: type[PluginContract], plugin: str) -> dict[str, str]:
    """Run every standard test against a plugin; return those that fail, with what they say."""
    of_plugin = type(f"Given{plugin}", (contract,), {"plugin": plugin})
    found = {}
    for name in sorted(name for name in dir(contract) if name.startswith("test_")):
        try:
            getattr(of_plugin(), name)()
        except BaseException as error:
            found[name] = "; ".join(str(it) for it in getattr(error, "exceptions", [error]))
    return found


@pytest.mark.parametrize("kind", CONTRACTS)
def test_a_good_plugin_passes(kind: str) -> None:
    assert failures(CONTRACTS[kind], f"good{kind.lower()}") == {}


@pytest.fixture
def _no_process_is_left() -> Iterator[None]:
    yield
    while plugins.LeavingAProcess.kept:
        with plugins.LeavingAProcess.kept.pop() as process:
            process.kill()


@pytest.mark.usefixtures("_no_process_is_left")
@pytest.mark.parametrize("plugin", plugins.FLAWS)
def test_each_flaw_is_caught_by_its_own_test_alone(plugin: type, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, value in plugins.LIMITS[plugin].items():
        monkeypatch.setattr(_contract, limit, value)
    kind, _, name = plugins.FLAWS[plugin].rpartition(".")
    found = failures(CONTRACTS[kind or "Sensor"], plugin.__name__.lower())
    assert list(found) == [name], found
    assert found[name], "the failure says nothing"


def test_a_plugin_of_another_distribution_is_caught() -> None:
    found = failures(GivenSensor, "misplaced")
    assert list(found) == ["test_the_entry_point_is_the_distributions"]


def test_of_two_of_one_name_it_is_the_distributions() -> None:
    class Shared(GivenSensor):
        plugin = "shared"

    Shared().test_the_entry_point_is_the_distributions()


def test_each_standard_test_has_its_flaw() -> None:
    common = {name for name in dir(PluginContract) if name.startswith("test_")}
    wanted = common - {"test_the_entry_point_is_the_distributions"}
    for kind, contract in CONTRACTS.items():
        wanted |= {f"{kind}.{name}" for name in dir(contract) if name.startswith("test_") and name not in common}
    assert wanted == set(plugins.FLAWS.values())


class TestOverriding:
    def test_without_a_reason_it_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"Hasty\.test_figures_are_sound overrides a standard test; say why"):

            class Hasty(SensorContract):
                def test_figures_are_sound(self) -> None:
                    pass

    def test_a_mixin_is_no_way_around(self) -> None:
        class Mixin:
            test_no_secret_is_shown = None

        with pytest.raises(TypeError, match="test_no_secret_is_shown"):

            class Sly(Mixin, SensorContract):  # type: ignore[misc]
                pass

    def test_with_a_reason_it_is_taken(self) -> None:
        class Honest(SensorContract):
            @deviates("the device has no clock")
            def test_windows_are_the_time_since_the_previous_reading(self) -> None:
                pass

            def test_of_its_own(self) -> None:
                pass

        assert Honest.test_of_its_own is not None

    def test_a_slip_in_the_name_is_no_deviation(self) -> None:
        with pytest.raises(TypeError, match=r"Slip\.test_figures_are_soud deviates from no standard test"):

            class Slip(SensorContract):
                @deviates("there are none")
                def test_figures_are_soud(self) -> None:
                    pass

    def test_an_empty_reason_is_none(self) -> None:
        with pytest.raises(ValueError, match="needs the reason"):
            deviates(lambda: None)  # type: ignore[arg-type]
        for reason in ("  ", 5, None):
            with pytest.raises(ValueError, match="needs the reason"):
                deviates(reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(("given", "missing"), [("plugin", "distribution"), ("distribution", "plugin")])
def test_who_does_not_say_what_to_test_is_told_so(given: str, missing: str) -> None:
    silent = type("Silent", (SensorContract,), {given: "goodsensor"})
    for name in [name for name in dir(SensorContract) if name.startswith("test_")]:
        with pytest.raises((AssertionError, BaseExceptionGroup)) as caught:
            getattr(silent(), name)()
        assert f'Silent does not say what to test: {missing} = "..."' in str(caught.value)

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError
from tracarbon.exporters.exporter import Batch, Exporter, Metric, MetricGenerator
from tracarbon.hardwares.energy import EnergyUsage
from tracarbon.hardwares.sensors import Sensor
from tracarbon.locations.location import Location
from tracarbon.plugin import Plugin, PluginContext, PluginOptions, Probe


class Meter(Sensor):
    port: int
    host: str = "localhost"
    history: list[float] = []  # noqa: RUF012 - each instance gets a copy
    cache: dict[str, float] = {}  # noqa: RUF012
    seen: set[str] = {"first"}  # noqa: RUF012
    tuned: dict[str, int] = field(default_factory=lambda: {"a": 1})
    kind: ClassVar[str] = "meter"

    async def get_energy_usage(self) -> EnergyUsage:
        return EnergyUsage()


class Special(Meter):
    extra: float = 0.5


class Handmade(Meter):
    label: str = "none"

    def __init__(self, address: str) -> None:
        self.address = address


class OfHandmade(Handmade):
    more: int = 1


def test_annotated_fields_become_keyword_only_arguments() -> None:
    meter = Special(port=1, extra=2.0)
    assert (meter.port, meter.host, meter.extra) == (1, "localhost", 2.0)
    with pytest.raises(TypeError):
        Special(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="port"):
        Special()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="prot"):
        Special(prot=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="kind"):
        Special(port=1, kind="x")  # type: ignore[call-arg]


@pytest.mark.parametrize("make", [lambda: Meter(port=1), lambda: Special(port=1), lambda: Handmade("x")])
def test_mutable_defaults_are_not_shared(make: Any) -> None:
    """T16: two instances shared one report. An own `__init__` that sets none of the fields makes no difference."""
    one, other = make(), make()
    one.history.append(1.0)
    one.cache["a"] = 1.0
    one.seen.add("second")
    assert (other.history, other.cache, other.seen) == ([], {}, {"first"})
    assert (one.history, one.cache, one.seen) == ([1.0], {"a": 1.0}, {"first", "second"})
    assert make().seen == {"first"}


def test_own_init_is_kept_and_inherited() -> None:
    kinds: list[Any] = [Handmade, OfHandmade]
    for kind in kinds:
        made = kind("here")
        assert (made.address, made.host, made.label) == ("here", "localhost", "none")
        with pytest.raises(TypeError):
            kind(port=1)
    assert kinds[1]("here").more == 1


def test_own_init_may_call_the_one_made_of_the_fields() -> None:
    class Both(Meter):
        def __init__(self, address: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.address = address

    both = Both("here", port=3, history=[1.0])
    assert (both.address, both.port, both.history, both.cache) == ("here", 3, [1.0], {})


def test_own_init_may_hand_its_own_fields_on_as_those_of_the_old_plugins_do() -> None:
    class Old(Meter):
        label: str
        limits: list[float] = [1.0]  # noqa: RUF012 - each instance gets a copy
        made: dict[str, int] = field(default_factory=dict)

        def __init__(self, port: int | None = None, **data: Any) -> None:
            data.setdefault("label", "by default")
            super().__init__(port=port or 1, **data)

    one, other = Old(), Old(port=2, label="given", host="there", limits=[])
    assert (one.port, one.host, one.label, one.limits, one.made) == (1, "localhost", "by default", [1.0], {})
    assert (other.port, other.host, other.label, other.limits) == (2, "there", "given", [])
    one.made["a"] = 1
    assert other.made == {}
    with pytest.raises(TypeError, match="lable"):
        Old(lable="slip")


def test_fields_described_by_pydantic_have_their_defaults() -> None:
    class Described(Meter):
        port: int = Field(default=3)
        names: list[str] = Field(default_factory=lambda: ["a"])
        needed: str = Field(description="without a default")

    one, other = Described(needed="x"), Described(needed="y")
    one.names.append("b")
    assert (one.port, one.needed, one.names, other.names) == (3, "x", ["a", "b"], ["a"])
    with pytest.raises(TypeError, match="needed"):
        Described()  # type: ignore[call-arg]


def test_constraints_that_nothing_would_check_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Narrow\.port: the constraints of a pydantic Field belong into its Options"):

        class Narrow(Meter):
            port: int = Field(default=3, ge=1)


def test_an_exporter_with_an_init_of_its_own_has_the_documented_attributes() -> None:
    class File(Exporter):
        def __init__(self, path: str) -> None:
            self.path = path

        async def export(self, batch: Batch) -> None:
            pass

    exporter = File("x")
    assert (exporter.metric_generators, exporter.metric_report, exporter.metric_prefix_name) == ([], {}, None)
    assert exporter.metric_generators is exporter.metric_generators


def test_a_class_variable_is_no_field() -> None:
    class Counting(Meter):
        made: ClassVar[list[str]] = []

    one, other = Counting(port=1), Counting(port=2)
    one.made.append("one")
    assert other.made is Counting.made
    assert Counting.made == ["one"]


def test_a_field_may_be_given_a_new_default() -> None:
    class Other(Meter):
        port: int = 8081
        history: list[float] = [1.0, 2.0]  # noqa: RUF012

    assert Other().port == 8081
    Other().history.append(3.0)
    assert Other().history == [1.0, 2.0]


def test_metrics_of_a_generator_are_its_own() -> None:
    """T16."""
    one, other = MetricGenerator(), MetricGenerator()
    one.metrics.append(Metric(name="m", value=1.0))
    assert other.metrics == []


def test_nothing_of_the_fields_is_shown() -> None:
    """T30: the key was in the repr of the location."""

    class Live(Location):
        async def get_latest_co2g_kwh(self) -> float:
            return 1.0

    live = Live(name="fr", co2signal_api_key="SECRET")
    assert "SECRET" not in repr(live) + str(live) + f"{live!r}"
    assert repr(live) == f"<{Live.__qualname__}>"


def test_equality_is_identity() -> None:
    assert Meter(port=1) != Meter(port=1)
    assert len({Meter(port=1), Meter(port=1)}) == 2


class WithOptions(Exporter):
    port: int
    path: str = "x"

    class Options(PluginOptions):
        port: int = Field(default=8081, ge=1, description="where to listen")
        path: str = Field(default="x", description="where to write")

    async def export(self, batch: Batch) -> None:
        pass


def test_options_are_validated_and_become_arguments() -> None:
    made = WithOptions.from_options(WithOptions.Options(port=9090), PluginContext("it"))
    assert (made.port, made.path) == (9090, "x")
    with pytest.raises(ValidationError):
        WithOptions.Options(port=0)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="portt"):
        WithOptions.Options(portt=1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="anything"):
        Meter.Options(anything=1)  # type: ignore[call-arg]


async def test_entering_and_leaving_do_nothing_unless_overridden() -> None:
    class Bare(Plugin):
        pass

    bare = Bare()
    async with bare as entered:
        assert entered is bare
    with pytest.raises(ValueError, match="through"):
        async with Bare():
            raise ValueError("through")


def test_a_contract_cannot_be_used_without_its_verb() -> None:
    with pytest.raises(TypeError):
        Sensor()  # type: ignore[abstract]
    with pytest.raises(TypeError):
        Location(name="fr")  # type: ignore[abstract]


def test_an_exporter_without_a_verb_is_abstract() -> None:
    class Mute(Exporter):
        pass

    for cls in (Mute, Exporter):
        with pytest.raises(TypeError, match=r"abstract.*export"):
            cls()


async def test_an_exporter_of_the_old_interface_gets_the_batch_replayed() -> None:
    """T1: the values are awaited calls, each with its own number."""
    told: dict[str, float | None] = {}

    class Old(Exporter):
        async def launch(self, metric_generator: MetricGenerator) -> None:
            metrics = [metric async for metric in metric_generator.generate()]
            for metric in metrics:
                assert callable(metric.value)
                told[metric.name] = await metric.value()

    new: list[Batch] = []

    class New(Exporter):
        async def export(self, batch: Batch) -> None:
            new.append(batch)

    generator = MetricGenerator(metrics=[Metric(name="a", value=0.0), Metric(name="b", value=2.0)])
    await New().launch(generator)
    await Old().export(new[0])
    assert told == {"a": 0.0, "b": 2.0}


def test_probe_says_that_it_works_by_default() -> None:
    assert Meter.probe(PluginContext("it")) == Probe(works=True, fidelity=Meter.fidelity)


def test_names_of_exporters_as_documented() -> None:
    assert WithOptions.get_name() == "WithOptions"

    class JSONExporter(WithOptions):
        pass

    assert JSONExporter.get_name() == "JSON"

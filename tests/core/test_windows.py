"""The sensor `windows`, over trees as LibreHardwareMonitor shows them, on a machine that says it is Windows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tracarbon.exceptions import HardwareNoGPUDetectedException, TracarbonException
from tracarbon.hardwares import windows
from tracarbon.hardwares._libre_hardware_monitor import devices_of, fetch, power_sensors
from tracarbon.hardwares.energy import EnergyUsage, Fidelity, Scope
from tracarbon.hardwares.gpu import GPUInfo
from tracarbon.hardwares.windows import WindowsEnergyConsumption
from tracarbon.plugin import PluginContext

from tests.support import web_server
from tests.support.web_server import Handler, Server, json_answer, serving

pytestmark = pytest.mark.anyio

Node = dict[str, Any]


def sensor(identifier: str, text: str, value: str, **more: Any) -> Node:
    return {"Text": text, "Value": value, "Min": value, "Max": value, "SensorId": identifier, "Children": []} | more


def hardware(name: str, *sensors: Node) -> Node:
    powers = {"Text": "Powers", "Min": "", "Value": "", "Max": "", "Children": list(sensors)}
    loads = {"Text": "Load", "Children": [sensor("/intelcpu/0/load/0", "CPU Total", "12,5 %", Type="Load")]}
    return {"Text": name, "Min": "", "Value": "", "Max": "", "Children": [loads, powers]}


def computer(*parts: Node) -> Node:
    return {"id": 0, "Text": "Sensor", "Children": [{"id": 1, "Text": "DESKTOP", "Children": list(parts)}]}


INTEL = computer(
    hardware(
        "13th Gen Intel Core i9-13900K",
        sensor("/intelcpu/0/power/0", "CPU Package", "65,3 W"),
        sensor("/intelcpu/0/power/1", "CPU Cores", "50,1 W"),
        sensor("/intelcpu/0/power/2", "CPU Graphics", "4,3 W"),
        sensor("/intelcpu/0/power/3", "CPU Memory", "6,0 W"),
    ),
    hardware("Intel(R) UHD Graphics 770", sensor("/gpu-intel-integrated/a/power/0", "GPU Power", "4,3 W")),
    hardware("NVIDIA GeForce RTX 4080", sensor("/gpu-nvidia/0/power/0", "GPU Package", "120,0 W")),
)
LAPTOP = computer(
    hardware(
        "Intel Core Ultra 7 258V",
        sensor("/intelcpu/0/power/0", "CPU Package", "12.6 W"),
        sensor("/intelcpu/0/power/4", "CPU Platform", "19.6 W"),
    ),
    hardware("Battery", sensor("/battery/DELL_1/power/0", "Discharge Rate", "21.0 W")),
)
AMD = computer(
    hardware(
        "AMD Ryzen 7 7840HS",
        sensor("/amdcpu/0/power/0", "Package", "", RawValue=35.25, Type="Power"),
        sensor("/amdcpu/0/power/1", "Core #1 (SMU)", "5.0 W", RawValue=5.0),
    ),
    hardware("AMD Radeon 780M Graphics", sensor("/gpu-amd/0/power/0", "GPU Package", "9.7 W", RawValue="9.7 W")),
    hardware(
        "AMD Radeon RX 7600",
        sensor("/gpu-amd/1/power/0", "GPU Core", "40.0 W"),
        sensor("/gpu-amd/1/power/3", "GPU Package", "95.0 W"),
    ),
)


def found(tree: object, *, with_nvidia: bool = True) -> dict[str, float]:
    return {device.name: watts for device, watts in devices_of(power_sensors(tree), with_nvidia=with_nvidia).items()}


HUGE = 10**400  # in JSON an integer like any other, and too large for a float


class TestTrees:
    def test_intel_with_a_card(self) -> None:
        assert found(INTEL) == {"package-0": 65.3, "uncore-0": 4.3, "dram-0": 6.0, "gpu-nvidia-0": 120.0}
        assert "gpu-nvidia-0" not in found(INTEL, with_nvidia=False)

    def test_a_laptop_has_a_platform_and_its_battery_is_no_part(self) -> None:
        assert found(LAPTOP) == {"package-0": 12.6, "psys": 19.6}

    def test_amds_graphics_lie_in_the_package_and_its_cards_do_not(self) -> None:
        devices = devices_of(power_sensors(AMD), with_nvidia=True)
        said = {device.name: (watts, device.scope, device.within) for device, watts in devices.items()}
        assert said == {
            "package-0": (35.25, Scope.HOST, None),
            "gpu-amd-0": (9.7, Scope.DETAIL, "package-0"),
            "gpu-amd-1": (95.0, Scope.EXTRA, None),
        }
        assert {device.fidelity for device in devices} == {Fidelity.MEASURED}
        [card] = [device for device in devices if device.scope is Scope.EXTRA]
        assert dict(card.tags) == {"name": "AMD Radeon RX 7600", "id": "/gpu-amd/1"}

    @pytest.mark.parametrize("value", ["", "-", "NaN", "12.5 %", "-3.0 W", "W", "1.2.3 W", "12 kW"])
    def test_a_value_that_is_none_is_unknown(self, value: str) -> None:
        assert found(computer(hardware("x", sensor("/intelcpu/0/power/0", "CPU Package", value)))) == {}

    @pytest.mark.parametrize(
        ("value", "watts"),
        [
            ("1,265.0 W", 1265.0),
            ("1.265,0 W", 1265.0),
            ("1 065,5 W", 1065.5),
            ("1\u00a0065,5\u00a0W", 1065.5),
            ("1\u202f065,5 W", 1065.5),
            ("1'265.0 W", 1265.0),
            ("1\u2019265.0 W", 1265.0),
            ("1,065,000.5 W", 1_065_000.5),
            ("1265,0 W", 1265.0),
            ("1.265 W", 1.265),
            ("0,0 W", 0.0),
        ],
    )
    def test_numbers_are_read_as_any_language_writes_them(self, value: str, watts: float) -> None:
        for more in ({}, {"RawValue": value}):
            tree = computer(hardware("x", sensor("/intelcpu/0/power/0", "CPU Package", value, **more)))
            assert found(tree) == {"package-0": watts}

    @pytest.mark.parametrize("value", ["1,265,0 W", "1,26,500.0 W", "1265.000,0 W", "٣ W", "1..0 W", "1,265.0.0 W"])
    def test_what_no_language_writes_is_unknown(self, value: str) -> None:
        assert found(computer(hardware("x", sensor("/intelcpu/0/power/0", "CPU Package", value)))) == {}

    @pytest.mark.parametrize("raw", [None, -1.0, float("inf"), HUGE, True])
    def test_a_raw_value_that_is_none_is_unknown_or_the_text_counts(self, raw: object) -> None:
        said = found(computer(hardware("x", sensor("/intelcpu/0/power/0", "CPU Package", "7.5 W", RawValue=raw))))
        assert said in ({}, {"package-0": 7.5})
        assert (said == {}) == (raw in (-1.0, float("inf"), HUGE))

    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["Text", "Children", "SensorId"]), inner),
        )
    )
    def test_whatever_the_tree_it_is_read_or_passed_over(self, tree: object) -> None:
        assert found(tree) == {}

    def test_a_tree_without_end_is_not_followed(self) -> None:
        node: Node = {"Text": "x"}
        node["Children"] = [node]
        assert found(node) == {}

    @given(st.permutations(range(3)), st.lists(st.floats(0.0, 1e4), min_size=3, max_size=3))
    def test_no_watt_counts_twice(self, order: list[int], watts: list[float]) -> None:
        parts = [
            hardware("cpu", sensor("/amdcpu/0/power/0", "Package", "", RawValue=watts[0])),
            hardware("AMD Radeon(TM) Graphics", sensor("/gpu-amd/0/power/0", "GPU Package", "", RawValue=watts[1])),
            hardware("card", sensor("/gpu-nvidia/0/power/0", "GPU Package", "", RawValue=watts[2])),
        ]
        devices = devices_of(power_sensors(computer(*(parts[index] for index in order))), with_nvidia=True)
        host = sum(it for device, it in devices.items() if device.scope in (Scope.HOST, Scope.EXTRA))
        assert host == pytest.approx(watts[0] + watts[2])


@pytest.fixture
def on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "platform_name", lambda: "Windows")
    for limit in ("_TIMEOUT_SECONDS", "_PROBE_SECONDS"):
        monkeypatch.setattr(windows, limit, 60.0)


@pytest.fixture
def monitor() -> Iterator[Server]:
    with serving(json_answer(INTEL)) as server:
        yield server


def in_pipeline(**options: Any) -> tuple[WindowsEnergyConsumption, PluginContext]:
    context = PluginContext("windows")
    return WindowsEnergyConsumption.from_options(WindowsEnergyConsumption.Options(**options), context), context


async def usage_of(made: WindowsEnergyConsumption) -> EnergyUsage:
    async with made:
        return await made.get_energy_usage()


@pytest.mark.usefixtures("on_windows")
class TestMeasured:
    async def test_the_figures_are_samples(self, monitor: Server) -> None:
        made, context = in_pipeline(url=f"{monitor.url}/data.json", nvidia=True)
        usage = await usage_of(made)
        context.close()
        assert (usage.host_energy_usage, usage.cpu_energy_usage) == pytest.approx((191.3, 61.0))
        assert (usage.memory_energy_usage, usage.gpu_energy_usage) == pytest.approx((6.0, 124.3))
        assert (usage.window_seconds, usage.method) == (None, "librehardwaremonitor")
        assert {reading.window_seconds for reading in usage.devices} == {None}

    async def test_the_platform_is_the_host_where_it_is_plausible(self) -> None:
        with serving(json_answer(LAPTOP)) as server:
            usage = await usage_of(WindowsEnergyConsumption(url=server.url))
        assert (usage.host_energy_usage, usage.cpu_energy_usage) == (19.6, 12.6)

    async def test_devices_are_the_same_from_reading_to_reading(self, monitor: Server) -> None:
        async with WindowsEnergyConsumption(url=monitor.url) as made:
            one, other = [await made.get_energy_usage() for _ in range(2)]
        assert all(a.device is b.device for a, b in zip(one.devices, other.devices, strict=True))

    @pytest.mark.parametrize("installed", [True, False])
    async def test_nvidias_cards_are_its_own_sensors_where_that_is_installed(
        self, monitor: Server, monkeypatch: pytest.MonkeyPatch, installed: bool
    ) -> None:
        monkeypatch.setattr(windows, "find_spec", lambda name: object() if installed else None)
        usage = await usage_of(WindowsEnergyConsumption(url=monitor.url))
        assert ("gpu-nvidia-0" in {reading.device.name for reading in usage.devices}) != installed

    async def test_a_password_is_sent_and_not_shown(self) -> None:
        def with_password(handler: Handler) -> None:
            if handler.headers["Authorization"] == "Basic bWU6U0VDUkVU":
                handler.answer(json.dumps(AMD).encode())
            else:
                handler.answer(b"", 401, WWW_Authenticate="Basic")

        with serving(with_password) as server:
            made, context = in_pipeline(url=server.url, user="me", password="SECRET", source="librehardwaremonitor")
            assert (await usage_of(made)).cpu_energy_usage == pytest.approx(25.55)
            assert "SECRET" not in repr(vars(made))
            other, other_context = in_pipeline(url=server.url, source="librehardwaremonitor")
            with pytest.raises(TracarbonException, match="answered 401; set user and password"):
                await usage_of(other)
            context.close()
            other_context.close()

    async def test_one_that_went_away_is_a_failure_and_no_estimate(self) -> None:
        with serving(json_answer(INTEL)) as server:
            made, context = in_pipeline(url=server.url)
            async with made:
                await made.get_energy_usage()
                server.respond = web_server.status(500)
                with pytest.raises(TracarbonException, match="answered 500"):
                    await made.get_energy_usage()
            async with made:  # entered again, it is still what it was
                with pytest.raises(TracarbonException, match="answered 500"):
                    await made.get_energy_usage()
                server.respond = json_answer(INTEL)
                assert (await made.get_energy_usage()).host_energy_usage is not None
        context.close()

    @pytest.mark.parametrize(
        ("respond", "reason"),
        [
            (web_server.status(404), "answered 404"),
            (web_server.body(b"<html>"), "is no LibreHardwareMonitor: it gives no JSON"),
            (json_answer({"Text": "Sensor", "Children": []}), "shows no power: run it as administrator"),
            (web_server.close_in_the_middle, "no LibreHardwareMonitor|does not answer"),
            (web_server.endless, "no LibreHardwareMonitor|does not answer"),
            (json_answer({}), "its JSON is no tree of sensors"),
            (json_answer([]), "its JSON is no tree of sensors"),
            (json_answer(7), "its JSON is no tree of sensors"),
            (json_answer({"Children": []}), "its JSON is no tree of sensors"),
            (json_answer({"Text": "x"}), "its JSON is no tree of sensors"),
            (web_server.body(b"[" * 100_000), "it gives no JSON"),
        ],
    )
    async def test_faults_have_a_reason(self, respond: web_server.Respond, reason: str) -> None:
        with serving(respond) as server:
            made, context = in_pipeline(url=server.url, source="librehardwaremonitor")
            with pytest.raises(TracarbonException, match=reason):
                await usage_of(made)
            context.close()

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_no_redirection_is_followed(self, status: int) -> None:
        def redirect(handler: Handler) -> None:
            handler.answer(b"", status, Location=f"{elsewhere.url}/data.json")

        with serving(json_answer(INTEL)) as elsewhere, serving(redirect) as server:
            made, context = in_pipeline(url=server.url, user="me", password="SECRET", source="librehardwaremonitor")
            with pytest.raises(TracarbonException) as caught:
                await usage_of(made)
            context.close()
            assert elsewhere.requests == []
        assert f"answers with a redirection to {elsewhere.url}/data.json, which" in str(caught.value)
        assert "give that address as url" in str(caught.value)
        assert "SECRET" not in str(caught.value)

    async def test_what_cannot_be_true_is_not_believed(self) -> None:
        tree = computer(
            hardware("cpu", sensor("/intelcpu/0/power/0", "CPU Package", "65.0 W")),
            hardware("card", sensor("/gpu-amd/0/power/0", "GPU Package", "65535.0 W")),
        )
        with serving(json_answer(tree)) as server:
            usage = await usage_of(WindowsEnergyConsumption(url=server.url))
        assert (usage.host_energy_usage, usage.cpu_energy_usage, usage.gpu_energy_usage) == (None, 65.0, None)
        assert [reading.device.name for reading in usage.devices] == ["package-0"]
        assert list(usage.problems) == ["gpu-amd-0: LibreHardwareMonitor shows more than 5000 W, which cannot be true"]

    def test_an_address_has_no_credentials(self) -> None:
        with pytest.raises(ValidationError, match="options of their own"):
            WindowsEnergyConsumption.Options(url="http://me:SECRET@127.0.0.1:8085/data.json")
        with pytest.raises(TracarbonException, match="options of their own") as caught:
            WindowsEnergyConsumption(url="http://me:SECRET@127.0.0.1:8085/data.json")
        assert "SECRET" not in str(caught.value)

    @pytest.mark.parametrize(
        "url",
        [
            "notaurl",
            "127.0.0.1:8085/data.json",
            "ftp://127.0.0.1/data.json",
            "http://",
            "http://[::1",
            "http://127.0.0.1:port/",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1:8085/da ta.json",
            "http://127.0.0.1:8085/\u00e9.json",
        ],
    )
    def test_what_is_no_address_is_refused(self, url: str) -> None:
        with pytest.raises(TracarbonException, match=r"^url: it is no address of a web server, which is like http://"):
            WindowsEnergyConsumption(url=url)
        with pytest.raises(ValidationError):
            WindowsEnergyConsumption.Options(url=url)

    @pytest.mark.parametrize("url", ["http://[::1]:8085/data.json", "https://m\u00fcller/data.json?x=a@b"])
    def test_what_is_one_is_taken(self, url: str) -> None:
        assert WindowsEnergyConsumption(url=url).url == WindowsEnergyConsumption.Options(url=url).url == url

    def test_one_that_drips_is_left(self) -> None:
        def drip(handler: Handler) -> None:
            handler.send_response(200)
            handler.end_headers()
            while not handler.server.ended.wait(0.01):
                handler.wfile.write(b" ")

        # Where the drips are late themselves, it is a single one that is waited for too long.
        with serving(drip) as server, pytest.raises(TracarbonException, match=r"it answers too slowly|timed out"):
            fetch(server.url, 0.2)

    def test_one_that_speaks_no_http_is_named(self) -> None:
        def garbage(handler: Handler) -> None:
            handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")

        with serving(garbage) as server, pytest.raises(TracarbonException, match="it speaks no HTTP"):
            fetch(server.url, 60.0)

    def test_one_that_hangs_is_left(self) -> None:
        with serving(web_server.hang) as server, pytest.raises(TracarbonException, match="does not answer at"):
            fetch(server.url, 0.2)


@pytest.mark.usefixtures("on_windows")
class TestEstimated:
    NOWHERE = "http://127.0.0.1:9/data.json"

    async def test_without_it_the_estimate_says_why(self, caplog: pytest.LogCaptureFixture) -> None:
        made, context = in_pipeline(url=self.NOWHERE)
        async with made:
            assert (await made.get_energy_usage()).devices == ()
        context.close()
        assert "the figures are an estimate: LibreHardwareMonitor does not answer at" in caplog.text

    async def test_it_may_be_wanted(self) -> None:
        with serving(json_answer(INTEL)) as server:
            made, context = in_pipeline(url=server.url, source="estimate")
            await usage_of(made)
            assert server.requests == []
            context.close()

    @pytest.mark.parametrize("alone", [True, False])
    async def test_used_alone_the_cards_of_nvidia_are_added(self, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
        monkeypatch.setattr(GPUInfo, "get_gpu_power_usage", classmethod(lambda cls: 100.0))
        instants = iter(range(100))
        made = WindowsEnergyConsumption(source="estimate", clock=lambda: float(next(instants)))
        if not alone:
            made._context = PluginContext("windows")
        async with made:
            await made.get_energy_usage()
            usage = await made.get_energy_usage()
        assert usage.gpu_energy_usage == (100.0 if alone else None)
        assert usage.host_energy_usage == pytest.approx(sum(reading.watts for reading in usage.devices))

    async def test_without_cards_it_is_the_estimate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def none(_: type) -> float:
            raise HardwareNoGPUDetectedException("none")

        monkeypatch.setattr(GPUInfo, "get_gpu_power_usage", classmethod(none))
        instants = iter(range(100))
        async with WindowsEnergyConsumption(source="estimate", clock=lambda: float(next(instants))) as made:
            await made.get_energy_usage()
            usage = await made.get_energy_usage()
        assert usage.gpu_energy_usage is None
        assert usage.host_energy_usage is not None


class TestElsewhere:
    async def test_it_is_refused(self) -> None:
        with pytest.raises(TracarbonException, match=r"needs Windows, and this is .*; EnergyConsumption"):
            await usage_of(WindowsEnergyConsumption())
        made, context = in_pipeline()
        with pytest.raises(TracarbonException, match=r"needs Windows, and this is .*; `tracarbon doctor` shows"):
            await usage_of(made)
        context.close()

    def test_probe_asks_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(windows, "fetch", None)
        probe = WindowsEnergyConsumption.probe(PluginContext("windows"))
        assert (probe.works, probe.reason.partition(",")[0]) == (False, "needs Windows")

    @pytest.mark.usefixtures("on_windows")
    @pytest.mark.parametrize(
        ("tree", "fidelity"), [(INTEL, Fidelity.MEASURED), (computer(), Fidelity.ESTIMATED), (None, Fidelity.ESTIMATED)]
    )
    def test_probe_on_windows(
        self, tree: Mapping[str, Any] | None, fidelity: Fidelity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serving(json_answer(tree) if tree is not None else web_server.status(500)) as server:
            monkeypatch.setattr(windows, "ADDRESS", server.url)
            probe = WindowsEnergyConsumption.probe(PluginContext("windows"))
        assert (probe.works, probe.fidelity) == (True, fidelity)

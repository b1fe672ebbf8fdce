"""The location `aws`: the grid of a region, given or asked for; live with a key."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tracarbon.exceptions import CloudProviderRegionIsMissing, CO2SignalAPIKeyIsMissing
from tracarbon.locations.location import CarbonIntensitySource
from tracarbon.plugin import ComponentState, PluginContext
from tracarbon_sensor_aws import AWSLocation
from tracarbon_sensor_aws._regions import REGIONS, nearest_regions
from tracarbon_sensor_aws.instance import Instance

from tests.sensor_aws.imds import Imds, ec2_machine, firmware
from tests.support import web_server
from tests.support.web_server import Handler, json_answer, serving

pytestmark = pytest.mark.anyio

LIVE = CarbonIntensitySource.CO2SignalAPI


class TestRegions:
    @pytest.mark.parametrize(
        ("name", "co2g_kwh", "kind", "date"),
        [
            ("eu-west-1", 316.0, "grid average, EEA", "published 2021"),
            ("us-east-1", 415.755, "grid average, EPA", "published 2021"),
            ("eu-north-1", 8.0, "grid average, EEA", "published 2021"),
            ("af-south-1", 928.0, "grid average, carbonfootprint.com", "published 2021"),
            ("eu-central-2", 39.22, "yearly average, Ember", "2025"),  # of Switzerland
            ("il-central-1", 492.69, "yearly average, Ember", "2025"),
        ],
    )
    async def test_each_has_the_figure_of_its_grid(self, name: str, co2g_kwh: float, kind: str, date: str) -> None:
        location = AWSLocation(name)
        assert location.co2g_kwh == await location.get_latest_co2g_kwh() == await location.get_co2g_kwh() == co2g_kwh
        assert (location.co2g_kwh_kind, location.co2g_kwh_date) == (kind, date)
        assert (location.name, location.region_name) == (f"AWS({name})", name)
        assert location.co2g_kwh_source is CarbonIntensitySource.FILE

    def test_all_of_the_figures_are_some(self) -> None:
        assert len(REGIONS) == 39
        for name in REGIONS:
            assert 0 < AWSLocation(name).co2g_kwh < 1000

    def test_case_and_blanks_make_no_difference(self) -> None:
        location = AWSLocation(" EU-West-1 ")
        assert (location.region_name, location.name, location.co2g_kwh) == ("eu-west-1", "AWS(eu-west-1)", 316.0)

    @pytest.mark.parametrize(
        ("wrong", "hint"),
        [
            ("eu-west-9", "did you mean eu-west-3 or eu-west-2 or eu-west-1?"),
            ("eu-west1", "did you mean eu-west-1 or"),
            ("euwest1", "did you mean eu-west-1 or"),
            ("us", "did you mean us-west-2 or us-west-1 or us-east-2?"),  # and not Australia
            ("me-west-1", "did you mean me-south-1 or me-central-1?"),
            ("ca-east-1", "did you mean ca-west-1 or ca-central-1?"),
            ("cn-south-1", "did you mean cn-north-1 or cn-northwest-1?"),
            ("korea", "did you mean ap-northeast-2?"),
            ("ireland", "did you mean eu-west-1?"),
            ("nowhere", "it is like eu-west-1"),
        ],
    )
    def test_an_unknown_one_names_the_nearest(self, wrong: str, hint: str) -> None:
        with pytest.raises(CloudProviderRegionIsMissing) as caught:
            AWSLocation(wrong)
        assert str(caught.value).startswith(f"no carbon intensity is known for AWS region '{wrong}'; {hint}")
        with pytest.raises(ValidationError, match="no carbon intensity is known for AWS region"):
            AWSLocation.Options(region=wrong)

    @given(st.text(max_size=20))
    def test_there_are_never_many(self, text: str) -> None:
        near = nearest_regions(text)
        assert len(near) <= 3
        assert REGIONS.keys() >= set(near)

    async def test_what_is_given_counts(self) -> None:
        location = AWSLocation("eu-west-1", name="dublin", co2g_kwh=12.0, co2g_kwh_kind="contract")
        assert await location.get_co2g_kwh() == 12.0
        assert (location.name, location.co2g_kwh_kind) == ("dublin", "contract")

    def test_the_documented_path_leads_here(self) -> None:
        from tracarbon.locations import country

        assert country.AWSLocation is AWSLocation


class TestFindingOut:
    async def entered(self, root: Path, **options: Any) -> str:
        """Return the location's name and how it became known, or why it did not."""
        context = PluginContext("location", host_root=root)
        try:
            location = AWSLocation.from_options(AWSLocation.Options(**options), context)
            async with location:
                return f"{location.name} by {location.detected_by}: {await location.get_latest_co2g_kwh():g}"
        except CloudProviderRegionIsMissing as error:
            return str(error)
        finally:
            context.close()

    async def test_the_metadata_service_says(self, tmp_path: Path) -> None:
        service = Imds({"placement/region": "eu-west-3"})
        with serving(service) as server:
            assert await self.entered(ec2_machine(tmp_path), imds_endpoint=server.url) == (
                "AWS(eu-west-3) by instance metadata: 52"
            )
            asked = len(service.asked)
            assert await self.entered(tmp_path, region="eu-west-1", imds_endpoint=server.url) == (
                "AWS(eu-west-1) by setting: 316"
            )
        assert len(service.asked) == asked

    async def test_elsewhere_nobody_is_asked(self, tmp_path: Path) -> None:
        service = Imds({"placement/region": "eu-west-3"})
        with serving(service) as server:
            said = await self.entered(firmware(tmp_path, sys_vendor="QEMU"), imds_endpoint=server.url)
            assert service.asked == []
            assert said.startswith("the AWS region is not known: the firmware does not say")
            assert said.endswith("Set region in [location], or pass region_name")
            said = await self.entered(tmp_path, imds="always", imds_endpoint=server.url)
        assert said.startswith("AWS(eu-west-3)")

    async def test_a_region_that_is_none_names_the_nearest(self, tmp_path: Path) -> None:
        with serving(Imds({"placement/region": "eu-west-99"})) as server:
            said = await self.entered(ec2_machine(tmp_path), imds_endpoint=server.url)
        assert said.startswith("no carbon intensity is known for AWS region 'eu-west-99'; did you mean eu-west-")

    async def test_used_alone_it_asks_once(self, tmp_path: Path) -> None:
        service = Imds({"placement/region": "eu-west-3"})
        with serving(service) as server:
            location = AWSLocation(instance=Instance(ec2_machine(tmp_path), "auto", server.url))
            assert [await location.get_co2g_kwh() for _ in range(2)] == [52.0, 52.0]
        assert len(service.asked) == 2

    def test_probe(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        context = PluginContext("location", host_root=tmp_path)
        with serving(Imds({"placement/region": "eu-west-3"})) as server:
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
            elsewhere = AWSLocation.probe(context)
            assert (elsewhere.works, elsewhere.remedy) == (False, "")
            ec2_machine(tmp_path)
            assert AWSLocation.probe(context).reason == "eu-west-3, France, 52 g/kWh"
        with serving(web_server.status(403)) as server:
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
            probe = AWSLocation.probe(context)
        assert (probe.works, probe.remedy) == (False, "set region in [location]")
        assert "is turned off" in probe.reason


def answer(zone: str, intensity: float) -> web_server.Respond:
    said = {"zone": zone, "carbonIntensity": intensity, "datetime": datetime.now(UTC).isoformat()}
    return json_answer({**said, "emissionFactorType": "lifecycle"})


class TestLive:
    async def test_it_is_that_of_the_regions_zone(self) -> None:
        with serving(answer("US-MIDA-PJM", 377.0)) as server:
            location = AWSLocation(
                "us-east-1",
                co2signal_api_key="K3Y-OF-MINE",
                co2signal_url=f"{server.url}/?zone=",
            )
            assert await location.get_latest_co2g_kwh() == 377.0
            [(path, headers)] = server.requests
        assert (path, headers["auth-token"]) == ("/?zone=US-MIDA-PJM", "K3Y-OF-MINE")
        assert (location.name, location.co2g_kwh_source) == ("AWS(us-east-1)", LIVE)
        assert location.co2g_kwh_kind == "live lifecycle"
        assert "K3Y" not in repr(location)

    async def test_when_the_service_fails_the_regions_average_holds(self) -> None:
        with serving(web_server.status(500)) as server:
            context = PluginContext("location")
            options = AWSLocation.Options(
                region="us-west-1", co2signal_api_key="K3Y", co2signal_url=f"{server.url}/?zone="
            )
            async with AWSLocation.from_options(options, context) as location:
                assert await location.get_latest_co2g_kwh() == 350.861
                assert location.co2g_kwh_source is CarbonIntensitySource.FILE
                assert location.co2g_kwh_kind == "grid average, EPA"
            assert context.component.state is ComponentState.DEGRADED
            context.close()

    async def test_another_zone_can_be_said(self) -> None:
        def by_zone(handler: Handler) -> None:
            answer(handler.path.rpartition("=")[2], 99.0)(handler)

        with serving(by_zone) as server:
            url = f"{server.url}/?zone="
            options = AWSLocation.Options(
                region="us-gov-west-1", zone="US-NW-PACW", co2signal_api_key="K3Y", co2signal_url=url
            )
            context = PluginContext("location")
            async with AWSLocation.from_options(options, context) as location:
                assert await location.get_latest_co2g_kwh() == 99.0
            context.close()
            [(path, _)] = server.requests
        assert path == "/?zone=US-NW-PACW"

    async def test_a_region_without_a_known_zone_needs_one(self) -> None:
        location = AWSLocation("us-gov-west-1", co2g_kwh_source=LIVE, co2signal_api_key="K3Y")
        with pytest.raises(CloudProviderRegionIsMissing, match=r"no zone of Electricity Maps is known .* set zone"):
            await location.get_latest_co2g_kwh()

    async def test_a_key_alone_leaves_it_with_its_average(self, caplog: pytest.LogCaptureFixture) -> None:
        """One in the environment may be meant for all machines, those of other regions too."""
        context = PluginContext("location")
        options = AWSLocation.Options(region="us-gov-west-1", co2signal_api_key="K3Y")
        async with AWSLocation.from_options(options, context) as location:
            assert [await location.get_latest_co2g_kwh() for _ in range(2)] == [350.861, 350.861]
        context.close()
        assert location.co2g_kwh_source is CarbonIntensitySource.FILE
        assert caplog.messages == [
            "no live carbon intensity: no zone of Electricity Maps is known for AWS region 'us-gov-west-1'; set zone; "
            "the grid average, EPA is used"
        ]

    @pytest.mark.parametrize(
        ("more", "exit_code"), [({}, 0), ({"TRACARBON_CO2SIGNAL_URL": "http://127.0.0.1:9/?zone="}, 2)]
    )
    def test_check_says_what_a_run_would(self, tmp_path: Path, more: dict[str, str], exit_code: int) -> None:
        file = tmp_path / "pipeline.toml"
        file.write_text('[location]\nplugin = "aws"\nregion = "us-gov-west-1"\n[sensors.estimate]\n')
        environment = {**os.environ, "TRACARBON_CO2SIGNAL_API_KEY": "K3Y", **more}
        for command in (["check"], ["run", "--once", "--interval", "0.2"]):
            done = subprocess.run(
                [sys.executable, "-m", "tracarbon", *command, "--config", str(file)],
                env=environment,
                check=False,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == exit_code, done.stderr
            is_said = "no zone of Electricity Maps is known" in done.stderr + done.stdout
            assert is_said == (exit_code != 0 or "run" in command)

    async def test_a_key_is_needed(self) -> None:
        with pytest.raises(CO2SignalAPIKeyIsMissing):
            await AWSLocation("eu-west-1", co2g_kwh_source=LIVE).get_latest_co2g_kwh()

    @pytest.mark.parametrize("field", ["zone", "co2signal_url"])
    def test_from_code_nothing_of_it_is_ignored_either(self, field: str) -> None:
        with pytest.raises(CO2SignalAPIKeyIsMissing, match="pass co2signal_api_key"):
            AWSLocation("eu-west-1", **{field: "IE"})  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"zone": "IE"}, "zone is of a live intensity, which needs co2signal_api_key"),
            ({"co2signal_url": "http://127.0.0.1/"}, "co2signal_url is of a live intensity"),
            ({"co2signal_api_key": " "}, "co2signal_api_key is empty"),
        ],
    )
    def test_options_that_would_be_ignored_are_refused(self, options: dict[str, str], reason: str) -> None:
        with pytest.raises(ValidationError, match=reason):
            AWSLocation.Options(region="eu-west-1", **options)

"""What a location has to keep to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import anyio

from tracarbon._discovery import LOCATION, Kind
from tracarbon.locations.location import CarbonIntensitySource, Location
from tracarbon.testing._contract import ProbedContract

_AT_ONCE = 5
_TRIES = 3


class LocationContract(ProbedContract):
    """The standard tests of a location."""

    _kind: ClassVar[Kind] = LOCATION

    def test_the_intensity_is_sound(self) -> None:
        """Grams per kilowatt-hour: finite, and not negative."""

        async def ask(folder: Path) -> None:
            async with self._made(folder) as location, location:
                value = await self._call(location.get_latest_co2g_kwh())
                assert isinstance(value, int | float) and math.isfinite(value), f"{value!r} g/kWh"
                assert value >= 0, f"{value} g/kWh"

        self._on_each_loop(ask)

    def test_provenance_is_stated(self) -> None:
        """Once asked, it says its name, its figure, and what that is, of when, and how the location became known."""

        async def ask(folder: Path) -> None:
            async with self._made(folder) as location, location:
                value = await self._call(location.get_latest_co2g_kwh())
                assert isinstance(location, Location)
                for name in ("name", "co2g_kwh_kind", "co2g_kwh_date", "detected_by"):
                    is_said = bool(str(getattr(location, name) or "").strip())
                    assert is_said, f"{name} is empty: the figures' tags say where they come from"
                assert isinstance(location.co2g_kwh_source, CarbonIntensitySource)
                assert location.co2g_kwh == value, f"co2g_kwh is {location.co2g_kwh}, and the answer was {value}"

        self._on_each_loop(ask)

    def test_several_may_ask_at_once(self) -> None:
        """Generators ask at the same time, and get the same."""

        async def ask_all(folder: Path) -> None:
            answers: set[float] = set()

            async def ask(location: Location) -> None:
                answers.add(await self._call(location.get_latest_co2g_kwh()))

            async with self._made(folder) as location, location:
                for _ in range(_TRIES):  # a service's first answer may come just between two of them
                    answers.clear()
                    async with anyio.create_task_group() as group:
                        for _ in range(_AT_ONCE):
                            group.start_soon(ask, location)
                    if len(answers) == 1:
                        return
            raise AssertionError(f"different answers at one time, again and again: {sorted(answers)}")

        self._on_each_loop(ask_all)

    async def _use(self, plugin: Any, folder: Path) -> object:
        return await plugin.get_latest_co2g_kwh()

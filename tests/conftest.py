"""Every asynchronous test runs on asyncio and on trio."""

import os
import signal
from collections.abc import Iterator
from importlib.metadata import entry_points

import pytest
from hypothesis import HealthCheck, settings

# A slow machine is no flaw of a property.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", patient)
settings.register_profile("ci", patient, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# A shell that runs the tests in the background, or under nohup, has programs ignore what the tests send to them.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Name of the event loop."""
    backend: str = request.param
    return backend


@pytest.fixture(scope="session", autouse=True)
def _patient_probing() -> Iterator[None]:
    """No sensor of this machine is late because the machine is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tracarbon._probing.PROBE_SECONDS", 60.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _imported_plugins() -> None:
    """pytest parses the modules of distributions with a plugin for it; CPython 3.11 may fail to in threads at once."""
    for group in ("tracarbon.sensors", "tracarbon.locations"):
        for entry_point in entry_points(group=group):
            if entry_point.dist is not None and entry_point.dist.name.startswith("tracarbon-"):
                entry_point.load()

"""Every asynchronous test runs on asyncio and on trio."""

import os

import pytest
from hypothesis import HealthCheck, settings

# A slow machine is no flaw of a property.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", patient)
settings.register_profile("ci", patient, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Name of the event loop."""
    backend: str = request.param
    return backend

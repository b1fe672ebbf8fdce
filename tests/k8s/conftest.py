"""A cluster and its API server, for every test that asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.k8s.api_server import Cluster, Server, serving


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def server(cluster: Cluster) -> Iterator[Server]:
    with serving(cluster) as server:
        yield server

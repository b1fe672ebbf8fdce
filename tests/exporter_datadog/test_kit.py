"""The kit that third parties have: by UDP, by a Unix socket, and by HTTP."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tracarbon.testing import ExporterContract, deviates
from tracarbon_exporter_datadog import _agent

from tests.exporter_datadog.receivers import APP_KEY, KEY, Agent, intake, udp_agent, unix_agent


def but_integrals(found: Iterable[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    """What the kit exported; beside each rate there is a count of joules."""
    return ((name, value) for name, value in found if not name.endswith("_joules"))


class ToAgent(ExporterContract):
    """The kit makes an exporter for each loop; the agent forgets what came before."""

    plugin = "datadog"
    distribution = "tracarbon-exporter-datadog"
    agent: Agent

    def arrived(self, folder: Path) -> Iterable[tuple[str, float]]:
        return but_integrals((metric.name, metric.value) for metric in self.agent.metrics)

    @deviates("what the protocol cannot carry is dropped by name; an agent refuses nothing")
    def test_what_is_refused_for_good_is_given_up(self) -> None:
        pass


class TestByUdp(ToAgent):
    @pytest.fixture(autouse=True)
    def an_agent(self) -> Iterator[None]:
        with udp_agent() as self.agent:
            yield

    def options(self, folder: Path) -> Mapping[str, Any]:
        self.agent.forget()
        return {"agent_host": "127.0.0.1", "agent_port": self.agent.port}

    @contextmanager
    def failing(self, fault: str, folder: Path) -> Iterator[None]:
        self.agent.stop()
        yield
        self.agent.start()

    @deviates("an agent is there or is not; tests of our own have it go in the middle of a batch")
    def test_what_is_taken_in_part_is_not_sent_twice(self) -> None:
        pass


class TestByUnixSocket(ToAgent):
    @pytest.fixture(autouse=True)
    def an_agent(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path / "dsd.socket"
        with unix_agent(self.path) as self.agent:
            self.agent.follow()
            yield

    def options(self, folder: Path) -> Mapping[str, Any]:
        self.agent.forget()
        return {"socket_path": str(self.path), "max_packet_bytes": 256, "disable_buffering": True}

    @contextmanager
    def failing(self, fault: str, folder: Path) -> Iterator[None]:
        if fault == "retryable":
            self.agent.stop()
            yield
            self.agent.start()
        else:
            self.agent.stop_following()
            with pytest.MonkeyPatch.context() as patch, self.room_for(3):
                patch.setattr(_agent, "PATIENCE_SECONDS", 0.05)
                yield
        self.agent.follow()

    @contextmanager
    def room_for(self, packets: int) -> Iterator[None]:
        """Fill the agent's queue with packets of others, but for so many."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other:
            other.setblocking(False)
            other.connect(str(self.path))
            with suppress(BlockingIOError):
                while True:
                    other.send(b"of.another:1|c")
            for _ in range(packets):
                self.agent.receive_one()
            yield
            self.agent.forget(b"of.another")


class TestByHttp(ExporterContract):
    plugin = "datadog"
    distribution = "tracarbon-exporter-datadog"

    @pytest.fixture(autouse=True)
    def api(self) -> Iterator[None]:
        with intake() as self.server:
            yield
            assert self.server.problems == []

    def options(self, folder: Path) -> Mapping[str, Any]:
        self.server.kept.clear()
        return {"api_key": KEY, "app_key": APP_KEY, "api_url": self.server.url}

    def arrived(self, folder: Path) -> Iterable[tuple[str, float]]:
        return but_integrals(self.server.values)

    @contextmanager
    def failing(self, fault: str, folder: Path) -> Iterator[None]:
        if fault == "mixed":
            # Too large for one request, and the second of two is refused.
            self.server.faults = [413, None, 503]
        else:
            self.server.standing = {"retryable": 503, "permanent": 400}[fault]
        yield
        self.server.standing = None


class TestByHttpToAnIntakeThatFails(TestByHttp):
    """With a server error, nothing is known."""

    @contextmanager
    def failing(self, fault: str, folder: Path) -> Iterator[None]:
        if fault == "mixed":
            with super().failing(fault, folder):
                yield
            return
        self.server.standing = {"retryable": 500, "permanent": 422}[fault]
        yield
        self.server.standing = None

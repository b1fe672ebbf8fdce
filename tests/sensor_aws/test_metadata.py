"""Asking the instance metadata service, which is strict, off, slow, lying, or not there."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from tracarbon.testing import ManualClock
from tracarbon_sensor_aws._metadata import IPV4, IPV6, MetadataError, ask, check_endpoint, endpoints

from tests.sensor_aws.imds import Imds
from tests.support import web_server
from tests.support.web_server import Handler, serving

PATHS = {"instance-type": "c5.xlarge", "placement/region": "eu-west-3"}
SECONDS = 60.0


@pytest.fixture(params=["HTTP/1.0", "HTTP/1.1"])
def _protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "protocol_version", request.param)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def said(respond: web_server.Respond, path: str = "instance-type", seconds: float = SECONDS) -> str:
    """What is made of a service that answers so."""
    with serving(respond) as server:
        try:
            return ask(path, [server.url], seconds)
        except MetadataError as error:
            return str(error).replace(server.url, "URL")


@pytest.mark.usefixtures("_protocol")
def test_a_token_is_put_and_shown() -> None:
    service = Imds(PATHS)
    with serving(service) as server:
        for path, value in PATHS.items():
            assert ask(path, [server.url], SECONDS) == value
    token, told = ("PUT", "/latest/api/token"), ("GET", "/latest/meta-data/instance-type")
    assert service.asked[:2] == [token, told]


def test_what_is_not_there_is_said_with_its_path() -> None:
    assert said(Imds({})) == "URL answered 404 for instance-type"


def test_a_token_that_has_ended_is_refused_and_said() -> None:
    clock = ManualClock()
    service = Imds(PATHS, clock=clock.monotonic)

    def slow(handler: Handler) -> None:
        if handler.command == "GET":
            clock.elapse(61.0)  # before it is looked at, and so before any answer
        service(handler)

    assert said(slow) == "URL answered 401 for instance-type"


def test_version_1_alone_is_no_service_of_ours() -> None:
    def version_1(handler: Handler) -> None:
        handler.answer(b"m5.large", 405 if handler.command == "PUT" else 200)

    assert said(version_1) == "what answers at URL is no metadata service of EC2: it gave no token (405)"


def test_turned_off_says_how_to_turn_it_on() -> None:
    assert said(web_server.status(403)) == (
        "the instance metadata service is turned off (URL answered 403): "
        "aws ec2 modify-instance-metadata-options --http-endpoint enabled"
    )


def test_a_container_beyond_the_hop_limit_is_told_so() -> None:
    service = Imds(PATHS)

    def dropped(handler: Handler) -> None:
        web_server.hang(handler) if handler.command == "PUT" else service(handler)

    assert said(dropped, seconds=0.2) == (
        "URL did not answer within 0.2 s. In a container, the hop limit of the metadata service has to be 2: "
        "aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>\nwelcome, please log in</html>", "it gave no token (200)"),
        (b"<html>welcome</html>", "it gave no token (200)"),
        (b"", "it gave no token (200)"),
        ("münze".encode(), "it gave no token (200)"),
        (b"x" * 5000, "too long"),
    ],
    ids=["portal", "page", "empty", "not ascii", "long"],
)
def test_what_answers_anything_with_200_is_not_believed(content: bytes, reason: str) -> None:
    """L24: a captive portal, or another cloud."""
    assert reason in said(web_server.body(content))


@pytest.mark.parametrize("respond", [web_server.close_in_the_middle, web_server.echo_instead_of_http])
def test_what_speaks_no_http_is_none(respond: web_server.Respond) -> None:
    assert said(respond).startswith("what answers at URL is no metadata service")


@pytest.mark.parametrize("respond", [web_server.endless, web_server.redirect("http://127.0.0.1:1/")])
def test_no_end_and_no_other_place_is_followed(respond: web_server.Respond) -> None:
    assert "metadata service" in said(respond)


def test_the_next_address_is_asked_where_nobody_answers(nobody: str) -> None:
    with serving(Imds(PATHS)) as server, serving(web_server.hang) as silent:
        assert ask("instance-type", [nobody, server.url], SECONDS) == "c5.xlarge"
        # Long enough for the one that answers, on a busy machine too.
        assert ask("instance-type", [silent.url, server.url], 3.0) == "c5.xlarge"
        with pytest.raises(MetadataError) as caught:
            ask("instance-type", [nobody, silent.url], 0.2)
    assert f"nobody answers at {nobody}: Connection refused; {silent.url} did not answer" in str(caught.value)


def test_no_other_address_is_asked_where_one_says_no() -> None:
    other = Imds(PATHS)
    with serving(Imds({})) as server, serving(other) as second, pytest.raises(MetadataError, match="404"):
        ask("instance-type", [server.url, second.url], SECONDS)
    assert other.asked == []


def test_no_proxy_sees_the_request(monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, nobody)
    assert said(Imds(PATHS)) == "c5.xlarge"


class TestWhomToAsk:
    def test_both_addresses_by_default(self) -> None:
        assert endpoints(None, {}) == [IPV4, IPV6]

    @pytest.mark.parametrize(
        ("environment", "addresses"),
        [
            ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://[::1]:1338"}, ["http://[::1]:1338"]),
            ({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv6"}, [IPV6]),
            ({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv4"}, [IPV4]),
            ({"AWS_EC2_METADATA_DISABLED": "false"}, [IPV4, IPV6]),
        ],
    )
    def test_the_variables_of_the_sdks_are_heeded(self, environment: dict[str, str], addresses: list[str]) -> None:
        assert endpoints(None, environment) == addresses
        assert endpoints("http://127.0.0.1:1", environment) == ["http://127.0.0.1:1"]

    @pytest.mark.parametrize(
        ("environment", "reason"),
        [
            ({"AWS_EC2_METADATA_DISABLED": "True"}, "AWS_EC2_METADATA_DISABLED keeps"),
            ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "imds"}, "AWS_EC2_METADATA_SERVICE_ENDPOINT: 'imds' is no address"),
            ({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "ipv9"}, "'ipv9' is neither IPv4 nor IPv6"),
        ],
    )
    def test_they_may_forbid_it_or_be_wrong(self, environment: dict[str, str], reason: str) -> None:
        with pytest.raises(MetadataError, match=reason):
            endpoints(None, environment)

    @pytest.mark.parametrize(
        "url", ["", "imds", "https://127.0.0.1", "http://", "http://a:b", "http://a/b", "http://["]
    )
    def test_an_address_that_is_none(self, url: str) -> None:
        with pytest.raises(ValueError):
            check_endpoint(url)

    def test_the_addresses_are_those_of_ec2(self) -> None:
        assert [check_endpoint(url) for url in (IPV4, IPV6)] == ["http://169.254.169.254", "http://[fd00:ec2::254]"]

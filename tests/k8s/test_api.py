"""The API server, asked by the real client over real connections."""

from __future__ import annotations

import itertools
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
import yaml
from tracarbon_k8s import _api
from tracarbon_k8s._api import Api
from tracarbon_k8s._bodies import PodList, decode_pods
from tracarbon_k8s._errors import (
    ApiAbsent,
    ApiDenied,
    ApiError,
    ApiGarbled,
    ApiGone,
    ApiUnconfigured,
    ApiUnreachable,
)

from tests.k8s import api_server
from tests.k8s.api_server import TOKEN, Cluster, Server, made_pod, respond, serving, status, write_kubeconfig
from tests.pipelines.support import wait_until

PODS = "/api/v1/pods"
METRICS = "/apis/metrics.k8s.io/v1beta1/pods"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def make_api(server: Server, tmp_path: Path) -> Iterator[Callable[..., Api]]:
    made = []

    def make(**options: Any) -> Api:
        kubeconfig = write_kubeconfig(tmp_path / "config", server.url)
        made.append(Api(**{"kubeconfig": kubeconfig, "timeout_seconds": 60.0} | options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


def names(pages: list[PodList]) -> list[str]:
    return [pod.metadata.name for page in pages for pod in page.items or ()]


def failure(api: Api, path: str = PODS, kind: type[ApiError] = ApiError) -> str:
    """What is said when it fails; never a secret, in whatever way the error is shown."""
    with pytest.raises(kind) as caught:
        api.get(path)
    assert type(caught.value) is kind
    assert TOKEN not in repr(caught.getrepr(style="long", showlocals=False))
    assert TOKEN not in repr(api)
    shown: BaseException | None = caught.value
    while shown is not None:
        assert TOKEN not in f"{shown} {shown!r}"
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
    return str(caught.value)


def test_a_credential_plugin_that_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The client logs what it said, on the root logger, and would ask as nobody."""
    path = Path(write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1"))
    content = yaml.safe_load(path.read_text())
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "interactiveMode": "Never"}
    content["users"][0]["user"] = {"exec": {**plugin, "args": ["-c", "echo SECRET-WORD >&2; exit 1"]}}
    path.write_text(yaml.safe_dump(content))
    handlers = [*logging.getLogger().handlers]
    with pytest.raises(ApiUnconfigured, match="the credential plugin"):
        Api(kubeconfig=str(path)).get("/api/v1/pods")
    assert logging.getLogger().handlers == handlers
    assert "SECRET-WORD" not in "".join(capfd.readouterr())


def test_importing_does_not_import_the_client() -> None:
    code = "import sys, tracarbon_k8s._pods as p; p.Api(); print({'kubernetes', 'urllib3'} & {*sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "set()\n"


def test_that_there_is_no_cluster_is_said_without_the_client(tmp_path: Path) -> None:
    """Importing it may take longer than the start waits."""
    code = (
        f"import sys, tracarbon_k8s._api as a; api = a.Api(kubeconfig={str(tmp_path / 'none')!r})\n"
        "try: api.get('/api/v1/pods')\n"
        "except a.ApiError as error: print(type(error).__name__, {'kubernetes', 'urllib3'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "ApiUnconfigured set()\n"


def test_one_request_with_credentials_and_query(api: Api, cluster: Cluster) -> None:
    body = api.get(PODS, {"fieldSelector": "spec.nodeName=node-real"})
    assert len(json.loads(body)["items"]) == 2
    [request] = cluster.requests
    assert request.query == {"fieldSelector": "spec.nodeName=node-real"}
    assert request.token == TOKEN


def test_one_connection_for_many_requests(api: Api, cluster: Cluster) -> None:
    for _ in range(5):
        api.get(PODS)
    with pytest.raises(ApiError):
        api.get("/api/v1/nonsense")
    api.get(PODS)
    assert cluster.connections == 1


def test_closed_it_may_be_used_again(api: Api, cluster: Cluster) -> None:
    api.get(PODS)
    api.close()
    api.close()
    api.get(PODS)
    assert cluster.connections == 2


class TestPages:
    @pytest.fixture
    def cluster(self) -> Cluster:
        return Cluster(pods=[made_pod(f"web-{number}") for number in range(7)])

    def test_all_of_them(self, api: Api, cluster: Cluster) -> None:
        pages = api.get_pages(PODS, {"resourceVersion": "0"}, decode_pods, page_items=3)
        assert names(pages) == [f"web-{number}" for number in range(7)]
        assert [request.query for request in cluster.requests] == [
            {"limit": "3", "resourceVersion": "0"},
            {"limit": "3", "continue": "3"},
            {"limit": "3", "continue": "6"},
        ]

    def test_a_server_may_answer_all_at_once(self, api: Api, cluster: Cluster) -> None:
        cluster.ignores_limit = True
        assert len(names(api.get_pages(PODS, {}, decode_pods, page_items=3))) == 7
        assert len(cluster.requests) == 1

    def test_none(self, api: Api, cluster: Cluster) -> None:
        cluster.pods = []
        assert names(api.get_pages(PODS, {}, decode_pods)) == []

    def test_gone_in_the_middle_it_begins_once_more(self, api: Api, cluster: Cluster) -> None:
        cluster.fault = api_server.gone(1)
        assert len(names(api.get_pages(PODS, {}, decode_pods, page_items=3))) == 7
        assert [request.query.get("continue") for request in cluster.requests] == [None, "3", None, "3", "6"]

    def test_gone_again_it_gives_up(self, api: Api, cluster: Cluster) -> None:
        cluster.fault = api_server.gone(2)
        with pytest.raises(ApiGone, match=r"410 to /api/v1/pods: The provided continue parameter is too old"):
            api.get_pages(PODS, {}, decode_pods, page_items=3)
        assert len(cluster.requests) == 4

    def test_without_an_end(self, api: Api, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_api, "MOST_PAGES", 5)
        cluster.fault = respond(200, {"metadata": {"continue": "again"}, "items": []})
        with pytest.raises(ApiGarbled, match="has no end after 5 pages"):
            api.get_pages(PODS, {}, decode_pods)
        assert len(cluster.requests) == 5


class TestRefusals:
    def test_401(self, api: Api, cluster: Cluster) -> None:
        cluster.token = "another"
        said = failure(api, kind=ApiDenied)
        assert "answers 401 to /api/v1/pods: Unauthorized; the token or the client certificate is not accepted" in said
        assert len(cluster.requests) == 2  # with the configuration loaded anew

    @pytest.mark.parametrize(
        ("path", "rule"),
        [
            (PODS, 'apiGroups: [""], resources: ["pods"], verbs: ["list"]'),
            (
                "/api/v1/namespaces/shop/pods",
                'apiGroups: [""], resources: ["pods"], verbs: ["list"] in the namespace shop',
            ),
            ("/api/v1/namespaces", 'apiGroups: [""], resources: ["namespaces"], verbs: ["list"]'),
            (METRICS, 'apiGroups: ["metrics.k8s.io"], resources: ["pods"], verbs: ["list"]'),
        ],
    )
    def test_403_says_which_rule_is_missing(self, api: Api, cluster: Cluster, path: str, rule: str) -> None:
        cluster.denied = {"pods", "namespaces"}
        said = failure(api, path, kind=ApiDenied)
        assert 'User "tracarbon-test" cannot list resource' in said
        assert said.endswith(f"what is missing is the rule {rule}")

    def test_404_of_the_metrics_api(self, api: Api, cluster: Cluster) -> None:
        cluster.metrics = None
        said = failure(api, METRICS, kind=ApiAbsent)
        assert "metrics-server is not installed, and usage = 'cgroup' needs none" in said

    def test_404_of_anything_else(self, api: Api) -> None:
        assert "404" in failure(api, "/api/v1/nonsense")

    def test_400(self, api: Api) -> None:
        assert failure(api, f"{PODS}?fieldSelector=spec.bogus=x").endswith("field label not supported: spec.bogus")

    @pytest.mark.parametrize("code", [429, 500, 503, 504])
    def test_it_cannot_now(self, api: Api, cluster: Cluster, code: int) -> None:
        cluster.fault = respond(code, status(code, "the server is currently unable to handle the request"))
        said = failure(api, kind=ApiUnreachable)
        assert f"answers {code}" in said
        assert "currently unable" in said
        assert len(cluster.requests) == 1  # retried at the next tick, and not before

    def test_redirects_are_not_followed(self, api: Api, cluster: Cluster, server: Server) -> None:
        cluster.fault = respond(302, b"", Location=f"{server.url}/elsewhere")
        assert "302" in failure(api)
        assert len(cluster.requests) == 1

    def test_words_of_a_refusal_are_one_line(self, api: Api, cluster: Cluster) -> None:
        cluster.fault = respond(500, status(500, "a\nb\x1b[31m" + "x" * 10_000))
        said = failure(api, kind=ApiUnreachable)
        assert said.isprintable()
        assert len(said) < 700

    def test_a_refusal_that_is_no_status(self, api: Api, cluster: Cluster) -> None:
        cluster.fault = respond(502, b"<html>Bad Gateway</html>")
        assert failure(api, kind=ApiUnreachable).endswith("answers 502 to /api/v1/pods")

    def test_a_refusal_that_repeats_the_token(self, api: Api, cluster: Cluster) -> None:
        cluster.fault = respond(500, status(500, f"who is bearer {TOKEN}?"))
        failure(api, kind=ApiUnreachable)


class TestAway:
    def test_refused(self, tmp_path: Path) -> None:
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))  # and does not listen
            port = unused.getsockname()[1]
            with closing(Api(kubeconfig=write_kubeconfig(tmp_path / "c", f"http://127.0.0.1:{port}"))) as api:
                said = failure(api, kind=ApiUnreachable)
        assert said == f"the API server 127.0.0.1:{port}: connection refused"

    def test_it_comes_back(self, tmp_path: Path, cluster: Cluster) -> None:
        with serving(cluster) as server:
            port = server.port
            api = Api(kubeconfig=write_kubeconfig(tmp_path / "c", server.url))
            api.get(PODS)
            cluster.fault = api_server.reset_at_once
            failure(api, kind=ApiUnreachable)
        failure(api, kind=ApiUnreachable)
        cluster.fault = lambda *_: False
        with serving(cluster, port=port), closing(api):
            api.get(PODS)

    def test_hanging(self, make_api: Callable[..., Api], cluster: Cluster) -> None:
        cluster.fault = api_server.hang
        assert "no answer within 0.2 s" in failure(make_api(timeout_seconds=0.2), kind=ApiUnreachable)
        wait_until(lambda: bool(cluster.requests), "the only request, which a busy server looks at later")
        assert len(cluster.requests) == 1

    def test_byte_after_byte(self, api: Api, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        cluster.fault = api_server.trickle
        seconds = itertools.count()
        monkeypatch.setattr(_api, "time", SimpleNamespace(monotonic=lambda: next(seconds)))  # one for each piece
        assert "not complete after 60 s" in failure(api, kind=ApiUnreachable)

    @pytest.mark.parametrize("fault", [api_server.reset_at_once, api_server.reset_in_the_middle])
    def test_reset(self, api: Api, cluster: Cluster, fault: Any) -> None:
        cluster.fault = fault
        assert "connection reset by peer" in failure(api, kind=ApiUnreachable)

    def test_ended_in_the_middle(self, api: Api, cluster: Cluster) -> None:
        cluster.fault = api_server.close_in_the_middle
        assert "the connection broke before the end of the answer" in failure(api, kind=ApiUnreachable)

    def test_not_http(self, api: Api, cluster: Cluster) -> None:
        cluster.fault = api_server.echo
        failure(api, kind=ApiUnreachable)

    def test_too_large(self, make_api: Callable[..., Api], cluster: Cluster) -> None:
        cluster.fault = api_server.endless
        assert "larger than 1000000 bytes" in failure(make_api(most_bytes=1_000_000), kind=ApiGarbled)

    def test_compressed_though_nobody_asked(self, api: Api, cluster: Cluster) -> None:
        cluster.fault = respond(200, b"\x1f\x8b", Content_Encoding="gzip")
        assert "compressed" in failure(api, kind=ApiGarbled)

    def test_a_name_that_nobody_knows(self, tmp_path: Path) -> None:
        with closing(Api(kubeconfig=write_kubeconfig(tmp_path / "c", "http://api.invalid:1"))) as api:
            assert failure(api, kind=ApiUnreachable) == "the API server api.invalid:1: its name is not known"


class TestConfiguration:
    @pytest.fixture(autouse=True)
    def no_cluster(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
            monkeypatch.delenv(name, raising=False)

    def test_there_is_none(self, tmp_path: Path) -> None:
        said = failure(Api(service_account=tmp_path), kind=ApiUnconfigured)
        assert said == f"this is no pod of a cluster, and there is no file {tmp_path}/home/.kube/config; " + (
            "say which by the option `kubeconfig`"
        )

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        said = failure(Api(kubeconfig=str(tmp_path / "absent")), kind=ApiUnconfigured)
        assert said.startswith(f"there is no file {tmp_path}/absent")

    def test_the_file_of_the_environment(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBECONFIG", write_kubeconfig(tmp_path / "c", server.url))
        with closing(Api(service_account=tmp_path)) as api:
            api.get(PODS)

    def test_a_context(self, server: Server, tmp_path: Path) -> None:
        kubeconfig = write_kubeconfig(tmp_path / "c", server.url, context="prod")
        with closing(Api(kubeconfig=kubeconfig, context="prod")) as api:
            api.get(PODS)
        said = failure(Api(kubeconfig=kubeconfig, context="absent"), kind=ApiUnconfigured)
        assert "Expected object with name absent" in said

    def test_a_broken_file_is_not_quoted(self, tmp_path: Path) -> None:
        (tmp_path / "c").write_text(f"users: [token: '{TOKEN}\n")
        assert "cannot be used (ScannerError)" in failure(Api(kubeconfig=str(tmp_path / "c")), kind=ApiUnconfigured)

    def test_a_malformed_token_is_not_quoted(self, server: Server, tmp_path: Path) -> None:
        kubeconfig = write_kubeconfig(tmp_path / "c", server.url, token=f"{TOKEN}\nInjected: 1")
        with closing(Api(kubeconfig=kubeconfig)) as api:
            assert "malformed" in failure(api, kind=ApiUnreachable)

    def test_the_users_file_is_left_as_it_is(self, server: Server, tmp_path: Path) -> None:
        kubeconfig = write_kubeconfig(tmp_path / "c", server.url)
        before = Path(kubeconfig).read_bytes()
        with closing(Api(kubeconfig=kubeconfig)) as api:
            api.get(PODS)
        assert Path(kubeconfig).read_bytes() == before

    def test_a_token_that_was_replaced_in_the_file(self, server: Server, cluster: Cluster, tmp_path: Path) -> None:
        kubeconfig = write_kubeconfig(tmp_path / "c", server.url)
        with closing(Api(kubeconfig=kubeconfig)) as api:
            api.get(PODS)
            cluster.token = "second"
            write_kubeconfig(tmp_path / "c", server.url, token="second")
            api.get(PODS)
        assert [request.token for request in cluster.requests] == [TOKEN] * 2 + ["second"]


class TestInCluster:
    @pytest.fixture
    def server(self, cluster: Cluster, authority: trustme.CA) -> Iterator[Server]:
        with serving(cluster, authority.issue_cert("127.0.0.1")) as running:
            yield running

    @pytest.fixture
    def account(self, server: Server, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        (tmp_path / "token").write_text(TOKEN)
        authority.cert_pem.write_to_path(tmp_path / "ca.crt")
        return tmp_path

    def test_token_and_tls(self, account: Path, cluster: Cluster) -> None:
        with closing(Api(service_account=account)) as api:
            api.get(PODS)
            assert len(cluster.requests) == 1

    def test_a_users_file_wins(self, account: Path, tmp_path: Path) -> None:
        cluster = Cluster()
        with (
            serving(cluster) as other,
            closing(Api(kubeconfig=write_kubeconfig(tmp_path / "c", other.url), service_account=account)) as api,
        ):
            api.get(PODS)
        assert len(cluster.requests) == 1

    def test_a_token_that_was_replaced_before_its_file_is_read_again(self, account: Path, cluster: Cluster) -> None:
        with closing(Api(service_account=account)) as api:
            api.get(PODS)
            cluster.token = "second"
            (account / "token").write_text("second\n")
            api.get(PODS)
            api.get(PODS)
        assert len(cluster.requests) == 4

    def test_a_token_whose_file_is_due(self, account: Path, cluster: Cluster) -> None:
        """The official client reads the file again after a minute; no request is refused on the way."""
        from kubernetes.config.incluster_config import InClusterConfigLoader

        with closing(Api(service_account=account)) as api:
            api.get(PODS)
            loader = api._client.configuration.refresh_api_key_hook.__closure__  # type: ignore[union-attr]
            [loader] = [cell.cell_contents for cell in loader if isinstance(cell.cell_contents, InClusterConfigLoader)]
            loader.token_expires_at -= loader._token_refresh_period
            (account / "token").write_text("second")
            cluster.token = "second"
            api.get(PODS)
        assert len(cluster.requests) == 2

    def test_a_token_that_is_gone(self, account: Path, cluster: Cluster) -> None:
        with closing(Api(service_account=account)) as api:
            api.get(PODS)
            cluster.token = "second"
            (account / "token").write_text("")
            assert "Token file exists but empty" in failure(api, kind=ApiUnconfigured)
            (account / "token").write_text("second")
            api.get(PODS)

    def test_a_certificate_of_somebody_else(self, account: Path, cluster: Cluster) -> None:
        trustme.CA().cert_pem.write_to_path(account / "ca.crt")
        with closing(Api(service_account=account)) as api:
            said = failure(api, kind=ApiUnreachable)
        assert "TLS fails: unable to get local issuer certificate" in said
        assert cluster.requests == []

    def test_a_server_that_does_not_speak_tls(self, account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving(Cluster()) as plain:
            monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(plain.port))
            with closing(Api(service_account=account)) as api:
                assert "TLS fails" in failure(api, kind=ApiUnreachable)


def test_a_client_that_was_given(server: Server, cluster: Cluster) -> None:
    from kubernetes import client

    configuration = client.Configuration(host=server.url)
    configuration.api_key["authorization"] = f"bearer {TOKEN}"
    with client.ApiClient(configuration) as given:
        with closing(Api(client=given)) as api:
            api.get(PODS)
        cluster.token = "another"
        failure(api, kind=ApiDenied)
        assert len(cluster.requests) == 2  # its configuration is not ours to load anew
        given.rest_client.pool_manager.clear()


def test_a_proxy_of_the_environment_is_the_clients_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Cluster, server: Server
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("HTTP_PROXY", server.url)  # which alone older clients read
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with closing(Api(kubeconfig=write_kubeconfig(tmp_path / "c", "http://api.invalid"))) as api:
        api.get(PODS)
    assert len(cluster.requests) == 1


def test_threads_may_share_it(api: Api, cluster: Cluster) -> None:
    from concurrent.futures import ThreadPoolExecutor

    cluster.token = "second"
    write_kubeconfig(Path(str(api._kubeconfig)), _url(api, cluster), token="second")
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(lambda _: api.get(PODS), range(40)))
    assert len(set(bodies)) == 1


def _url(api: Api, cluster: Cluster) -> str:
    import yaml

    content = yaml.safe_load(Path(str(api._kubeconfig)).read_text())
    url: str = content["clusters"][0]["cluster"]["server"]
    return url

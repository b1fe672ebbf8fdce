"""An API server on the loopback: it replays what a real one said, in pages, by selectors, and with faults."""

from __future__ import annotations

import copy
import json
import socket
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import trustme
import yaml

from tests.support.web_server import LoopbackServer, running

RECORDED = Path(__file__).parent / "recorded"
TOKEN = "SECRET-token-of-the-test"

Json: TypeAlias = dict[str, Any]


def recorded(name: str) -> Json:
    found: Json = json.loads((RECORDED / name).read_text())
    return found


def made_pod(
    name: str,
    *,
    namespace: str = "shop",
    node: str = "node-real",
    uid: str | None = None,
    containers: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    owner: tuple[str, str] | None = None,
    request: str = "500m",
) -> Json:
    """A pod made from a recorded one that a kubelet runs, of ordinary birth.

    Args:
        containers: ids by name.
        owner: kind and name.
    """
    pod = copy.deepcopy(recorded("pods_node-real.json")["items"][0])
    ids = {"main": f"{name}-main"} if containers is None else containers
    metadata, spec, status = pod["metadata"], pod["spec"], pod["status"]
    metadata |= {"name": name, "namespace": namespace, "uid": uid or f"uid-of-{name}", "labels": labels or {}}
    del metadata["annotations"], metadata["ownerReferences"]
    if owner is not None:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": owner[0], "name": owner[1], "controller": True}]
    spec["nodeName"] = node
    spec["containers"] = [spec["containers"][0] | {"name": each} for each in ids]
    for container in spec["containers"]:
        container["resources"] = {"requests": {"cpu": request}}
    status["containerStatuses"] = [
        status["containerStatuses"][0] | {"name": each, "containerID": f"containerd://{ids[each]}"} for each in ids
    ]
    return pod


def made_metrics(pod: Json, cpu: str = "250m", memory: str = "64Mi") -> Json:
    found: Json = copy.deepcopy(recorded("podmetrics_crd.json")["items"][0])
    found["metadata"] |= {"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
    found["containers"] = [
        {"name": container["name"], "usage": {"cpu": cpu, "memory": memory}} for container in pod["spec"]["containers"]
    ]
    return found


@dataclass
class Request:
    """What was asked for."""

    path: str
    query: dict[str, str]
    token: str


@dataclass
class Cluster:
    """What the server knows, and how it is to behave. Change it while the server runs.

    Attributes:
        pods: of all nodes.
        metrics: of pods; `None`: there is no metrics-server.
        denied: resources that may not be listed (403).
        token: the only one that is accepted.
        ignores_limit: answers a list whole, as the cache of a real one may.
        fault: called with each request before it is answered; whether it has dealt with it.
        requests: everything that was asked for.
        connections: how many there were.
    """

    pods: list[Json] = field(default_factory=lambda: recorded("pods_node-real.json")["items"])
    namespaces: list[Json] = field(default_factory=lambda: recorded("namespaces.json")["items"])
    metrics: list[Json] | None = field(default_factory=lambda: recorded("podmetrics_crd.json")["items"])
    denied: set[str] = field(default_factory=set)
    token: str = TOKEN
    ignores_limit: bool = False
    fault: Callable[[Handler, Request], bool] = lambda *_: False
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    def answer(self, request: Request) -> tuple[int, Json]:
        if request.token != self.token:
            return 401, recorded("error_401.json")
        parts = request.path.strip("/").split("/")
        if parts[-1] in self.denied or request.path in self.denied:
            return 403, self._forbidden(parts)
        namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts[:-1] else None
        if parts[:2] == ["api", "v1"] and parts[-1] == "pods":
            return self._page(request, self.pods, "PodList", namespace)
        if request.path == "/api/v1/namespaces":
            return self._page(request, self.namespaces, "NamespaceList", None)
        if parts[0] == "apis" and parts[1] == "metrics.k8s.io" and parts[-1] == "pods" and self.metrics is not None:
            return self._page(request, self.metrics, "PodMetricsList", namespace)
        return 404, recorded("error_404.json")

    def _page(self, request: Request, items: list[Json], kind: str, namespace: str | None) -> tuple[int, Json]:
        query = request.query
        if namespace is not None:
            items = [item for item in items if item["metadata"]["namespace"] == namespace]
        for selector in filter(None, query.get("fieldSelector", "").split(",")):
            name, _, value = selector.partition("=")
            if name != "spec.nodeName" or kind != "PodList":
                message = f"field label not supported: {name}"
                return 400, recorded("error_400_fieldselector.json") | {"message": message}
            items = [item for item in items if item["spec"].get("nodeName") == value]
        if query.get("continue") and query.get("resourceVersion"):
            return 400, status(400, "specifying resource version is not allowed when using continue")
        begin = int(query.get("continue") or 0)
        end = begin + int(query.get("limit") or len(items))
        if self.ignores_limit:
            end = len(items)
        metadata: Json = {"resourceVersion": "305"}
        if end < len(items):
            metadata |= {"continue": str(end), "remainingItemCount": len(items) - end}
        return 200, {"kind": kind, "apiVersion": "v1", "metadata": metadata, "items": items[begin:end] or None}

    def _forbidden(self, parts: list[str]) -> Json:
        group = "" if parts[0] == "api" else parts[1]
        message = (
            recorded("error_403.json")["message"].replace("pods", parts[-1]).replace('group ""', f'group "{group}"')
        )
        return recorded("error_403.json") | {"message": message}

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]


def status(code: int, message: str) -> Json:
    return recorded("error_404.json") | {"code": code, "message": message, "reason": ""}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        self.server.cluster.connections += 1
        super().setup()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        request = Request(parts.path, dict(parse_qsl(parts.query)), _token(self.headers))
        cluster = self.server.cluster
        cluster.requests.append(request)
        if not cluster.fault(self, request):
            code, body = cluster.answer(request)
            self.answer(code, json.dumps(body).encode())

    def answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in ({"Content_Length": str(len(body)), "Content_Type": "application/json"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def _token(headers: Message) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""


class Server(LoopbackServer):
    """The API server of a cluster."""

    def __init__(self, cluster: Cluster, certificate: trustme.LeafCert | None = None, port: int = 0) -> None:
        super().__init__(Handler, certificate, ("127.0.0.1", port))
        self.cluster = cluster
        self.port: int = self.server_address[1]


def serving(
    cluster: Cluster, certificate: trustme.LeafCert | None = None, port: int = 0
) -> AbstractContextManager[Server]:
    """Answer on the loopback."""
    return running(Server(cluster, certificate, port))


def write_kubeconfig(path: Path, url: str, token: str = TOKEN, context: str = "test") -> str:
    """Write a user's file, and return its name."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": token}}],
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def hang(handler: Handler, _: Request) -> bool:
    return handler.server.ended.wait(120)


def reset_at_once(handler: Handler, _: Request) -> bool:
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    return True


def close_in_the_middle(handler: Handler, _: Request) -> bool:
    handler.answer(200, b'{"kind": "PodList", "items": [', Content_Length="1000")
    handler.close_connection = True
    return True


def reset_in_the_middle(handler: Handler, request: Request) -> bool:
    handler.answer(200, b'{"kind": "PodList", "items": [', Content_Length="1000")
    return reset_at_once(handler, request)


def trickle(handler: Handler, _: Request) -> bool:
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.ended.wait(0.01):
        handler.wfile.write(b" ")
    return True


def endless(handler: Handler, _: Request) -> bool:
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.ended.is_set():
        handler.wfile.write(b" " * 65_536)
    return True


def echo(handler: Handler, request: Request) -> bool:
    """Answer with the caller's secret in place of HTTP."""
    handler.wfile.write(f"garbage {request.token}\r\n\r\n".encode())
    handler.close_connection = True
    return True


def respond(code: int, body: bytes | Json, **headers: str) -> Callable[[Handler, Request], bool]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def fault(handler: Handler, _: Request) -> bool:
        handler.answer(code, content, **headers)
        return True

    return fault


def gone(times: int = 1) -> Callable[[Handler, Request], bool]:
    """Pages other than the first are gone, some times."""
    left = [times]

    def fault(handler: Handler, request: Request) -> bool:
        if "continue" not in request.query or left[0] == 0:
            return False
        left[0] -= 1
        handler.answer(410, json.dumps(status(410, "The provided continue parameter is too old")).encode())
        return True

    return fault

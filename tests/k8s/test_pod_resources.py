"""The kubelet's pod-resources service: a real gRPC server on a Unix socket, and one that misbehaves."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon_k8s import _pod_resources
from tracarbon_k8s._pod_resources import MOST_BYTES, Held, PodResourcesError, card_of, decode_list

grpc = pytest.importorskip("grpc")

CARD = "GPU-0b1a9e52-4d5b-0a63-7d0a-9f2f4ed3a2c1"
OTHER = "GPU-fef8089b-4820-abfc-e83e-94318197576e"
PART = "MIG-c7384736-a75d-5afc-978f-d2f1294409fd"


def cards_by_holder(path: str, timeout_seconds: float = 60.0) -> object:
    return _pod_resources.cards_by_holder(path, timeout_seconds)


def varint(number: int) -> bytes:
    more = b""
    while number > 0x7F:
        more += bytes([number & 0x7F | 0x80])
        number >>= 7
    return more + bytes([number])


def part(number: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def encode(held: list[Held], extra: bytes = b"") -> bytes:
    """A response with a pod for each; `extra` are fields that newer kubelets may send, in every message."""
    body = extra
    for each in held:
        devices = part(1, each.resource_name) + b"".join(part(2, device) for device in each.device_ids) + extra
        container = part(1, each.container) + part(2, devices) + extra
        body += part(1, part(1, each.pod) + part(2, each.namespace) + part(3, container) + extra)
    return body


NEWER = (
    part(4, b"memory")
    + varint(3 << 3)
    + varint(2**64 - 1)
    + varint(90 << 3 | 1)
    + bytes(8)
    + varint(91 << 3 | 5)
    + bytes(4)
)
"""A message, a number, and numbers of 8 and 4 bytes, at field numbers that no text of ours has."""


@contextmanager
def kubelet(path: Path, answer: Callable[[bytes, Any], bytes], method: str = "List") -> Iterator[str]:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, options=[("grpc.max_send_message_length", -1)])
        handler = grpc.unary_unary_rpc_method_handler(answer)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("v1.PodResourcesLister", {method: handler})]
        )
        assert server.add_insecure_port(f"unix:{path}")
        server.start()
        try:
            yield str(path)
        finally:
            server.stop(None).wait()


def held(container: str, *devices: str, resource: str = "nvidia.com/gpu", pod: str = "train-0") -> Held:
    return Held("ml", pod, container, resource, devices)


def test_who_holds_what(tmp_path: Path) -> None:
    body = encode(
        [
            held("main", CARD, OTHER),
            held("main", PART, resource="nvidia.com/mig-1g.5gb"),
            held("side", f"{CARD}::3", f"{CARD}::4", resource="nvidia.com/gpu.shared"),
            held("net", "0000:03:00.1", resource="intel.com/sriov", pod="router"),
            held("idle", pod="web"),
        ]
    )
    asked = []

    def answer(request: bytes, _: Any) -> bytes:
        asked.append(request)
        return body

    with kubelet(tmp_path / "kubelet.sock", answer) as path:
        assert cards_by_holder(path) == {
            ("ml", "train-0", "main"): (CARD, OTHER, PART),
            ("ml", "train-0", "side"): (CARD,),
        }
    assert asked == [b""]


def test_nobody_holds_any(tmp_path: Path) -> None:
    with kubelet(tmp_path / "kubelet.sock", lambda *_: b"") as path:
        assert cards_by_holder(path) == {}


def test_no_socket_no_knowledge(tmp_path: Path) -> None:
    assert cards_by_holder(str(tmp_path / "absent.sock")) is None


def test_asked_again_and_again(tmp_path: Path) -> None:
    with kubelet(tmp_path / "kubelet.sock", lambda *_: encode([held("main", CARD)])) as path:
        for _ in range(20):
            assert cards_by_holder(path) == {("ml", "train-0", "main"): (CARD,)}


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with kubelet(tmp_path / "kubelet.sock", lambda *_: b""):
        assert cards_by_holder("kubelet.sock") == {}


def test_hanging(tmp_path: Path) -> None:
    ended = threading.Event()
    remaining = []

    def answer(_: bytes, context: Any) -> bytes:
        remaining.append(context.time_remaining())
        ended.wait(120)
        return b""

    with kubelet(tmp_path / "kubelet.sock", answer) as path:
        for _ in range(300):
            with pytest.raises(PodResourcesError, match=r"kubelet\.sock does not answer within 0\.2 s"):
                cards_by_holder(path, timeout_seconds=0.2)
            if remaining:  # a busy machine may take longer than that for the question alone
                break
        ended.set()
    assert remaining[0] < 1  # the server is told how long it has


def test_a_socket_that_nobody_answers(tmp_path: Path) -> None:
    path = str(tmp_path / "kubelet.sock")
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(path)
        listening.listen(1)
        with pytest.raises(PodResourcesError, match=r"does not answer within 0\.2 s"):
            cards_by_holder(path, timeout_seconds=0.2)


def test_a_socket_that_was_left_behind_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "kubelet.sock"
    with closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(path))
    with pytest.raises(PodResourcesError, match="is not there, or may not be used by this user"):
        cards_by_holder(str(path))
    path.unlink()
    with kubelet(path, lambda *_: encode([held("main", CARD)])):
        assert cards_by_holder(str(path)) == {("ml", "train-0", "main"): (CARD,)}


def test_an_older_kubelet(tmp_path: Path) -> None:
    with (
        kubelet(tmp_path / "kubelet.sock", lambda *_: b"", method="Other") as path,
        pytest.raises(PodResourcesError, match="does not know version 1 of this service"),
    ):
        cards_by_holder(path)


def test_it_fails(tmp_path: Path) -> None:
    def answer(_: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
        raise AssertionError

    with (
        kubelet(tmp_path / "kubelet.sock", answer) as path,
        pytest.raises(PodResourcesError, match="fails: resource exhausted"),
    ):
        cards_by_holder(path)


@pytest.mark.parametrize(
    "body",
    [b"\xff", b"\x0a\x05abc", b"<html>", part(1, b"\xff" * 11), encode([held("main")]).replace(b"main", b"\xff" * 4)],
)
def test_garbage(tmp_path: Path, body: bytes) -> None:
    with (
        kubelet(tmp_path / "kubelet.sock", lambda *_: body) as path,
        pytest.raises(PodResourcesError, match="no list of the resources of pods"),
    ):
        cards_by_holder(path)


def test_too_large(tmp_path: Path) -> None:
    with (
        kubelet(tmp_path / "kubelet.sock", lambda *_: bytes(MOST_BYTES + 1)) as path,
        pytest.raises(PodResourcesError, match="fails: resource exhausted"),
    ):
        cards_by_holder(path)


def test_without_grpcio(tmp_path: Path) -> None:
    (tmp_path / "kubelet.sock").touch()
    code = f"""
import sys
import tracarbon_k8s._pod_resources as module
assert "grpc" not in sys.modules
sys.modules["grpc"] = None
try:
    module.cards_by_holder({str(tmp_path / "kubelet.sock")!r})
except module.PodResourcesError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "to learn who holds which GPU: pip install tracarbon-k8s[gpu]\n"


@pytest.mark.parametrize(
    ("device", "card"),
    [
        (CARD, CARD),
        (f"{CARD}::3", CARD),
        (PART, PART),
        (f"{PART}::0", PART),
        (f"MIG-{CARD}/1/0", CARD),
        (f"MIG-{CARD}/1/0::2", CARD),
        ("0000:03:00.1", None),
        ("", None),
        ("0", None),
    ],
)
def test_devices(device: str, card: str | None) -> None:
    assert card_of(device) == card


texts = st.text(max_size=200)
holdings = st.builds(Held, texts, texts, texts, texts, st.lists(texts, max_size=4).map(tuple))


@given(st.lists(holdings, max_size=4))
def test_what_is_encoded_is_decoded(held: list[Held]) -> None:
    assert decode_list(encode(held)) == held
    assert decode_list(encode(held, NEWER)) == held


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_one_error(body: bytes) -> None:
    try:
        decode_list(body)
    except PodResourcesError as error:
        assert error.__suppress_context__ or error.__context__ is None


@given(st.lists(holdings, min_size=1, max_size=2), st.data())
def test_what_is_cut_off_is_an_error(held: list[Held], data: st.DataObject) -> None:
    body = encode(held)
    whole = {0, *(len(encode(held[:count])) for count in range(1, len(held) + 1))}
    cut = data.draw(st.integers(1, len(body) - 1).filter(lambda position: position not in whole))
    with pytest.raises(PodResourcesError):
        decode_list(body[:cut])

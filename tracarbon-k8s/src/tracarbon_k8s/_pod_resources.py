"""Who holds which graphics card, as the kubelet says: its pod-resources service, version 1.

The few fields that are of interest are read from the wire format by hand: what protoc would generate is tied to
versions of the library `protobuf`, for one message that has not changed its numbers since it was made.
Messages: https://github.com/kubernetes/kubelet/blob/master/pkg/apis/podresources/v1/api.proto
Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

SOCKET: Final = "/var/lib/kubelet/pod-resources/kubelet.sock"
MOST_BYTES: Final = 16 * 2**20
"""What the kubelet's own client takes at the utmost."""
_METHOD: Final = "/v1.PodResourcesLister/List"
_MASK_64: Final = 2**64 - 1

Holder: TypeAlias = tuple[str, str, str]
"""Namespace, pod and container."""


class PodResourcesError(Exception):
    """The kubelet does not say who holds what."""


class Held(NamedTuple):
    """Devices of one resource that a container holds."""

    namespace: str
    pod: str
    container: str
    resource_name: str
    device_ids: tuple[str, ...]


def cards_by_holder(socket: str = SOCKET, timeout_seconds: float = 5.0) -> Mapping[Holder, tuple[str, ...]] | None:
    """Return the UUIDs of the graphics cards that each container holds. Blocks.

    A card in time slices is held by several containers. A part of a card (MIG) keeps its own UUID, `MIG-…`.

    Args:
        socket: path of the kubelet's socket.
        timeout_seconds: how long it may take.

    Returns:
        Of containers that hold any; `None` where there is no such socket, and nothing is known.

    Raises:
        PodResourcesError: the kubelet does not answer, or not in this language; or grpcio is not installed.
    """
    if not Path(socket).exists():
        return None
    found: dict[Holder, dict[str, None]] = {}
    for held in decode_list(_ask(socket, timeout_seconds)):
        cards = [card for device in held.device_ids if (card := card_of(device)) is not None]
        if cards:
            found.setdefault((held.namespace, held.pod, held.container), {}).update(dict.fromkeys(cards))
    return {holder: tuple(cards) for holder, cards in found.items()}


def card_of(device_id: str) -> str | None:
    """Return the UUID of the card that a device is, or is a time slice of; `None` if it is no card.

    Args:
        device_id: `GPU-<uuid>`, `MIG-<uuid>`, `MIG-GPU-<uuid>/1/0` of older drivers; with `::<number>` where a card is
            handed out more than once.
    """
    card = device_id.partition("::")[0]
    if card.startswith("MIG-GPU-"):
        return card.removeprefix("MIG-").partition("/")[0]
    return card if card.startswith(("GPU-", "MIG-")) else None


def decode_list(body: bytes) -> list[Held]:
    """Return the devices of a `ListPodResourcesResponse`.

    Raises:
        PodResourcesError: it is none.
    """
    try:
        return [
            Held(_text(pod, 2), _text(pod, 1), _text(container, 1), _text(devices, 1), tuple(_texts(devices, 2)))
            for pod in map(_message, _all(_message(body), 1))
            for container in map(_message, _all(pod, 3))
            for devices in map(_message, _all(container, 2))
        ]
    except (ValueError, IndexError):
        fault = "the kubelet's answer is no list of the resources of pods"
    raise PodResourcesError(fault)


def _ask(socket: str, timeout_seconds: float) -> bytes:
    try:
        grpc: Any = import_module("grpc")
    except ImportError:
        raise PodResourcesError("to learn who holds which GPU: pip install tracarbon-k8s[gpu]") from None
    options = [("grpc.max_receive_message_length", MOST_BYTES)]
    with grpc.insecure_channel(f"unix:{socket}", options=options) as channel:
        try:
            answer: bytes = channel.unary_unary(_METHOD)(b"", timeout=timeout_seconds)
            return answer
        except grpc.RpcError as error:
            code = error.code()
    said = {
        grpc.StatusCode.DEADLINE_EXCEEDED: f"does not answer within {timeout_seconds:g} s",
        grpc.StatusCode.UNAVAILABLE: "is not there, or may not be used by this user",
        grpc.StatusCode.UNIMPLEMENTED: "does not know version 1 of this service, which it has since Kubernetes 1.20",
    }.get(code, f"fails: {code.name.lower().replace('_', ' ')}")
    raise PodResourcesError(f"the kubelet behind {socket} {said}")


_Message: TypeAlias = list[tuple[int, bytes]]
"""Numbers and contents of the fields that have a length; texts and messages have."""


def _message(body: bytes) -> _Message:
    return list(_fields(body))


def _fields(body: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(body):
        tag, position = _varint(body, position)
        number, kind = tag >> 3, tag & 7
        if number == 0 or kind not in (0, 1, 2, 5):
            raise ValueError("no field")
        if kind == 0:
            _, position = _varint(body, position)
            continue
        length = 8 if kind == 1 else 4
        if kind == 2:
            length, position = _varint(body, position)
        if position + length > len(body):
            raise ValueError("cut off")
        if kind == 2:
            yield number, body[position : position + length]
        position += length


def _varint(body: bytes, position: int) -> tuple[int, int]:
    """Return the number that begins at a position, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK_64, position
    raise ValueError("too long")


def _all(message: _Message, number: int) -> list[bytes]:
    return [content for field, content in message if field == number]


def _texts(message: _Message, number: int) -> list[str]:
    return [content.decode() for content in _all(message, number)]


def _text(message: _Message, number: int) -> str:
    """Return the last one, as the format wants it, or an empty one."""
    return ["", *_texts(message, number)][-1]

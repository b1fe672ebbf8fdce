"""The power sensors that LibreHardwareMonitor shows on its web server, as watts of the parts of the machine.

Its tree is that of its window: computer, hardware, kind of sensor, sensor. A sensor has an identifier such as
`/intelcpu/0/power/0`, a text such as `CPU Package`, and a value as text in the language of the user (`35,1 W`); newer
versions have it as a number, too.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tracarbon._addresses import is_web_address
from tracarbon._text import has_gaps
from tracarbon.exceptions import TracarbonException
from tracarbon.hardwares.energy import Device, Fidelity, Scope, UsageType

ADDRESS = "http://127.0.0.1:8085/data.json"

_LONGEST_ANSWER = 8 * 1024 * 1024
_LONGEST_SHOWN = 200
_DEEPEST = 20
_MEASURED = Fidelity.MEASURED
_IDENTIFIER = re.compile(r"(?P<hardware>/(?P<maker>[a-z-]+)/(?P<number>[^/]+)(?:/[^/]+)*?)/power/\d+", re.ASCII)
_WATTS = re.compile(
    r"(?P<whole>[0-9]+|[0-9]{1,3}(?P<group>[.,'\u2019\s])[0-9]{3}(?:(?P=group)[0-9]{3})*)"
    r"(?:(?P<point>[.,])(?P<fraction>[0-9]+))?\s*W"
)
"""As any language writes it: `65.3 W`, `65,3 W`, `1,265.0 W`, `1.265,0 W`, `1 265,0 W` with whatever space."""
_PROCESSORS = ("intelcpu", "amdcpu")
_CARDS = ("gpu-nvidia", "gpu-amd", "gpu-intel-discrete")
# What a card draws in all, under the names that there are for it.
_WHOLE_CARD = ("GPU Package", "GPU Power", "GPU Board Power")


class PowerSensor(NamedTuple):
    """A power sensor of the tree.

    Attributes:
        hardware: identifier of what it is of, such as `/intelcpu/0`.
        maker: its first word, such as `intelcpu`.
        number: its second, such as `0`.
        hardware_name: such as `AMD Ryzen 7 5800X`.
        text: such as `CPU Package`.
        watts: what it shows.
    """

    hardware: str
    maker: str
    number: str
    hardware_name: str
    text: str
    watts: float


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the credentials are for the address that was given, and for no other."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Return no further request."""


def check_address(url: str) -> None:
    """See that `url` is one that can be asked.

    Raises:
        ValueError: it is none, or has credentials, which are not repeated; says what is wrong.
    """
    if not _is_address(url):
        raise ValueError(f"it is no address of a web server, which is like {ADDRESS}")
    if "@" in urllib.parse.urlsplit(url).netloc:
        raise ValueError("user and password are options of their own, and no part of the address")


def _is_address(url: str) -> bool:
    if not is_web_address(url) or has_gaps(url):
        return False
    parts = urllib.parse.urlsplit(url)
    return (parts.path + parts.query).isascii()


def fetch(url: str, timeout_seconds: float, user: str = "", password: str = "") -> object:
    """Return the tree that an address answers with; blocks. No proxy is used, and no redirection followed.

    Raises:
        TracarbonException: nobody answers in time, or not with a tree; says what to do.
    """
    content = _content(_request(url, user, password), url, timeout_seconds)
    try:
        tree: object = json.loads(content)
    except (ValueError, RecursionError):
        raise TracarbonException(f"what answers at {url} is no LibreHardwareMonitor: it gives no JSON") from None
    if not (isinstance(tree, Mapping) and "Text" in tree and isinstance(tree.get("Children"), list)):
        raise TracarbonException(
            f"what answers at {url} is no LibreHardwareMonitor: its JSON is no tree of sensors; "
            "the address usually ends in /data.json"
        )
    return tree


def _request(url: str, user: str, password: str) -> urllib.request.Request:
    request = urllib.request.Request(url)
    if user:
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
        request.add_header("Authorization", f"Basic {credentials}")
    return request


def _content(request: urllib.request.Request, url: str, timeout_seconds: float) -> bytearray:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    deadline, content = time.monotonic() + timeout_seconds, bytearray()
    try:
        with opener.open(request, timeout=timeout_seconds) as answer:
            while len(content) < _LONGEST_ANSWER and (part := answer.read1()):
                content += part
                if time.monotonic() > deadline:
                    raise TimeoutError("it answers too slowly")
        return content
    except urllib.error.HTTPError as error:
        error.close()
        raise TracarbonException(f"LibreHardwareMonitor at {url} {_refusal(error, url)}") from None
    except http.client.HTTPException:
        raise TracarbonException(f"what answers at {url} is no LibreHardwareMonitor: it speaks no HTTP") from None
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or str(error) or type(error).__name__
        raise TracarbonException(
            f"LibreHardwareMonitor does not answer at {url} ({reason}); start it, and Options > Remote Web Server"
        ) from None


def _refusal(error: urllib.error.HTTPError, url: str) -> str:
    location = error.headers.get("Location") if 300 <= error.code < 400 else None
    if location:
        target = urllib.parse.urljoin(url, location)
        shown = "".join(c if c.isprintable() else "?" for c in target)[:_LONGEST_SHOWN]
        return f"answers with a redirection to {shown}, which is not followed; give that address as url"
    return f"answered {error.code}{'; set user and password' if error.code == 401 else ''}"


def power_sensors(tree: object) -> Iterator[PowerSensor]:
    """Find the power sensors of a tree that have a value."""
    yield from _below(tree, "", 0)


def _below(node: object, hardware_name: str, depth: int) -> Iterator[PowerSensor]:
    if not isinstance(node, Mapping) or depth > _DEEPEST:
        return
    text = str(node.get("Text", ""))
    match = _IDENTIFIER.fullmatch(str(node.get("SensorId", "")))
    watts = _watts(node) if match else None
    if match and watts is not None:
        yield PowerSensor(match["hardware"], match["maker"], match["number"], hardware_name, text, watts)
    children = node.get("Children")
    is_group = text in ("Powers", "Load", "Clocks", "Temperatures") or "SensorId" in node
    for child in children if isinstance(children, list) else ():
        yield from _below(child, hardware_name if is_group else text, depth + 1)


def _watts(node: Mapping[str, Any]) -> float | None:
    raw = node.get("RawValue")
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw) if 0 <= raw <= sys.float_info.max else None
    for text in (raw, node.get("Value")):
        match = _WATTS.fullmatch(text) if isinstance(text, str) else None
        if match and not (match["group"] and match["group"] == match["point"]):
            whole = "".join(c for c in match["whole"] if c.isdigit())
            return float(f"{whole}.{match['fraction'] or 0}")
    return None


def devices_of(sensors: Iterator[PowerSensor], *, with_nvidia: bool) -> dict[Device, float]:
    """Return the parts of the machine that a tree has figures of, and their watts; none is contained twice.

    Args:
        sensors: of the tree.
        with_nvidia: whether the cards of NVIDIA count.
    """
    found: dict[Device, float] = {}
    cards: dict[str, list[PowerSensor]] = {}
    for sensor in sensors:
        if sensor.maker in _PROCESSORS:
            device = _part_of_processor(sensor)
            if device is not None:
                found[device] = sensor.watts
        elif sensor.maker in _CARDS and (with_nvidia or sensor.maker != "gpu-nvidia"):
            cards.setdefault(sensor.hardware, []).append(sensor)
    packages = [device.name for device in found if device.name.startswith("package-")]
    for of_card in cards.values():
        whole = [sensor for text in _WHOLE_CARD for sensor in of_card if sensor.text == text]
        if whole:
            found[_card(whole[0], packages)] = whole[0].watts
    return found


def _part_of_processor(sensor: PowerSensor) -> Device | None:
    package = f"package-{sensor.number}"
    match sensor.text:
        case "CPU Package" | "Package":
            return Device(package, UsageType.CPU, Scope.HOST, fidelity=_MEASURED)
        case "CPU Memory":
            return Device(f"dram-{sensor.number}", UsageType.MEMORY, Scope.HOST, fidelity=_MEASURED)
        case "CPU Graphics":
            return Device(f"uncore-{sensor.number}", UsageType.GPU, Scope.DETAIL, package, _MEASURED)
        case "CPU Platform":
            return Device("psys", UsageType.HOST, Scope.WHOLE_MACHINE, fidelity=_MEASURED)
    return None


def _card(sensor: PowerSensor, packages: list[str]) -> Device:
    """Return the device of a card; the graphics part of an AMD processor looks like one, and lies in the package."""
    name = sensor.hardware.strip("/").replace("/", "-")
    if sensor.maker == "gpu-amd" and sensor.hardware_name.endswith("Graphics") and packages:
        return Device(name, UsageType.GPU, Scope.DETAIL, packages[0], _MEASURED)
    tags = (("name", sensor.hardware_name), ("id", sensor.hardware))
    return Device(name, UsageType.GPU, Scope.EXTRA, None, _MEASURED, tags)

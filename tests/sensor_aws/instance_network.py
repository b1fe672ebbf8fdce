"""Runs a command on a network of its own, where the metadata service is what the test says at its true addresses.

`python -m tests.sensor_aws.instance_network SITUATION PATHS COMMAND...`; needs root, and a new network namespace.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext

from tests.sensor_aws.imds import Imds
from tests.support.web_server import Server, serving

ADDRESSES = {"ipv4": ("169.254.169.254", "32"), "ipv6": ("fd00:ec2::254", "128"), "refused": ("169.254.169.254", "32")}
# A default route to a neighbour that takes every packet and says nothing.
SILENT = (
    "link add v0 type veth peer name v1",
    "addr add 192.0.2.1/24 dev v0",
    "link set v0 up",
    "link set v1 up",
    "neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev v0",
    "route add default via 192.0.2.2",
)


def main(situation: str, paths: str, *command: str) -> int:
    ip("link set lo up")
    if situation in ADDRESSES:
        address, bits = ADDRESSES[situation]
        ip(f"addr add {address}/{bits} dev lo")
    elif situation == "silent":
        for line in SILENT:
            ip(line)
    with service(situation, json.loads(paths)):
        return subprocess.run(command, check=False).returncode


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


def service(situation: str, paths: dict[str, str]) -> AbstractContextManager[Server | None]:
    if situation not in ("ipv4", "ipv6"):
        return nullcontext()
    return serving(Imds(paths), address=(ADDRESSES[situation][0], 80))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

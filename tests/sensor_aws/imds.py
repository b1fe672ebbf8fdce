"""An instance metadata service as strict as the real one, and as broken as it can be."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.web_server import Handler

LONGEST_TTL_SECONDS = 21_600


@dataclass
class Imds:
    """Answers under `/latest/meta-data/` to whoever shows a token that is still good; version 1 is off.

    Attributes:
        paths: what there is.
        clock: monotonic seconds.
        asked: method and path of each request.
    """

    paths: dict[str, str]
    clock: Callable[[], float] = time.monotonic
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tokens: dict[str, float] = {}

    def __call__(self, handler: Handler) -> None:
        self.asked.append((handler.command, handler.path))
        if handler.command == "PUT":
            self._give_token(handler)
        else:
            self._tell(handler)

    def _give_token(self, handler: Handler) -> None:
        ttl = handler.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if handler.headers.get("X-Forwarded-For"):
            handler.answer(b"", 403)
        elif handler.path != "/latest/api/token" or not ttl.isdigit() or not 1 <= int(ttl) <= LONGEST_TTL_SECONDS:
            handler.answer(b"", 400)
        else:
            token = secrets.token_urlsafe(40)
            self._tokens[token] = self.clock() + int(ttl)
            handler.answer(token.encode(), X_aws_ec2_metadata_token_ttl_seconds=ttl)

    def _tell(self, handler: Handler) -> None:
        token = handler.headers.get("X-aws-ec2-metadata-token", "")
        if self._tokens.get(token, 0.0) <= self.clock():
            handler.answer(b"", 401)
            return
        said = self.paths.get(handler.path.removeprefix("/latest/meta-data/").rstrip("/"))
        handler.answer(b"" if said is None else said.encode(), 404 if said is None else 200)


def ec2_machine(root: Path, instance_type: str = "m5.large") -> Path:
    """Lay out what the firmware of a Nitro instance says, below `root`."""
    return firmware(root, sys_vendor="Amazon EC2", product_name=instance_type)


def xen_machine(root: Path) -> Path:
    """Lay out what a Xen instance says, which is not its type."""
    firmware(root, sys_vendor="Xen", product_name="HVM domU")
    (root / "sys/hypervisor").mkdir(parents=True)
    (root / "sys/hypervisor/uuid").write_text("ec2e1916-9099-7caf-fd21-012345abcdef\n")
    return root


def firmware(root: Path, **said: str) -> Path:
    """Lay out what firmware says, below `root`."""
    folder = root / "sys/class/dmi/id"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in said.items():
        (folder / name).write_text(f"{text}\n")
    return root

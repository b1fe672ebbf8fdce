"""A real Prometheus on the loopback that scrapes one target often, and promtool; Debian's package `prometheus`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

_DEADLINE_SECONDS = 60.0

Sample: TypeAlias = tuple[float, float]
"""Seconds since the epoch, and the value."""


def unavailable() -> str | None:
    """Return why there is no real Prometheus here, or `None` if there is."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    return f"{' and '.join(missing)}: not installed (Debian's package prometheus)" if missing else None


def promtool(*arguments: str | Path, stdin: str | None = None) -> tuple[int, str]:
    """Run promtool; returns its exit status and all that it said."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


@dataclass(frozen=True)
class Series:
    """What a query answers for one set of labels."""

    labels: dict[str, str]
    samples: list[Sample]

    @property
    def value(self) -> float:
        """The newest value."""
        return self.samples[-1][1]


class Prometheus:
    """Asks a running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[Series]:
        """Return what a query answers now: values, or, for a range, the raw samples as they were scraped.

        Raises:
            AssertionError: it is no valid query, or it failed.
        """
        answer = self._get("/api/v1/query", query=expression)
        result = answer["data"]["result"]
        if answer["data"]["resultType"] in ("scalar", "string"):
            return [Series({}, [_sample(result)])]
        return [Series(item["metric"], [*map(_sample, item.get("values") or [item["value"]])]) for item in result]

    def label_values(self, label: str) -> list[str]:
        """Return every value of a label."""
        values: list[str] = self._get(f"/api/v1/label/{label}/values")["data"]
        return values

    def target(self) -> dict[str, Any]:
        """Return what Prometheus says of its target, with `health` and `lastError`."""
        [target] = self._get("/api/v1/targets")["data"]["activeTargets"]
        assert isinstance(target, dict)
        return target

    def wait_for(self, expression: str, holds: Callable[[list[Series]], bool] = bool) -> list[Series]:
        """Query again and again until the answer is as it should be."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not holds(answer := self.query(expression)):
            assert time.monotonic() < deadline, f"{expression} did not come about: {answer}, {self.target()}"
            time.sleep(0.05)
        return answer

    def content_target(self) -> dict[str, Any]:
        """Return its target after a scrape that went well: one may be late, where the machine is busy."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while (found := self.target())["health"] != "up" or found["lastError"]:
            assert time.monotonic() < deadline, f"no scrape went well: {found}"
            time.sleep(0.05)
        return found

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                said: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        return said


def _sample(pair: Sequence[Any]) -> Sample:
    return float(pair[0]), float(pair[1])


@contextmanager
def prometheus_scraping(
    target: str, folder: Path, *, rules: Sequence[Path] = (), scrape: str = "", interval: str = "200ms"
) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes `target`, such as `127.0.0.1:8081`.

    Args:
        target: host and port.
        folder: for its data and configuration.
        rules: files of rules, evaluated once a second.
        scrape: more settings of the scrape, a line of YAML each.
        interval: how often it scrapes.
    """
    more = "".join(f"    {line}\n" for line in scrape.splitlines())
    (folder / "prometheus.yml").write_text(
        f"global:\n  scrape_interval: {interval}\n  scrape_timeout: {interval}\n  evaluation_interval: 1s\n"
        f"rule_files: {json.dumps([str(path) for path in rules])}\n"
        f"scrape_configs:\n  - job_name: tracarbon\n    static_configs:\n      - targets: ['{target}']\n{more}"
    )
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with running(command, folder / "prometheus.log") as url:
        yield Prometheus(url)


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[str]:
    """Run a server of the Prometheus family, on a port that it chooses itself; yields its URL once it is ready.

    Raises:
        AssertionError: it did not start.
    """
    with (
        log.open("wb") as file,
        subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], stderr=file) as process,
    ):
        try:
            yield _url_once_ready(process, log)
        finally:
            process.kill()


def _url_once_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        found = re.search(r'msg="Listening on".* address=(\S+)\n', log.read_text())
        try:
            if found is not None:
                with urllib.request.urlopen(f"http://{found[1]}/-/ready", timeout=30):
                    return f"http://{found[1]}"
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"it did not start: {log.read_text()}")

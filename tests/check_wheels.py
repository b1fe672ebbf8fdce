"""Run by the interpreter of a clean environment that has nothing but the wheels: loads all that they declare."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from types import ModuleType


def main() -> None:
    ours = [item for item in metadata.distributions() if item.name.startswith("tracarbon-")]
    assert ours, "no distribution is installed"
    for distribution in ours:
        for entry_point in distribution.entry_points:
            loaded = entry_point.load()
            module = loaded if isinstance(loaded, ModuleType) else sys.modules[loaded.__module__]
            assert "site-packages" in str(module.__file__), f"{entry_point} was loaded from {module.__file__}"
        for name in (distribution.read_text("top_level.txt") or "").split() or _packages(distribution):
            assert (files(name) / "py.typed").is_file(), f"{name} has no py.typed"
        assert any(path.name == "NOTICE" for path in distribution.files or ()), f"{distribution.name} has no NOTICE"
        print(f"{distribution.name} {distribution.version}: {len(list(distribution.entry_points))} entry points load")
    for name in ("country_intensity.csv", "cpu_tdp.csv"):
        assert (files("tracarbon") / "data" / name).is_file(), f"{name} is not in the wheel"
    command = Path(sys.executable).parent / "tracarbon"
    print(subprocess.run([command, "--version"], check=True, capture_output=True, text=True).stdout.strip())
    figures = subprocess.run([command, "run", "--once"], check=True, capture_output=True, text=True).stdout
    assert "energy_consumption_host" in figures, figures
    _begin_plugins(command)


def _begin_plugins(command: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("sensor", "location", "generator", "exporter", "hook"):
            subprocess.run([command, "plugins", "new", kind, "acme"], check=True, capture_output=True, cwd=folder)
            written = Path(folder, f"tracarbon-{kind}-acme")
            for name in ("pyproject.toml", f"src/tracarbon_{kind}_acme/__init__.py", "tests/test_plugin.py"):
                assert (written / name).stat().st_size, f"the templates of a {kind} are not in the wheel"


def _packages(distribution: metadata.Distribution) -> set[str]:
    return {path.parts[0] for path in distribution.files or () if path.suffix == ".py" and len(path.parts) > 1}


main()

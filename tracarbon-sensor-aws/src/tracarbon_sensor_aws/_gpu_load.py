"""How busy the graphics processors are, where the kernel says so to everybody: AMD's driver does."""

from __future__ import annotations

from pathlib import Path


def gpu_load(host_root: Path) -> float | None:
    """Return the mean load of AMD's graphics processors just now, from 0 to 1; `None` where it is not known."""
    percents = [_percent(path) for path in (host_root / "sys/class/drm").glob("card*/device/gpu_busy_percent")]
    known = [percent for percent in percents if percent is not None]
    return min(1.0, sum(known) / len(known) / 100) if known else None


def _percent(path: Path) -> float | None:
    try:
        percent = float(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
    return percent if percent >= 0 else None  # which refuses what is no number, too

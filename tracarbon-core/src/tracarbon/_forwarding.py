"""Names that are importable from a module, and loaded from where they live only when they are first used.

This is how a documented name that has moved into a distribution of its own stays importable from its documented module,
and how a package offers the names of its modules without importing them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def forward(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of `module`, which fetches each name from its home.

    Args:
        module: the documented module.
        homes: where each name lives: a module such as `tracarbon.metrics`, or a distribution such as
            `tracarbon-sensor-rapl`.

    Raises:
        ImportError: the distribution is not installed; says what to install.
        AttributeError: there is no such name.
    """

    def get(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        if "-" not in home:
            return getattr(import_module(home), name)
        return getattr(_package_of(home, f"{module}.{name}"), name)

    return get


def offer(package: str, homes: Mapping[str, str]) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__all__`, `__getattr__` and `__dir__` of a package that offers names of its modules, as `forward`.

    What lives in another distribution is not in `__all__`: importing everything has to work without it.
    """
    names = [name for name, home in homes.items() if "-" not in home]
    return names, forward(package, homes), lambda: names


def _package_of(distribution: str, wanted: str) -> Any:
    package = distribution.replace("-", "_")
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(f"{wanted} is in {distribution}: pip install {distribution}", name=package) from None

"""Documented names that live in a distribution of their own stay importable from their documented module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def forward(module: str, distributions: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of `module`, which fetches each name from the distribution that has it now.

    Args:
        module: the documented module.
        distributions: the distribution of each name, such as `tracarbon-sensor-rapl`.

    Raises:
        ImportError: the distribution is not installed; says what to install.
        AttributeError: no such name is documented.
    """

    def get(name: str) -> Any:
        distribution = distributions.get(name)
        if distribution is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        package = distribution.replace("-", "_")
        try:
            home = import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
            raise ImportError(f"{module}.{name} is in {distribution}: pip install {distribution}") from None
        return getattr(home, name)

    return get

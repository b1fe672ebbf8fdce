"""Starting programs for which an installed distribution is not there."""

from pathlib import Path

_CODE = """
import importlib.metadata
import importlib.util
import sys
from importlib.machinery import PathFinder

find = importlib.metadata.MetadataPathFinder.find_distributions


class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None


def find_others(context=importlib.metadata.DistributionFinder.Context()):
    return (found for found in find(context) if found.metadata["Name"] != {distribution!r})


importlib.metadata.MetadataPathFinder.find_distributions = staticmethod(find_others)
sys.meta_path.insert(0, Hidden)

folders = sys.path[1 + sys.path.index({folder!r}) :]
if another := PathFinder.find_spec("sitecustomize", folders):
    another.loader.exec_module(importlib.util.module_from_spec(another))
"""


def hiding(distribution: str, folder: Path) -> dict[str, str]:
    """Return the variable with which a Python does not find a distribution; `folder` is made for what does it."""
    folder.mkdir()
    code = _CODE.format(package=distribution.replace("-", "_"), distribution=distribution, folder=str(folder))
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}

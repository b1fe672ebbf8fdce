"""Writing a distribution for a new plugin, which its author then edits: `tracarbon plugins new`.

The files lie in `data/templates`, as they will lie in the distribution: those of the kind beside those that all have in
common. A folder `package` stands for the package, and what begins with `$` for the names.
"""

from __future__ import annotations

import keyword
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from string import Template

from tracarbon._discovery import (
    CORE_DISTRIBUTION,
    KINDS,
    LOCATION,
    Kind,
    distribution_of,
    installed_plugins,
)
from tracarbon._document import nearest
from tracarbon.exceptions import PluginError, TracarbonException

KIND_WORDS = ", ".join(kind.word for kind in KINDS[:-1]) + f" or {KINDS[-1].word}"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*")
_MOST_CHARACTERS = 30
_SUFFIX = ".template"


@dataclass(frozen=True, slots=True)
class NewPlugin:
    """The names of a plugin that is to be.

    Attributes:
        kind: which contract.
        name: its name in a pipeline.toml, such as `acme_thermometer`.
    """

    kind: Kind
    name: str

    @property
    def distribution(self) -> str:
        """Such as `tracarbon-sensor-acme-thermometer`."""
        return self.package.replace("_", "-")

    @property
    def package(self) -> str:
        """Such as `tracarbon_sensor_acme_thermometer`."""
        return f"tracarbon_{self.kind.word}_{self.name}"

    @property
    def class_name(self) -> str:
        """Such as `AcmeThermometerSensor`; never the contract's own."""
        words = "".join(word.capitalize() for word in self.name.split("_"))
        name = f"{words}{self.kind.word.capitalize()}"
        return f"My{name}" if name == self.kind.contract.__name__ else name

    @property
    def table(self) -> str:
        """Its table in a pipeline.toml, such as `sensors.acme_thermometer`."""
        return "location" if self.kind is LOCATION else f"{self.kind.word}s.{self.name}"


def find_kind(word: str) -> Kind:
    """Return the kind of that name, in any case.

    Raises:
        PluginError: there is none.
    """
    by_word = {kind.word: kind for kind in KINDS}
    kind = by_word.get(word.casefold())
    if kind is None:
        meant = nearest(word, by_word)
        hint = f"did you mean '{meant}'?" if meant else f"it is {KIND_WORDS}"
        raise PluginError(f"'{word}' is no kind of plugin; {hint}")
    return kind


def new_plugin(kind: Kind, name: str) -> NewPlugin:
    """Return the names of a new plugin.

    Raises:
        PluginError: the name cannot be used, or there is such a plugin.
    """
    if _NAME.fullmatch(name) is None:
        raise PluginError(
            f"'{name}' cannot be a plugin's name: letters, digits, - and _ between them, a letter first, "
            "such as acme-thermometer"
        )
    if len(name) > _MOST_CHARACTERS:
        raise PluginError(
            f"'{name}' is too long for a plugin's name: {len(name)} characters, and {_MOST_CHARACTERS} at the most"
        )
    if keyword.iskeyword(name) or keyword.iskeyword(name.lower()):
        raise PluginError(f"'{name}' cannot be a plugin's name: it is a word of Python's own")
    new = NewPlugin(kind, _plain(name))
    namesake = next((plugin for plugin in installed_plugins(kind) if _plain(plugin.name) == new.name), None)
    if namesake is not None:
        raise PluginError(f"there is a {kind.word} {namesake.origin}; take another name")
    ours = distribution_of(kind, new.name)
    if ours is not None:  # which somebody may install beside it
        raise PluginError(f"there is a {kind.word} {new.name}, pip install {ours}; take another name")
    return new


def write_distribution(new: NewPlugin, folder: Path) -> list[Path]:
    """Write the distribution into a folder, which is made, and return its files. An existing one is never touched.

    Raises:
        TracarbonException: the folder exists, or cannot be written; nothing is left of it then.
    """
    texts = dict(sorted(_rendered(new)))
    try:
        folder.mkdir()
    except FileExistsError:
        raise TracarbonException(f"{folder} exists and is left alone; -o FOLDER writes to another one") from None
    except OSError as error:
        raise TracarbonException(f"{folder} cannot be written: {error.strerror}") from None
    try:
        return [_write(folder / path, text) for path, text in texts.items()]
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise TracarbonException(f"{folder} cannot be written: {error.strerror}") from None
        raise


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8", newline="\n")
    return path


def _rendered(new: NewPlugin) -> Iterator[tuple[PurePosixPath, str]]:
    names = {
        "class_name": new.class_name,
        "distribution": new.distribution,
        "group": new.kind.group,
        "kind": new.kind.word,
        "package": new.package,
        "plugin": new.name,
        "requirement": core_requirement(metadata.version(CORE_DISTRIBUTION)),
        "table": new.table,
    }
    templates = files("tracarbon") / "data" / "templates"
    for part in ("common", new.kind.word):
        for path, template in _templates(templates / part, PurePosixPath()):
            target = PurePosixPath(*(new.package if it == "package" else it for it in path.parts))
            yield target, Template(template).substitute(names)


def _templates(folder: Traversable, path: PurePosixPath) -> Iterator[tuple[PurePosixPath, str]]:
    for item in folder.iterdir():
        if item.is_dir():
            yield from _templates(item, path / item.name)
        elif item.name.endswith(_SUFFIX):
            yield path / item.name.removesuffix(_SUFFIX), item.read_text("utf-8")


def core_requirement(version: str) -> str:
    """Return what a plugin that was made with this version of the core requires, such as `tracarbon-core>=0.1,<0.2`."""
    from packaging.version import Version

    core = Version(version)
    lowest = core.public if core.is_prerelease else f"{core.major}.{core.minor}"
    return f"{CORE_DISTRIBUTION}>={lowest},<{core.major}.{core.minor + 1}"


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")

"""`tracarbon plugins`."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from tracarbon._discovery import KINDS, InstalledPlugin, ambiguity_of, installed_plugins, load_plugin
from tracarbon._document import nearest
from tracarbon._probing import PROBE_SECONDS, call_within
from tracarbon._scaffold import KIND_WORDS, find_kind, new_plugin, write_distribution
from tracarbon._text import render_table
from tracarbon.cli import EXIT_OK
from tracarbon.exceptions import PluginError, TracarbonException
from tracarbon.plugin import PluginOptions, summary_of

_NEW = "new"
_LATE = f"its import did not end within {PROBE_SECONDS:g} s"
_USAGE = f"usage: tracarbon plugins [NAME], or tracarbon plugins new KIND NAME [-o FOLDER]; KIND is {KIND_WORDS}"


def main(options: argparse.Namespace) -> int:
    """List the installed plugins by kind, show those of one name with their options, or write a new one."""
    plugins = [plugin for kind in KINDS for plugin in installed_plugins(kind)]
    match options.words:
        case [] if options.output is None:
            _list(plugins)
        case [name] if options.output is None:
            _show(name, plugins)
        case [new, kind, name] if new == _NEW:
            _write(kind, name, options.output)
        case _:
            raise TracarbonException(_USAGE)
    return EXIT_OK


def _list(plugins: list[InstalledPlugin]) -> None:
    """Print a line for each, with what is wrong with those that cannot be loaded."""
    with redirect_stdout(sys.stderr):  # what plugins print when they are imported is no part of the list
        troubles = call_within(PROBE_SECONDS, [partial(_trouble, plugin) for plugin in plugins])
    print(
        render_table(
            [
                (plugin.kind.word, plugin.name, plugin.distribution, plugin.version, _LATE if said is None else said)
                for plugin, said in zip(plugins, troubles, strict=True)
            ]
        )
    )


def _trouble(plugin: InstalledPlugin) -> str:
    try:
        load_plugin(plugin)
    except PluginError as error:
        return str(error)
    return _ambiguity(plugin)


def _ambiguity(plugin: InstalledPlugin) -> str:
    return "; ".join(ambiguity_of(plugin) or ())


def _show(name: str, plugins: list[InstalledPlugin]) -> None:
    named = [plugin for plugin in plugins if name.casefold() in (plugin.name.casefold(), plugin.reference.casefold())]
    if not named and name == _NEW:
        raise TracarbonException(_USAGE)
    if not named:
        meant = nearest(name, {plugin.name for plugin in plugins})
        hint = f"; did you mean '{meant}'?" if meant else "; `tracarbon plugins` lists those that are"
        raise PluginError(f"no plugin named '{name}' is installed{hint}")
    with redirect_stdout(sys.stderr):
        described = call_within(PROBE_SECONDS, [partial(_described, plugin) for plugin in named])
    print("\n\n".join(text or f"{_headline(plugin)}\n  {_LATE}" for plugin, text in zip(named, described, strict=True)))


def _write(kind: str, name: str, output: Path | None) -> None:
    new = new_plugin(find_kind(kind), name)
    folder = output or Path(new.distribution)
    written = write_distribution(new, folder)
    print("\n".join(f"wrote {path}" for path in written))
    print("next:")
    print(f"  pip install -e {shlex.quote(f'{folder}[test]')}")
    print(f"  pytest {shlex.quote(str(folder))}")


def _headline(plugin: InstalledPlugin) -> str:
    return f"{plugin.kind.word} {plugin.name}, from {plugin.distribution} {plugin.version}"


def _described(plugin: InstalledPlugin) -> str:
    head = _headline(plugin)
    try:
        loaded = load_plugin(plugin)
    except PluginError as error:
        return f"{head}\n  {error}"
    remarks = [f"  {text}" for text in (summary_of(loaded), _ambiguity(plugin)) if text]
    return "\n".join([head, *remarks, _options(loaded)])


def _options(loaded: Any) -> str:
    model: type[PluginOptions] = getattr(loaded, "Options", PluginOptions)
    if not model.model_fields:
        return "  no options"
    rows = [("  option", "type", "default", "what it does")]
    return render_table(rows + [_option_row(name, field) for name, field in model.model_fields.items()])


def _option_row(name: str, field: FieldInfo) -> tuple[str, str, str, str]:
    default = "required" if field.is_required() else repr(field.get_default(call_default_factory=False))
    return f"  {name}", _kind_in_words(field.annotation), default, field.description or ""


def _kind_in_words(annotation: Any) -> str:
    """Return a type as a user may read it: without modules, and without what constrains it."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind_in_words(parts[0])
    if origin in (Union, UnionType):
        return " | ".join(map(_kind_in_words, parts))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, parts))}]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_kind_in_words, parts))}]"
    if annotation is NoneType or annotation is Ellipsis:
        return "None" if annotation is NoneType else "..."
    return "secret" if annotation is SecretStr else getattr(annotation, "__name__", str(annotation))

"""`tracarbon plugins`."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from pydantic.fields import FieldInfo

from tracarbon._discovery import KINDS, InstalledPlugin, installed_plugins, load_plugin
from tracarbon._document import nearest
from tracarbon.cli import EXIT_OK
from tracarbon.cli._tables import render_table
from tracarbon.exceptions import PluginError
from tracarbon.plugin import PluginOptions


def main(options: argparse.Namespace) -> int:
    """List the installed plugins by kind, or show those of one name with their options."""
    plugins = [plugin for kind in KINDS for plugin in installed_plugins(kind)]
    if options.name is None:
        print(
            render_table([(plugin.kind.word, plugin.name, plugin.distribution, plugin.version) for plugin in plugins])
        )
        return EXIT_OK
    named = [plugin for plugin in plugins if plugin.name.casefold() == options.name.casefold()]
    if not named:
        meant = nearest(options.name, {plugin.name for plugin in plugins})
        hint = f"; did you mean '{meant}'?" if meant else "; `tracarbon plugins` lists those that are"
        raise PluginError(f"no plugin named '{options.name}' is installed{hint}")
    print("\n\n".join(_described(plugin) for plugin in named))
    return EXIT_OK


def _described(plugin: InstalledPlugin) -> str:
    head = f"{plugin.kind.word} {plugin.name}, from {plugin.distribution} {plugin.version}"
    try:
        loaded = load_plugin(plugin)
    except PluginError as error:
        return f"{head}\n  {error}"
    summary = (inspect.getdoc(loaded) or "").partition("\n")[0]
    return "\n".join(filter(None, (head, f"  {summary}", _options(loaded))))


def _options(loaded: Any) -> str:
    model: type[PluginOptions] = getattr(loaded, "Options", PluginOptions)
    if not model.model_fields:
        return "  no options"
    rows = [("  option", "type", "default", "what it does")]
    return render_table(rows + [_option_row(name, field) for name, field in model.model_fields.items()])


def _option_row(name: str, field: FieldInfo) -> tuple[str, str, str, str]:
    kind = field.annotation.__name__ if isinstance(field.annotation, type) else str(field.annotation)
    default = "required" if field.is_required() else repr(field.get_default(call_default_factory=False))
    return f"  {name}", kind.replace("typing.", ""), default, field.description or ""

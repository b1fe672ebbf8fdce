"""The JSON Schema of `pipeline.toml` for the plugins that are installed, so that editors complete and check the file.

The schema says what draft 7 could say as well, and nothing beside a `$ref`, since several editors read no newer draft.
What refuses something and what is offered are apart: `if`/`then`/`else` picks the one schema that counts, so that an
error names the key that is to blame; some editors do not look in there for what to complete, and find it in
`properties` and in `anyOf` whose other branch takes anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, TypeAlias
from urllib.parse import quote

from pydantic import BaseModel

from tracarbon._configuration import DEFAULT_INTERVAL_SECONDS, LOG_LEVELS, RESERVED, RESERVED_WORDS, SECTIONS
from tracarbon._discovery import (
    CORE_DISTRIBUTION,
    KINDS,
    LOCATION,
    InstalledPlugin,
    Kind,
    find_plugin,
    installed_plugins,
    load_plugin,
    unambiguous_names,
)
from tracarbon._document import DURATION, MAX_DURATION_SECONDS, MIN_DURATION_SECONDS, NUMBER
from tracarbon._probing import call_within
from tracarbon.exceptions import PluginError
from tracarbon.plugin import PluginOptions, summary_of

Schema: TypeAlias = dict[str, Any]

LOAD_SECONDS = 3.0

_COMMENT = """\
Written by `tracarbon schema` of {core} for the plugins installed beside it; write it anew when these change. \
`tracarbon check` alone knows: whether `inputs` name tables that are there, whether two sensors cover the same thing, \
whether two tables have one name in different case, whether the variables and files of references are there and what \
is in them, whether host_root has a sys or proc, whether a duration in text is longer than a day or shorter than \
1 ms, or a number is nan, whether one of the rarer characters can be printed, and what a plugin checks in Python, such \
as the countries that are known. The other way round, an option of another type that can be converted, such as "65" \
for a number, is refused here and taken by `check`."""

_ANNOTATIONS = ("title", "description", "default", "examples", "deprecated")

# What `str.isprintable` refuses, but for what is rare or not assigned; the blank is another matter.
_UNPRINTABLE = r"\x00-\x1f\x7f-\xa0\xad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"

_TABLES = {
    "sensors": "What reads power or energy; without any, the best that works here.",
    "generators": "What makes metrics of each window; without any, energy and carbon.",
    "exporters": "What delivers the metrics; without any, stdout.",
    "hooks": "What watches the pipeline's moments.",
}


@dataclass(frozen=True, slots=True)
class _Described:
    """A plugin, the schema of its table (`None` where `check` would refuse any), and what the user should know.

    Its `name` says its distribution as well where several have a plugin of that name.
    """

    plugin: InstalledPlugin
    name: str
    table: Schema | None
    remark: str = ""

    @property
    def key(self) -> str:
        """Where its schema is."""
        return f"{self.plugin.kind.word}.{self.name}"

    @property
    def pattern(self) -> str:
        """Matches what names it in a file: any case, and the distribution where the user wants to say it."""
        parts = re.split(r"[-_.]+", self.plugin.distribution)
        distribution = "[-_.]+".join(map(_any_case, parts)) + ":"
        is_alone = self.name == self.plugin.name
        return f"^{f'(?:{distribution})?' if is_alone else distribution}{_any_case(self.plugin.name)}$"


def pipeline_schema() -> tuple[Schema, list[str]]:
    """Import every installed plugin and return the schema, with a line for each plugin that is not described in it."""
    described = _describe_installed()
    remarks = [f"{item.plugin.kind.word} {item.plugin.origin}: {item.remark}" for item in described if item.remark]
    of_kind = {kind: [item for item in described if item.plugin.kind is kind and item.table] for kind in KINDS}
    definitions: Schema = {"duration": _duration(), "reference": _reference()}
    for kind, items in of_kind.items():
        definitions[kind.word] = _table_with_plugin(kind, items)
        definitions |= {item.key: item.table for item in items}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pipeline.toml of tracarbon",
        "description": "What is measured on this machine, and where the figures go. One file is one pipeline.",
        "$comment": _COMMENT.format(core=f"{CORE_DISTRIBUTION} {version(CORE_DISTRIBUTION)}"),
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **_settings(),
            "tags": _tags(),
            "location": _location(of_kind[LOCATION]),
            **{section: _section(section, of_kind[kind]) for section, kind in SECTIONS.items()},
        },
        "$defs": definitions,
    }
    return schema, remarks


def _describe_installed() -> list[_Described]:
    plugins = [plugin for kind in KINDS for plugin in installed_plugins(kind)]
    named = list(zip(plugins, unambiguous_names(plugins), strict=True))
    described = call_within(LOAD_SECONDS, [partial(_describe, plugin, name) for plugin, name in named])
    late = f"left out, it could not be imported within {LOAD_SECONDS:g} s"
    return [item or _Described(*of, None, late) for of, item in zip(named, described, strict=True)]


def _describe(plugin: InstalledPlugin, name: str) -> _Described:
    try:
        find_plugin(plugin.kind, name)  # which refuses a name that stays ambiguous
        loaded = load_plugin(plugin)
    except PluginError as error:
        return _Described(plugin, name, None, f"left out, {' '.join(str(error).split())}")
    model = getattr(loaded, "Options", PluginOptions)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return _Described(plugin, name, None, f"left out, its Options is {model!r}, which is no pydantic model")
    head = {"title": plugin.origin, "description": summary_of(loaded)}
    described = _Described(plugin, name, head)
    try:
        table = head | _table(described, model)
        json.dumps(table, allow_nan=False)
    except BaseException as error:  # pydantic's, or that of whatever a plugin puts into its schema
        reason, _, _ = str(error).partition("\n")
        remark = f"any options are taken, they cannot be described: {type(error).__name__}: {reason}"
        return replace(described, table=head | _any_options(plugin.kind), remark=remark)
    return replace(described, table=table)


def _table(described: _Described, model: type[BaseModel]) -> Schema:
    """Return the schema of a plugin's table: its options and the reserved keys, and nothing else."""
    kind = described.plugin.kind
    body = model.model_json_schema(ref_template=_pointer(described.key) + "/$defs/{model}")
    if "$ref" in body:  # a model that refers to itself
        body = body["$defs"][body["$ref"].rpartition("/")[2]] | {"$defs": body["$defs"]}
    options = {key: _option(option) for key, option in body.get("properties", {}).items() if key not in RESERVED_WORDS}
    _, table = _parted(body)
    if model.model_config.get("extra") == "allow":
        others: Any = body.get("additionalProperties", True)
        table["additionalProperties"] = _option(others) if isinstance(others, dict) else others
        options |= _refused(kind)
    else:
        table["additionalProperties"] = False
    return table | {"type": "object", "properties": options | _reserved(kind)}


def _any_options(kind: Kind) -> Schema:
    return {"type": "object", "properties": _refused(kind) | _reserved(kind)}


def _refused(kind: Kind) -> Schema:
    """Return the reserved words that mean nothing for a kind: they are no options either."""
    return {word: False for word in RESERVED_WORDS if word not in RESERVED[kind]}


def _parted(schema: Schema) -> tuple[Schema, Schema]:
    """Return what a schema tells the user, and what it demands."""
    told = {key: value for key, value in schema.items() if key in _ANNOTATIONS}
    return told, {key: value for key, value in schema.items() if key not in told}


def _option(schema: Schema) -> Schema:
    """Return an option that may instead be a reference. Of what TOML does not have, a null, nothing is left."""
    told, value = _parted(schema)
    if told.get("default", ...) is None:
        del told["default"]
    choices = [choice for choice in value.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        value = {key: rest for key, rest in value.items() if key != "anyOf"} | choices[0]
    elif choices:
        value["anyOf"] = choices
    return told | {"if": {"$ref": _pointer("reference")}, "else": value}


def _offered(schema: Schema) -> Schema:
    """Return what an editor may offer for a key, which refuses nothing."""
    told, rest = _parted(schema)
    return told | {"anyOf": [rest.get("else", rest), {}]}


def _offered_table(table: Schema) -> Schema:
    keys = {key: _offered(schema) for key, schema in table["properties"].items() if schema}
    return {"title": table["title"], "description": table["description"], "properties": keys}


def _section(section: str, items: Sequence[_Described]) -> Schema:
    """Return the schema of `[sensors]` and its like, whose tables are named after plugins or say which they are of."""
    return {
        "type": "object",
        "description": _TABLES[section],
        "properties": {item.name: _offered_table(item.table) for item in items if item.table},
        "patternProperties": {item.pattern: _named_table(item) for item in items},
        "additionalProperties": {"$ref": _pointer(SECTIONS[section].word)},
    }


def _location(items: Sequence[_Described]) -> Schema:
    country = next((item for item in items if item.name == "country"), None)
    if country is None or country.table is None:
        return {"$ref": _pointer(LOCATION.word)}
    return _offered_table(country.table) | {
        "title": "location",
        "description": "Where the machine is; without it, the country that the system's time zone says.",
        **_named_table(country),
    }


def _named_table(item: _Described) -> Schema:
    """Return the schema of a table whose name is the plugin's, unless its key `plugin` says otherwise."""
    return {
        "if": {"type": "object", "required": ["plugin"]},
        "then": {"$ref": _pointer(item.plugin.kind.word)},
        "else": {"$ref": _pointer(item.key)},
    }


def _table_with_plugin(kind: Kind, items: Sequence[_Described]) -> Schema:
    """Return the schema of a table that has to say which plugin it is of."""
    if not items:
        return {"not": {}, "description": f"No {kind.word} is installed."}
    names = _one_of([item.name for item in items], "|".join(item.pattern for item in items))
    return {
        "type": "object",
        "description": f"A {kind.word} under a name of its own: `plugin` says which it is.",
        "required": ["plugin"],
        "properties": {"plugin": {"description": f"Name of an installed {kind.word}.", **names}},
        "allOf": [
            {
                "if": {"required": ["plugin"], "properties": {"plugin": {"type": "string", "pattern": item.pattern}}},
                "then": {"$ref": _pointer(item.key)},
            }
            for item in items
        ],
    }


def _reserved(kind: Kind) -> Schema:
    schemas: dict[str, Schema] = {
        "plugin": {"description": "The plugin's name, where it is not the table's.", "type": "string"},
        "inputs": {
            "description": "Names of what it reads; without it, all.",
            "type": "array",
            "minItems": 1,
            "items": {"type": "string"},
        },
        "interval": {"$ref": _pointer("duration")},
        "optional": {"description": "Whether the pipeline starts without it, and tries it again.", "type": "boolean"},
    }
    return {key: schemas[key] for key in RESERVED[kind]}


def _settings() -> Schema:
    levels = _one_of(LOG_LEVELS, f"^(?:{'|'.join(map(_any_case, LOG_LEVELS))})$")
    return {
        "interval": {**_duration(), "default": f"{DEFAULT_INTERVAL_SECONDS:g}s"},
        "metric_prefix_name": {
            "description": "Prefix of metric names: printable and without blanks.",
            "default": "tracarbon",
            "type": "string",
            "not": _text_with(rf"[\s{_UNPRINTABLE}]"),
        },
        "log_level": {
            "description": "How much is logged, to standard error.",
            "default": "INFO",
            **levels,
        },
        "host_root": {
            "description": "Where the host's /sys and /proc are mounted, for a container.",
            "default": "/",
            "type": "string",
        },
    }


def _tags() -> Schema:
    return {
        "description": "Tags for every metric; a metric's own tag of the same key wins.",
        "type": "object",
        "propertyNames": {"minLength": 1, "not": _text_with(f"[{_UNPRINTABLE}]")},
        "additionalProperties": {"type": ["string", "number"], "not": _text_with(f"[{_UNPRINTABLE}]")},
    }


def _text_with(pattern: str) -> Schema:
    return {"type": "string", "pattern": pattern}


def _duration() -> Schema:
    written = {"pattern": rf"^\s*(?:{NUMBER}|{DURATION.pattern})\s*$"}
    return {
        "description": 'A time such as "15s", "500ms", "1m30s", "2h" or "1d"; a number is seconds. At least 1ms.',
        "examples": ["15s", "1m", "1m30s"],
        "type": ["string", "number"],
        "minimum": MIN_DURATION_SECONDS,
        "maximum": MAX_DURATION_SECONDS,
        "if": written,
        "then": {"$comment": "more than 0", "pattern": "[1-9]"},
        "else": written,
    }


def _reference() -> Schema:
    return {
        "description": 'A secret: { env = "NAME" } or { file = "PATH" }.',
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
        "properties": {"env": {"type": "string"}, "file": {"type": "string"}},
    }


def _one_of(names: Sequence[str], pattern: str) -> Schema:
    """Return the schema of one of several names, as a pattern takes them; the error of another one lists them."""
    listed = {"enum": list(names)}
    return {"type": "string", "anyOf": [listed, {}], "if": {"pattern": pattern}, "else": listed}


def _any_case(name: str) -> str:
    return "".join(map(_any_case_of_character, name))


def _any_case_of_character(character: str) -> str:
    cases = sorted({case for case in (character.lower(), character.upper()) if len(case) == 1})
    if len(cases) > 1:
        return f"[{''.join(cases)}]"
    return f"\\{character}" if character in r"^$\.*+?()[]{}|/" else character


def _pointer(key: str) -> str:
    return "#/$defs/" + quote(key.replace("~", "~0").replace("/", "~1"))

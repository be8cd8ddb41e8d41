"""What ``config.yaml`` may say, for others than this program: a JSON schema and tables, from the models that check it.

A file that the schema refuses is refused. What keys say of each other, and names that have to be defined or known, only
:func:`winnow.workflow.config.load` checks.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

from winnow.workflow import config

# In this order: what a file has at the top, its sections, and what stands in their entries.
MODELS = ("Config", "Dataset", "Backbone", "Recipe", "Experiment")
SECTIONS = {
    "Config": "",
    "Dataset": "datasets",
    "Backbone": "backbones",
    "Recipe": "recipes",
    "Experiment": "experiments",
}


def schema() -> dict[str, Any]:
    """The configuration as a JSON schema (2020-12), each key with what the models say of it."""
    found = config.Config.model_json_schema()
    for name, model in {"Config": found, **found["$defs"]}.items():
        said = _sentences(name)
        for key, entry in model["properties"].items():
            entry.pop("title", None)
            if key in said:
                entry["description"] = said[key]
        model["description"] = _plain(model["description"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | found


def text(found: Mapping[str, Any]) -> str:
    """A schema as its file has it."""
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def tables(found: Mapping[str, Any]) -> str:
    """The keys of a schema in Markdown, a table a section: what a key may be, and what it is where it is not set."""
    models = {"Config": found, **found["$defs"]}
    order = [*MODELS, *sorted(models.keys() - set(MODELS))]
    lines = []
    for name in order:
        model = models[name]
        section = SECTIONS.get(name)
        heading = name if section is None else f"`{section}`" if section else "At the top"
        lines += [f"### {heading}", "", model["description"], "", "| key | may be | default | |", "|---|---|---|---|"]
        for key, entry in model["properties"].items():
            default = "needed" if key in model.get("required", ()) else _value(entry.get("default"))
            cells = (f"`{key}`", _kind(entry), default, entry.get("description", ""))
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        lines.append("")
    return "\n".join(lines)


def _sentences(model: str) -> dict[str, str]:
    """The docstrings of a model's keys, which stand below them."""
    source = inspect.getsource(getattr(config, model))
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    found = {}
    for key, below in itertools.pairwise(body):
        match key, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = _plain(text)
    return found


def _plain(text: str) -> str:
    """A docstring's first paragraph, without reStructuredText's roles."""
    first = " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", first).replace("``", "`")


def _kind(entry: Mapping[str, Any]) -> str:
    """What a key may be, in words."""
    if "$ref" in entry:
        return entry["$ref"].rpartition("/")[2]
    if either := entry.get("anyOf") or entry.get("oneOf"):
        return " or ".join(dict.fromkeys(_kind(each) for each in either if each.get("type") != "null"))
    if "enum" in entry:
        return ", ".join(map(_value, entry["enum"]))
    if "const" in entry:
        return _value(entry["const"])
    if entry.get("type") == "array":
        items = [_kind(each) for each in entry.get("prefixItems", ())]
        return f"[{', '.join(items)}]" if items else f"list of {_kind(entry['items'])}"
    if entry.get("type") == "object":
        values = [*entry.get("patternProperties", {}).values(), entry.get("additionalProperties") or {}]
        return f"name → {_kind(values[0])}"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {entry[key]:g}" for key, sign in bounds.items() if key in entry]
    return " ".join([{"string": "text", "boolean": "true or false"}.get(entry["type"], entry["type"]), *limits])


def _value(value: Any) -> str:
    return "" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"

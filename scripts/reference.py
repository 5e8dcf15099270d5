"""Writes what is generated from the code: docs/reference/ and the JSON schemas in config/schema/.

python scripts/reference.py            writes them
python scripts/reference.py --check    exits 1, and names them, where they are not what the code says
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import typer
from pydantic import BaseModel
from typer.main import get_command

from processor.bridge_sections import BridgeSettings
from processor.cli import app
from processor.document import Section
from processor.filter import FilterDocument
from processor.metrics import METRICS, SCORE
from processor.own_topics import OWN_TOPICS
from processor.settings import Settings

ROOT: Final = Path(__file__).parents[1]
MADE: Final = "<!-- Made from the code by scripts/reference.py: change it there. -->\n"
SCHEMA: Final = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


class Key(NamedTuple):
    """One line of a table."""

    path: str
    kind: str
    default: str
    says: str


def schema_of(model: type[BaseModel], title: str) -> Schema:
    """Return the JSON schema of a document as its editor needs it: defaults as users write them, no titles."""
    schema = model.model_json_schema(by_alias=True)
    known = {section.__name__: section for section in sections(model)}
    for name, part in [(model.__name__, schema), *schema["$defs"].items()]:
        section = known[name]
        # As a user writes them; pydantic's schema has them as they are inside, in nanoseconds and bytes.
        plain = section.model_construct().model_dump(mode="json", by_alias=True, warnings=False)
        for key, field in part["properties"].items():
            field.pop("title", None)
            if "default" in field:
                field["default"] = plain[key]
        part.pop("title", None)
    if "Source" in schema["$defs"]:
        schema["$defs"]["Source"]["required"] = []  # an input names its source
    return {"$schema": SCHEMA, "title": title} | schema


def with_filter(schema: Schema, filter_: Schema) -> Schema:
    """Return a configuration's schema in which `filter` may be a file's name or a whole filter, key by key."""
    inner = {key: value for key, value in filter_.items() if key not in ("$schema", "title", "$defs")}
    schema["$defs"] |= filter_["$defs"] | {"Filter": inner}
    for section in (schema, schema["$defs"]["SlotSettings"]):
        file, _, *null = section["properties"]["filter"]["anyOf"]
        section["properties"]["filter"]["anyOf"] = [file, {"$ref": "#/$defs/Filter"}, *null]
    return schema


def sections(model: type[BaseModel]) -> set[type[Section]]:
    """Return a model and those that it is made of."""
    found: set[type[Section]] = set()
    waiting: list[Any] = [model, *get_args(get_args(BridgeSettings)[0])]
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, Section) and one not in found:
            found.add(one)
            waiting += [field.annotation for field in one.model_fields.values()]
        waiting += get_args(one)
    return found


def keys(schema: Schema, part: Schema, path: str, shown: dict[str, str] | None = None) -> Iterator[Key]:
    """Yield the keys of a part of a schema, and of what is in it, the same section once."""
    shown = {} if shown is None else shown
    for name, field in part.get("properties", {}).items():
        here = f"{path}{name}"
        sub, suffix = section_in(schema, field)
        given = field.get("default", "required" if name in part.get("required", ()) else None)
        default = "" if sub is not None and given != "required" else written(given)
        before = [shown[reference] for reference in sub or () if reference in shown]
        same = f"; its keys are those of `{before[0]}`" if before else ""
        yield Key(here, kind(schema, field), default, field["description"] + same)
        for reference in () if before else sub or ():
            shown[reference] = here
            choice = schema["$defs"][reference]
            label = f"{here}{suffix}"
            if len(sub or ()) > 1:
                label += f"({choice['properties']['type']['const']})"
            yield from keys(schema, choice, f"{label}.", shown)


def section_in(schema: Schema, field: Schema) -> tuple[list[str] | None, str]:
    """Return the sections that a key holds, by name, and what stands between the key and theirs."""
    if "$ref" in field:
        return [field["$ref"].rpartition("/")[2]], ""
    for choice in (*field.get("anyOf", ()), *field.get("oneOf", ())):
        if "$ref" in choice:
            references = [one["$ref"].rpartition("/")[2] for one in field.get("oneOf", (choice,))]
            return references, ""
    if field.get("type") == "array":
        found, _ = section_in(schema, field["items"])
        return found, "[]"
    for values in (field.get("additionalProperties"), *field.get("patternProperties", {}).values()):
        if isinstance(values, dict):
            found, _ = section_in(schema, values)
            return found, ".<name>"
    return None, ""


def kind(schema: Schema, field: Schema) -> str:
    """Return what a key holds, in words."""
    if choices := [*field.get("anyOf", ()), *field.get("oneOf", ())]:
        if {"const": 0} in choices:
            return "duration"
        if any("KiB" in choice.get("pattern", "") for choice in choices):
            return "size"
        return " or ".join(dict.fromkeys(kind(schema, one) for one in choices if one.get("type") != "null"))
    if fixed := field.get("enum", [field["const"]] if "const" in field else []):
        return ", ".join(written(value) for value in fixed)
    if field.get("type") == "array":
        of = kind(schema, field["items"])
        return "list of " + {"text": "texts", "mapping": "mappings"}.get(of, of)
    plain = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return plain.get(field.get("type", ""), "mapping") + bounds(field)


def bounds(field: Schema) -> str:
    """Return the bounds of a number, in words."""
    low, high = field.get("minimum"), field.get("maximum")
    above = field.get("exclusiveMinimum")
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    text = f", at least {low:,}" if low is not None else f", above {above:,}" if above is not None else ""
    return text + (f", at most {high:,}" if high is not None else "")


def written(value: object) -> str:
    """Return a value as it stands in YAML; nothing for one that is absent."""
    if value is None or value in ([], {}):
        return ""
    if value == "required":
        return "required"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def table(found: Iterator[Key]) -> str:
    """Return keys as a table."""
    rows = [f"| `{key.path}` | {key.kind} | {key.default} | {key.says.replace('<', '&lt;')} |" for key in found]
    return "\n".join(["| key | holds | default | is |", "|---|---|---|---|", *rows]) + "\n"


CONFIGURATION: Final = """\
# Configuration: every key

The file that `mlade run -c FILE` reads, YAML. Every key can be set from the environment, too, as `MLADE_…` with `__`
between levels: `MLADE_BROKER__URL`; lists as JSON. Unknown keys are errors. Durations are written `500ms 10s 5m 2h 7d`,
sizes `64KiB 1MiB 1GiB`. An example with all of them is `config/processor.yaml`; the JSON schema for editors is
`config/schema/processor.json`. `bridges[](iothub)` is an entry with `type: iothub`. The keys of `filter` are on
[a page of their own](filter.md).
"""

FILTER: Final = """\
# Filter: every key

The same in a file, in the configuration, on the topic `<prefix>/<id>/filter` and in the device twin.
[The filter](../filter.md) explains and shows them. The JSON schema for editors is `config/schema/filter.json`.
"""

COMMANDS: Final = """\
# Commands

`mlade` and `python -m processor` are the same. Exit codes: 0 done; 1 it went wrong, or a filter was rejected; 2 a usage
error or a bad configuration, with every problem; 3 the broker or the processor does not answer.
"""

METRICS_PAGE: Final = """\
# Metrics

On `/metrics` for Prometheus, and as JSON on `<prefix>/<id>/metrics`. The label `model` is there with
[several models](../several-models.md) only.

| metric | kind | labels | counts or tells |
|---|---|---|---|
"""

TOPICS: Final = """\
# Topics

`<prefix>` is `topic_prefix`, `<id>` the processor's `id`. What a processor publishes, and what it listens to beside its
sources:

| topic | from | retained | QoS | content |
|---|---|---|---|---|
"""

OTHER_TOPICS: Final = """\
| `spBv1.0/<group>/NCMD/<edge node>` | the processor | no | 0 | what asks a Sparkplug node for its births, with \
`rebirth` ([formats](../formats.md#sparkplug-b)) |
| `spBv1.0/STATE/<host_id>` | a Sparkplug host | yes | 1 | are nodes listened to, with `host_id`; also the will |

¹ of the model `default`, which is the one of `model`; of each other in `models` it is `<prefix>/<id>/models/<name>/…`
([several models](../several-models.md)).

Whatever a source's filters say, a message under `<prefix>/` is acknowledged and never becomes a reading. A stream in a
topic is percent-encoded except `/`; over 512 bytes it is `sha256-<hex>`.
"""


def configuration() -> str:
    """Return the page about the configuration file."""
    schema = schema_of(Settings, "")
    return f"{MADE}{CONFIGURATION}\n{table(keys(schema, schema, ''))}"


def filter_page() -> str:
    """Return the page about the filter."""
    schema = schema_of(FilterDocument, "")
    return f"{MADE}{FILTER}\n{table(keys(schema, schema, ''))}"


def commands() -> str:
    """Return the page about the commands."""
    root = get_command(app)
    return "\n".join([MADE + COMMANDS, *command_help(root, typer.Context(root, info_name="mlade"), "mlade")])


def command_help(command: Any, context: Any, name: str) -> Iterator[str]:  # noqa: ANN401 - click's, as typer has it
    """Yield the help of a command and those under it."""
    inner: Mapping[str, Any] = getattr(command, "commands", {})
    if not inner:
        context.terminal_width = context.max_content_width = 100
        yield f"## {name}\n\n```\n{command.get_help(context).rstrip()}\n```\n"
    for word, one in inner.items():
        yield from command_help(one, typer.Context(one, info_name=word, parent=context), f"{name} {word}")


def metrics() -> str:
    """Return the page about the metrics."""
    rows = [
        f"| `mlade_{one.name}{'_total' if one.kind == 'counter' else ''}` | {one.kind} | "
        f"{', '.join(f'`{label}`' for label in one.labels)} | {one.text} |\n"
        for one in (*METRICS, SCORE)
    ]
    return MADE + METRICS_PAGE + "".join(rows)


def topics() -> str:
    """Return the page about the topics."""
    rows = [
        f"| `<prefix>/<id>/{one.name}`{' ¹' if one.per_model else ''} | {one.writer} | "
        f"{'yes' if one.retain else 'no'} | {'any' if one.qos is None else one.qos} | {one.says} |\n"
        for one in OWN_TOPICS
    ]
    return MADE + TOPICS + "".join(rows) + OTHER_TOPICS


def made() -> dict[Path, str]:
    """Return every generated file's content."""
    filter_ = schema_of(FilterDocument, "Filter of an mlade processor")
    processor = with_filter(schema_of(Settings, "Configuration of an mlade processor"), filter_)
    schemas = {"processor": processor, "filter": filter_}
    found = {f"config/schema/{name}.json": json.dumps(schema, indent=1) + "\n" for name, schema in schemas.items()}
    found |= {
        "docs/reference/configuration.md": configuration(),
        "docs/reference/filter.md": filter_page(),
        "docs/reference/commands.md": commands(),
        "docs/reference/metrics.md": metrics(),
        "docs/reference/topics.md": topics(),
    }
    return {ROOT / name: text for name, text in found.items()}


def main() -> int:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where something is out of date")
    check = parser.parse_args().check
    stale = [(path, text) for path, text in made().items() if not path.exists() or path.read_text() != text]
    for path, text in stale:
        name = path.relative_to(ROOT)
        print(f"{name} is not what the code says: run make reference" if check else f"{name} written")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())

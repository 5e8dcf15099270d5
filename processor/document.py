"""What users write: YAML or JSON text to plain objects, plain objects to models, and what is wrong with them in words.

YAML here is its 1.2 core schema and no more: `22:00`, `off`, `yes` and dates are text. PyYAML's own loaders follow
YAML 1.1, so only its parser is used and the few events it gives are put together here, within bounds: what arrives
over a topic must never cost much more than its length.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from processor.errors import ConfigurationError, Problem

MAX_DEPTH: Final = 32
"""Mappings and lists inside one another, at most."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser where PyYAML was built with it
_LONGEST_NUMBER: Final = 100
_UNPRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: Final[Mapping[str, object]] = (
    dict.fromkeys(("", "~", "null", "Null", "NULL"))
    | dict.fromkeys(("true", "True", "TRUE"), True)
    | dict.fromkeys(("false", "False", "FALSE"), False)
    | {sign + word: math.inf for sign in ("", "+") for word in (".inf", ".Inf", ".INF")}
    | dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf)
    | dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan)
)


def parse(text: bytes | str, *, max_bytes: int | None = None) -> object:
    """Read one YAML or JSON document.

    Args:
        text: UTF-8 when it is bytes.
        max_bytes: longest text allowed, in bytes of UTF-8.

    Returns:
        Dicts with text as keys, lists, text, ints, floats, bools and None; None for an empty document.

    Raises:
        ConfigurationError: with one problem, `line 3, column 5: …`, for every text that is not such a document.
    """
    if max_bytes is not None:
        size = len(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        if size > max_bytes:
            raise ConfigurationError([Problem("", f"the document has {size} bytes; at most {max_bytes} are allowed")])
    decoded = (_decode(text) if isinstance(text, bytes) else text).removeprefix("\ufeff")
    if decoded.lstrip()[:1] in ("{", "["):
        # What is not JSON, or not ours, the YAML parser reads, or says where it is wrong.
        with contextlib.suppress(ValueError, RecursionError):
            value: object = json.loads(decoded, object_pairs_hook=_without_repeats, parse_constant=_not_json)
            if is_plain(value):
                return value
    return _parse_yaml(decoded)


def _decode(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start)
        column = error.start - text.rfind(b"\n", 0, error.start) - 1
        raise _problem(line, column, f"byte 0x{text[error.start]:02x} is not UTF-8") from None


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("repeated key")
    return mapping


def _not_json(name: str) -> object:
    raise ValueError(name)


def is_plain(value: object, depth: int = 0) -> bool:
    """Whether `value` is no deeper than allowed and all its text can be stored."""
    if isinstance(value, str):
        return _UNSTORABLE.search(value) is None
    if not isinstance(value, dict | list):
        return True
    if depth == MAX_DEPTH:
        return False
    below = (*value, *value.values()) if isinstance(value, dict) else value
    return all(is_plain(item, depth + 1) for item in below)


def _parse_yaml(text: str) -> object:
    if found := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start())
        column = found.start() - text.rfind("\n", 0, found.start()) - 1
        raise _problem(line, column, f"the character U+{ord(found.group()):04X} is not allowed")
    events = yaml.parse(text, Loader=_LOADER)
    try:
        next(events)  # the stream's start
        if isinstance(next(events), yaml.StreamEndEvent):
            return None
        value = _compose(next(events), events, 0)
        next(events)  # the document's end
        if not isinstance(event := next(events), yaml.StreamEndEvent):
            raise _problem_at(event, "a second document begins; only one is allowed")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        raise _problem(line, column, error.problem or error.context or "not YAML") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # escapes beyond Unicode, from the pure parser
        raise ConfigurationError([Problem("", f"not YAML: {error}")]) from None
    return value


def _compose(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> object:
    if isinstance(event, yaml.AliasEvent):
        raise _problem_at(event, f"the alias *{event.anchor} is not allowed; write its value out")
    if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
        raise _problem_at(event, "a value was expected")
    if event.anchor is not None:
        raise _problem_at(event, f"the anchor &{event.anchor} is not allowed; write the value out where it is used")
    if event.tag is not None:
        raise _problem_at(event, f"the tag {event.tag} is not allowed")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event)
    if depth == MAX_DEPTH:
        raise _problem_at(event, f"more than {MAX_DEPTH} lists and mappings inside one another")
    if isinstance(event, yaml.MappingStartEvent):
        return _compose_mapping(events, depth + 1)
    items = []
    while not isinstance(item := next(events), yaml.SequenceEndEvent):
        items.append(_compose(item, events, depth + 1))
    return items


def _compose_mapping(events: Iterator[yaml.Event], depth: int) -> dict[str, object]:
    mapping: dict[str, object] = {}
    while not isinstance(entry := next(events), yaml.MappingEndEvent):
        key = _compose(entry, events, depth)
        if not isinstance(key, str):
            raise _problem_at(entry, f"a key must be text, found {describe(key)}; put it in quotes")
        if key in mapping:
            raise _problem_at(entry, f"the key {describe(key)} is given twice")
        mapping[key] = _compose(next(events), events, depth)
    return mapping


def _scalar(event: yaml.ScalarEvent) -> object:
    text: str = event.value
    if _UNSTORABLE.search(text):
        raise _problem_at(event, "the text holds a NUL or half a character")
    if not event.implicit[0]:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    is_int = _INT.fullmatch(text)
    if not is_int and not _FLOAT.fullmatch(text):
        return text
    if len(text) > _LONGEST_NUMBER:
        raise _problem_at(event, f"a number of {len(text)} characters; at most {_LONGEST_NUMBER} are allowed")
    if not is_int:
        return float(text)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _problem_at(event: yaml.Event, message: str) -> ConfigurationError:
    mark = event.start_mark
    return _problem(mark.line, mark.column, message) if mark else ConfigurationError([Problem("", message)])


def _problem(line: int, column: int, message: str) -> ConfigurationError:
    return ConfigurationError([Problem("", f"line {line + 1}, column {column + 1}: {message}")])


class Flaw(NamedTuple):
    """Something wrong between several keys of one section."""

    where: tuple[str | int, ...]
    """From the section on: `("between", 0)`."""
    message: str


class Section(BaseModel):
    """A mapping in a document: unknown keys are errors, nothing is coerced, nothing changes afterwards.

    All its errors come at once: those of its keys, of the sections in it, and those between keys, which pydantic by
    itself would keep back until every key is right. Their locations are the document's, without pydantic's own parts.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterable[Flaw]:
        """Return what is wrong between keys. `data` is what the user wrote: any value may be of any type."""
        del data
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _report_all_at_once(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, dict):
            return handler(data)
        found = [_error("flaw", flaw.message, flaw.where, data, {"message": flaw.message}) for flaw in cls.flaws(data)]
        try:
            section = handler(data)
        except ValidationError as error:
            known = [field.alias or name for name, field in cls.model_fields.items()]
            details = error.errors(include_url=False)
            found = [_located(detail, data, known) for detail in details] + found
        if found:
            order = {key: position for position, key in enumerate(data)}
            found.sort(key=lambda each: order.get(each["loc"][0], len(order)) if each.get("loc") else -1)
            raise ValidationError.from_exception_data(cls.__name__, found)
        return section


def _located(detail: ErrorDetails, data: dict[str, object], known: Sequence[str]) -> InitErrorDetails:
    """Make the error again with the document's own location, walking `data` to tell its keys from pydantic's parts."""
    location: list[str | int] = []
    node: object = data
    for position, part in enumerate(detail["loc"], 1):
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list | tuple) and isinstance(part, int):
            node = node[part] if part < len(node) else None
        elif position < len(detail["loc"]) or detail["type"] not in {"missing", "flaw"}:
            continue
        elif isinstance(node, dict) and part == node.get("type"):
            continue  # a union's tag: the flaw is of the section as a whole
        location.append(part)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden" and len(location) == 1:
        message = "unknown key" + did_you_mean(str(location[-1]), known, "known keys")
        kind, context = "flaw", {"message": message}
    return _error(kind, detail["msg"], tuple(location), detail["input"], context)


def _error(
    kind: str, message: str, where: tuple[str | int, ...], value: object, context: dict[str, Any]
) -> InitErrorDetails:
    custom = PydanticCustomError(kind, message, context)
    return InitErrorDetails(type=custom, loc=where, input=value)


_EXPECTED: Final[Mapping[str, str]] = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a number",
    "frozen_set_type": "a list",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_type": "a whole number",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "mapping_type": "a mapping",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "string_type": "text",
    "too_long": "{max_length} or fewer entries",
    "too_short": "{min_length} or more entries",
    "tuple_type": "a list",
    "union_tag_invalid": "{discriminator} to be one of {expected_tags}",
}
_SECRET: Final = re.compile(r"password|secret|connection_string")
_SECRET_TEXT: Final = re.compile(r"SharedAccess|connection_string|password", re.IGNORECASE)
"""In a text that should have been something else: a list of bridges in the environment, say, with a comma missing."""
_QUOTED_LITERAL: Final = re.compile(r"(?<![^ ])'([^']*)'(?=,| |$)")


def problems_of(error: ValidationError) -> tuple[Problem, ...]:
    """Say what pydantic found in words, with paths such as `rules[0].band`.

    Known keys after an unknown one, and paths free of a union's tags, need models derived from `Section`.
    """
    expectations: dict[tuple[str, str], list[str]] = {}  # by path and what was found: one entry a union's branch
    for detail in error.errors(include_url=False):
        path = path_of(detail["loc"])
        found, expected = _in_words(detail, path)
        expectations.setdefault((path, found), []).append(expected)
    return tuple(
        Problem(path, f"found {found}, expected {' or '.join(dict.fromkeys(messages))}" if found else message)
        for (path, found), messages in expectations.items()
        for message in (messages[:1] if found else messages)
    )


def _in_words(detail: ErrorDetails, path: str) -> tuple[str, str]:
    """Return what was found and what was expected, or nothing and a whole sentence."""
    context = detail.get("ctx", {})
    value = detail["input"]
    if detail["type"] == "missing":
        return "", "this key is required"
    if detail["type"] == "union_tag_not_found":
        return "", f"the key {str(context.get('discriminator', '')).strip(chr(39))} is required"
    if detail["type"] not in _EXPECTED:
        return "", str(context.get("message") or context.get("error") or detail["msg"])
    expected = _QUOTED_LITERAL.sub(r"\1", _EXPECTED[detail["type"]].format_map(context))
    if detail["type"] == "string_type" and isinstance(value, int | float):
        expected += " (put it in quotes)"
    if detail["type"] in {"too_long", "too_short"}:
        return str(context["actual_length"]), expected
    if detail["type"] == "union_tag_invalid":
        return describe(context["tag"]), expected
    is_secret = _SECRET.search(path) or (isinstance(value, str) and _SECRET_TEXT.search(value))
    return "another value" if is_secret else describe(value), expected


def path_of(location: Iterable[str | int]) -> str:
    """Write a location as a path: `rules[0].band`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def describe(value: object) -> str:
    """Return a value as a user wrote it, shortened."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = str(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:56]} …"  # noqa: PLR2004


def did_you_mean(found: str, known: Sequence[str], title: str) -> str:
    """Return the end of a sentence about an unknown name: the nearest known one, and what is known under `title`."""
    near = difflib.get_close_matches(found[:100], known, n=1)
    listed = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")  # noqa: PLR2004
    return (f'; did you mean "{near[0]}"?' if near else ";") + f" {title}: {listed or 'none'}"


_NAME: Final = r"^[A-Za-z0-9_-]{1,64}$"


def _name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        raise ValueError(f"found {describe(text)}, expected 1 to 64 of the letters A-Z and a-z, digits, _ and -")
    return text


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": _NAME})]
"""A name that is safe in topics, paths and properties."""


MAX_ENTRIES: Final = 1000


def not_too_many(value: object) -> object:
    """Refuse a list or mapping of over a thousand entries."""
    # First of all, because pydantic counts only what it has validated: a long list of mistakes would take seconds.
    if isinstance(value, list | dict) and len(value) > MAX_ENTRIES:
        raise ValueError(f"found {len(value)} entries, expected at most {MAX_ENTRIES}")
    return value


Entry = TypeVar("Entry")
Many = Annotated[tuple[Entry, ...], Field(strict=False, max_length=MAX_ENTRIES), BeforeValidator(not_too_many)]
"""A list of at most 1000. Strict for pydantic would mean a tuple, which no document holds."""

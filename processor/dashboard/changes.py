"""What differs between two filters, in the words of the document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

_LONGEST: Final = 60
_NOTHING: Final = object()


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return each difference as a line; rules are told apart by their names."""
    return list(_compare("", before, after))


def summary(before: Mapping[str, Any], after: Mapping[str, Any], most: int = 3) -> str:
    """Return the first differences in one line."""
    found = differences(before, after)
    more = f"; and {len(found) - most} more" if len(found) > most else ""
    return "; ".join(found[:most]) + more


def _compare(path: str, before: object, after: object) -> Iterator[str]:
    if before == after:
        return
    old, new = _by_key(before), _by_key(after)
    if old is None or new is None:
        yield _line(path, before, after)
        return
    for key in dict.fromkeys([*old, *new]):
        yield from _compare(f"{path}.{key}" if path else str(key), old.get(key, _NOTHING), new.get(key, _NOTHING))
    if list(old) != list(new) and sorted(map(str, old)) == sorted(map(str, new)) and isinstance(after, list):
        yield f"{path}: another order"


def _by_key(value: object) -> dict[object, object] | None:
    """Return a mapping, or a list of named things by their names; None for anything else."""
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value):
        return {str(one["name"]): one for one in value}
    return None


def _line(path: str, before: object, after: object) -> str:
    if before is _NOTHING:
        return f"{path} added: {_text(after)}" if not isinstance(after, dict) else f"{path} added"
    if after is _NOTHING:
        return f"{path} removed"
    return f"{path}: {_text(before)} → {_text(after)}"


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


_SOURCES: Final[Mapping[str, str]] = {"topic": "over MQTT", "twin": "from the device twin", "file": "from its own file"}


def origin(source: str, user: str | None) -> str:
    """Return where a filter came from, and who sent it where they say so: MQTT itself tells no author."""
    way = _SOURCES.get(source, f"from {source}" if source else "nobody knows from where")
    return f"by {user}, {way}" if user else way

"""A twin's two sections (IoT Hub: "Understand and use device twins")."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

Json = Any
"""What `json` reads and writes."""

LARGEST = 32 * 1024
"""Bytes that a section may have."""
_LARGEST_STRING = 4 * 1024
_LARGEST_KEY = 1024
_DEEPEST = 10
_SMALLEST_INTEGER, _LARGEST_INTEGER = -4503599627370496, 4503599627370495


class Section:
    """The desired or the reported properties.

    Attributes:
        values: without `$version`.
        version: grows by one with each change.
    """

    def __init__(self) -> None:
        """Begin empty, at version 1."""
        self.values: dict[str, Json] = {}
        self.version = 1

    @property
    def document(self) -> dict[str, Json]:
        """What a device reads."""
        return {**self.values, "$version": self.version}

    def patch(self, patch: Json) -> None:
        """Merge a document: members are replaced, objects merged, and what is null is removed.

        Raises:
            ValueError: it is no object, or something that the service does not store.
        """
        if not isinstance(patch, dict):
            raise ValueError(f"a twin takes JSON objects, not {patch!r}")  # noqa: TRY004 - a value of a document
        _check(patch, 1)
        merged = _merge(self.values, patch)
        if _size(merged) > LARGEST:
            raise ValueError(f"{_size(merged)} bytes; a section has at most {LARGEST}")
        self.values = merged
        self.version += 1

    def replace(self, values: Mapping[str, Json]) -> None:
        """Put a whole document in the place of what is there.

        Raises:
            ValueError: as for `patch`.
        """
        gone = {name: None for name in self.values if name not in values}
        kept, self.values = self.values, {}
        try:
            self.patch(dict(values))
        except ValueError:
            self.values = kept
            raise
        self.values = _merge(self.values, gone)


def read(payload: bytes) -> Json:
    """Read a document.

    Raises:
        ValueError: it is not JSON.
    """
    return json.loads(payload)


def _merge(old: Mapping[str, Json], patch: Mapping[str, Json]) -> dict[str, Json]:
    merged = dict(old)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            before = merged.get(name)
            merged[name] = _merge(before if isinstance(before, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def _check(value: Json, depth: int) -> None:
    """Raise a ValueError for what the service refuses."""
    if isinstance(value, dict):
        if depth > _DEEPEST:
            raise ValueError(f"objects nested deeper than {_DEEPEST}")
        for name, member in value.items():
            _check_key(name)
            _check(member, depth + 1)
    elif isinstance(value, list):
        for member in value:
            _check(member, depth + 1)
    elif isinstance(value, str) and len(value.encode()) > _LARGEST_STRING:
        raise ValueError(f"a string of {len(value.encode())} bytes; at most {_LARGEST_STRING} are allowed")
    elif type(value) is int and not _SMALLEST_INTEGER <= value <= _LARGEST_INTEGER:
        raise ValueError(f"{value} is not between {_SMALLEST_INTEGER} and {_LARGEST_INTEGER}")


def _check_key(name: str) -> None:
    if len(name.encode()) > _LARGEST_KEY:
        raise ValueError(f"a key of {len(name.encode())} bytes; at most {_LARGEST_KEY} are allowed")
    if any(letter in ".$ " or unicodedata.category(letter) == "Cc" for letter in name):
        raise ValueError(f"the key {name!r} has a dot, a dollar, a space or a control character")


def _size(value: Json) -> int:
    if isinstance(value, dict):
        return sum(len(name.encode()) + _size(member) for name, member in value.items())
    if isinstance(value, list):
        return sum(_size(member) for member in value)
    if isinstance(value, str):
        return len(value.encode())
    return 4 if isinstance(value, bool) else 8

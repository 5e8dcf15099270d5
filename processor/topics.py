"""MQTT topic names and filters: what is valid, what matches, how a stream is written in a topic."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple
from urllib.parse import quote_from_bytes

_LONGEST = 65_535
"""Bytes of UTF-8 that a topic or filter may have (MQTT 5, 1.5.4)."""
_LONGEST_STREAM = 512
_SHARE = "$share"
_PLACEHOLDER = re.compile(r"\{(topic|source)(?:\[(\d+)\])?\}|\{field:[^{}]+\}")


class SharedFilter(NamedTuple):
    """A subscription filter in its two parts."""

    group: str | None
    """Name of the shared subscription's group; None for an ordinary filter."""
    filter: str


def split_share(text: str) -> SharedFilter:
    """Take `$share/<group>/<filter>` apart; any other filter is returned whole."""
    levels = text.split("/", 2)
    if levels[0] != _SHARE:
        return SharedFilter(None, text)
    return SharedFilter(levels[1] if len(levels) > 1 else "", levels[2] if len(levels) > 2 else "")  # noqa: PLR2004


def validate_filter(text: str) -> str | None:
    """Return what is wrong with a subscription filter, as a sentence; None when nothing is."""
    if problem := _validate_text(text, "filter"):
        return problem
    group, plain = split_share(text)
    if group is not None and (not group or not plain or "+" in group or "#" in group):
        return f"{text!r} is not a shared subscription; expected $share/<group>/<filter>, the group without + and #."
    levels = plain.split("/")
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index < len(levels) - 1):
            return f"{text!r} has a # that is not its whole last level; # stands alone, at the end."
        if "+" in level and level != "+":
            return f"{text!r} has a + that is not a whole level; + stands alone between slashes."
    return None


def validate_topic(text: str) -> str | None:
    """Return what is wrong with a topic that is to be published to, as a sentence; None when nothing is."""
    if problem := _validate_text(text, "topic"):
        return problem
    if "+" in text or "#" in text:
        return f"{text[:100]!r} has a wildcard; a topic that is published to has neither + nor #."
    return None


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether a message on `topic` reaches a subscription to `topic_filter` (MQTT 5, 4.7 and 4.8.2)."""
    pattern = split_share(topic_filter).filter.split("/")
    levels = topic.split("/")
    if topic.startswith("$") and pattern[0] in ("+", "#"):
        return False
    if pattern[-1] == "#":
        pattern.pop()  # `a/#` matches `a` too: it includes the parent level
        levels = levels[: len(pattern)]
    return len(levels) == len(pattern) and all(want in ("+", have) for want, have in zip(pattern, levels, strict=True))


def covers(topic_filter: str, other: str) -> bool:
    """Return whether every message that reaches a subscription to `other` reaches one to `topic_filter`, too."""
    return (topic_filter.endswith("#") or not other.endswith("#")) and matches(topic_filter, other)


def render(template: str, source: str, topic: str) -> list[str]:
    """Return the key of a source's stream for a topic; in two parts where what is between them is in the payload.

    Raises:
        IndexError: the topic has too few levels.
    """
    levels = topic.split("/")
    parts = [""]
    end = 0
    for found in _PLACEHOLDER.finditer(template):
        parts[-1] += template[end : found.start()]
        end = found.end()
        if found[1] == "source":
            parts[-1] += source
        elif found[1] == "topic":
            parts[-1] += topic if found[2] is None else levels[int(found[2])]
        else:
            parts.append("")
    parts[-1] += template[end:]
    return parts


def encode_stream(key: str) -> str:
    """Write a stream's key so that it is safe within a topic or a property.

    Percent-encoded except `/`; when that takes more than 512 bytes, `sha256-` and the digest of the key's UTF-8.
    """
    encoded = key.encode("utf-8", "surrogatepass")
    written = quote_from_bytes(encoded, safe="/")
    return written if len(written) <= _LONGEST_STREAM else f"sha256-{hashlib.sha256(encoded).hexdigest()}"


def _validate_text(text: str, what: str) -> str | None:
    if not text:
        return f"The {what} is empty; expected at least one character."
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return f"The {what} {text[:100]!r} cannot be written as UTF-8; remove its lone surrogates."
    if size > _LONGEST:
        return f"The {what} {text[:100]!r}… takes {size} bytes; expected at most {_LONGEST}."
    if "\0" in text:
        return f"The {what} {text[:100]!r} has a NUL character; remove it."
    return None

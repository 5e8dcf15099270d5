"""Topics that belong together, and the filters that match them and no other. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from processor.discover.looks import Signature

_ALIKE: Final = 0.5
"""The share of two topics' fields that both have, from which on they are of one family."""
_COUNTED: Final = re.compile(r"[0-9]+|\b[0-9a-fA-F]{6,}\b|\b[A-Za-z]\b")
"""What tells instances of one thing apart: digits, hexadecimal identifiers, single letters."""
_SPELT: Final = re.compile(r"(?=.*[0-9])[0-9a-fA-F:-]{6,}")
_GENERIC: Final = re.compile(
    "v|val|value|values|data|state|status|raw|reading|readings|measurement|measurements|telemetry|payload|json|x|y|c[0-9]+"
    "|current|sample|samples",
    re.IGNORECASE,
)
"""Names that do not tell what is measured."""


class Family(NamedTuple):
    """Topics of one kind."""

    topics: tuple[str, ...]
    signature: Signature
    """With all the fields of its topics."""
    filters: tuple[str, ...]
    """Topic filters that match its topics, and no other topic that was heard."""


def group(signatures: Mapping[str, Signature], others: Collection[str] = ()) -> list[Family]:
    """Put topics into families.

    Args:
        signatures: what each topic's payloads look like.
        others: further topics that were heard, which no filter may match.
    """
    kinds: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for topic, found in sorted(signatures.items()):
        kinds[topic.count("/"), found.format, found.kind, found.details].append(topic)
    by_depth: dict[int, dict[str, list[str]]] = defaultdict(dict)
    for topic in (*signatures, *others):
        by_depth[topic.count("/")][topic] = topic.split("/")
    families = []
    for topics in kinds.values():
        for alike, names in _by_fields(topics, signatures):
            signature = signatures[alike[0]]._replace(names=names)
            for members in _by_quantity(alike, signature):
                mine, near = set(members), by_depth[members[0].count("/")]
                foreign = [levels for topic, levels in near.items() if topic not in mine]
                filters = cover([near[topic] for topic in members], foreign)
                families.append(Family(tuple(members), signature, tuple(filters)))
    return families


def _by_fields(topics: Iterable[str], signatures: Mapping[str, Signature]) -> list[tuple[list[str], frozenset[str]]]:
    """Put those topics together whose fields are mostly the same; the fullest come first, and others join them."""
    by_names: dict[frozenset[str], list[str]] = defaultdict(list)
    for topic in topics:
        by_names[signatures[topic].names].append(topic)
    groups: list[tuple[list[str], frozenset[str]]] = []
    for names, alike in sorted(by_names.items(), key=lambda item: (-len(item[0]), sorted(item[0]))):
        for position, (members, core) in enumerate(groups):
            if len(names & core) >= _ALIKE * len(names | core):
                groups[position] = (sorted(members + alike), core | names)
                break
        else:
            groups.append((list(alike), names))
    return groups


def _by_quantity(topics: Sequence[str], signature: Signature) -> list[list[str]]:
    """Take topics apart whose payloads do not say what they measure and whose names do: `…/temp` and `…/vibration`."""
    if any(not _GENERIC.fullmatch(name.rsplit("/", 1)[-1]) and not _is_plain(name) for name in signature.names):
        return [list(topics)]
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for topic in topics:
        groups[_quantity(topic.split("/"))].append(topic)
    return list(groups.values())


def _is_plain(name: str) -> bool:
    """Whether a name is that of a time or a counter, which any payload may have."""
    return re.fullmatch("(?:.*/)?(?:ts|t|time|timestamp|seq|id|unit|n)", name, re.IGNORECASE) is not None


def _quantity(levels: Sequence[str]) -> tuple[str, ...]:
    """Return what a topic says is measured: its last level that is no general word, without what counts instances."""
    telling = [level for level in levels if not _GENERIC.fullmatch(level)]
    last = telling[-1] if telling else levels[-1]
    return (_kind_of(last),)


def _kind_of(level: str) -> str:
    return "#" if _SPELT.fullmatch(level) else _COUNTED.sub("#", level)


def cover(members: Sequence[Sequence[str]], foreign: Sequence[Sequence[str]]) -> list[str]:
    """Return topic filters that match `members`, all of as many levels, and nothing of `foreign`.

    As few as come of fixing one level after another; in the end each topic has a filter of its own. At least one level
    is always fixed: a filter of wildcards only would match whatever is new on the broker.
    """
    pattern = [column[0] if len(set(column)) == 1 else "+" for column in zip(*members, strict=True)]
    free = [position for position, level in enumerate(pattern) if level == "+"]
    hit = [levels for levels in foreign if _matches(pattern, levels)]
    hidden = pattern[0] == "+" and any(levels[0].startswith("$") for levels in members)  # a wildcard matches no $
    if not hit and not hidden and len(free) < len(pattern):
        return ["/".join(pattern)]
    if hidden:
        free, hit = [0], list(foreign)
    best = min((_split(members, position, hit) for position in free), key=lambda split: (split.left, len(split.parts)))
    return [text for part in best.parts for text in cover(part, hit)]


class _Split(NamedTuple):
    """Topics taken apart by one of their levels."""

    parts: list[list[Sequence[str]]]
    left: int
    """How many foreign topics have one of these values at that level."""


def _split(members: Sequence[Sequence[str]], position: int, foreign: Sequence[Sequence[str]]) -> _Split:
    parts: dict[str, list[Sequence[str]]] = defaultdict(list)
    for levels in members:
        parts[levels[position]].append(levels)
    return _Split(list(parts.values()), sum(levels[position] in parts for levels in foreign))


def _matches(pattern: Sequence[str], levels: Sequence[str]) -> bool:
    """Whether a filter of as many levels, without #, matches a topic."""
    if pattern[0] == "+" and levels[0].startswith("$"):
        return False
    return all(want in ("+", have) for want, have in zip(pattern, levels, strict=True))

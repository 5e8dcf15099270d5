"""From what was heard so far to proposals; again and again while there is more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from processor.discover import sparkplug
from processor.discover.families import group
from processor.discover.heard import Heard, without_processors
from processor.discover.looks import MOST_LOOKED_AT, Signature, signature
from processor.discover.proposals import Proposal, gather, propose

_LOOKS: Final = 20_000
"""Messages that are looked at to put topics into families: a second or two."""
_FEWEST: Final = 4
"""Of each topic."""


class Learner:
    """Says what families there are. Used by one thread."""

    def __init__(self, heard: Heard, channels: Sequence[int]) -> None:
        """Take what is heard, which grows, and the numbers of channels that a model may want; empty: any."""
        self._heard = heard
        self._channels = channels
        self._known: dict[str, tuple[int, Signature | None]] = {}
        """What each topic looked like, and after how many messages: looked at again when they have doubled."""

    def proposals(self, *, final: bool = False) -> list[Proposal]:
        """Return what is known now; `final`: everything is looked at again."""
        topics = {topic.name: topic for topic in without_processors(self._heard.topics)}
        edge = [topic for topic in topics.values() if sparkplug.is_sparkplug(topic.name)]
        silent = [topic.name for topic in edge]
        most = max(_FEWEST, min(MOST_LOOKED_AT, _LOOKS // max(1, len(topics))))
        signatures: dict[str, Signature] = {}
        for name, topic in topics.items():
            if sparkplug.is_sparkplug(name):
                continue
            count = topic.messages + topic.retained
            seen_at, found = self._known.get(name, (0, None))
            if final or not seen_at or count >= 2 * seen_at:
                found = signature(topic, most)
                self._known[name] = count, found
            if found is None:
                silent.append(name)
            else:
                signatures[name] = found
        families = [(family, gather(family, topics)) for family in group(signatures, silent)]
        return propose([*families, *sparkplug.families(edge)], self._channels)

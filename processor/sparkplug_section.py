"""The keys that only a source of Sparkplug B has, and those that it cannot have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import Field, field_validator

from processor import document, topics
from processor.document import Flaw
from processor.sections import Section, Text

_WHOLE_NODES: Final = re.compile(r"(#|(spBv1\.0|\+)/(#|[^/]+/(#|\+/(#|[^/]+/#))))")
"""Topic filters that let every message of a node through, or none."""


class SparkplugKeys(Section):
    """How Sparkplug's edge nodes are dealt with."""

    host_id: Text | None = Field(
        default=None, description="the host application that edge nodes wait for; its state is then told to them"
    )
    rebirth: bool = Field(default=True, description="whether edge nodes are asked for births that were not seen")

    @field_validator("host_id")
    @classmethod
    def _one_level(cls, host_id: str | None) -> str | None:
        if host_id is not None and (problem := topics.validate_topic(host_id)):
            raise ValueError(problem)
        if host_id is not None and "/" in host_id:
            raise ValueError(f"found {document.describe(host_id)}, expected one level of a topic, without /")
        return host_id


def flaws(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Refuse in a source what Sparkplug's topics say, and filters that let only some of a node's messages through."""
    if data.get("format") != "sparkplug":
        return
    if data.get("stream") is not None:
        yield Flaw(("stream",), "a stream is <group>/<edge node>[/<device>], as the topic says; leave this key out")
    if data.get("input") is not None:
        yield Flaw(("input",), "who sends is said in Sparkplug's topics, and an input has none; give topics instead")
    given = data.get("topics")
    for index, text in enumerate(given if isinstance(given, list) else ()):
        if isinstance(text, str) and not _WHOLE_NODES.fullmatch(text):
            yield Flaw(
                ("topics", index),
                f"found {document.describe(text)}, but a node's births, data and deaths, and those of its devices, are "
                "read together; expected spBv1.0/#, spBv1.0/<group>/# or spBv1.0/<group>/+/<edge node>/#",
            )

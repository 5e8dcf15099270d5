"""`mlade discover`: which topics belong together, and filters that match them and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor import topics
from processor.discover.families import Family, group
from processor.discover.looks import Signature

NUMBER = Signature("number", "number", (), frozenset({"value"}))
PRESS = Signature("json", "object", (), frozenset({"ts", "force", "stroke"}))
TEXT = Signature("", "text", (), frozenset(), "text")
VALUE = Signature("json", "object", (), frozenset({"ts", "value"}))

levels = st.sampled_from(["a", "b", "7", "8", "line-1", "line-2", "temp", "vib", "press", "", "$x", "é"])
names = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)
signatures = st.sampled_from([NUMBER, PRESS, TEXT, VALUE, PRESS._replace(names=frozenset({"ts", "force"}))])


def filters_of(*named: str, signature: Signature = PRESS, others: Mapping[str, Signature] | None = None) -> list[str]:
    """Return the filters of the families that topics of one signature are put into."""
    found = group(dict.fromkeys(named, signature) | dict(others or {}))
    return sorted(text for family in found if family.signature.kind == signature.kind for text in family.filters)


@given(st.dictionaries(names, signatures, max_size=30), st.lists(names, max_size=5))
def test_filters_match_their_own_topics_and_no_other(heard: dict[str, Signature], others: list[str]) -> None:
    """Whatever is on the broker: each topic is in one family, and its filters are the only ones that match it."""
    silent = [topic for topic in others if topic not in heard]
    families = group(heard, silent)
    assert sorted(topic for family in families for topic in family.topics) == sorted(heard)
    for topic in [*heard, *silent]:
        matching = [family for family in families if any(topics.matches(text, topic) for text in family.filters)]
        assert matching == [family for family in families if topic in family.topics]
    assert all(topics.validate_filter(text) is None for family in families for text in family.filters)


@given(st.dictionaries(names, signatures, min_size=1, max_size=20))
def test_what_is_in_a_family_is_alike(heard: dict[str, Signature]) -> None:
    """One depth and one shape of payload; the family's signature has all its topics' fields."""
    for family in group(heard):
        assert len({topic.count("/") for topic in family.topics}) == 1
        assert {heard[topic].kind for topic in family.topics} == {family.signature.kind}
        assert all(heard[topic].names <= family.signature.names for topic in family.topics)


@given(st.dictionaries(names, signatures, max_size=20))
def test_the_order_of_arrival_does_not_matter(heard: dict[str, Signature]) -> None:
    """The same topics give the same families."""
    backwards = dict(reversed(list(heard.items())))
    assert group(heard) == group(backwards)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (["plant/7/press", "plant/8/press"], ["plant/+/press"]),
        (["rooms/kitchen/climate", "rooms/bath/climate"], ["rooms/+/climate"]),
        (["a/7/x/press", "b/8/y/press"], ["+/+/+/press"]),
        (["plant/7", "plant/8", "plant/7/deep"], ["plant/+", "plant/7/deep"]),
        (["one", "two"], ["one", "two"]),
    ],
)
def test_a_level_that_varies_becomes_a_wildcard(named: list[str], expected: list[str]) -> None:
    """Payloads that name their fields are alike wherever they come from; some level stays fixed."""
    assert filters_of(*named) == expected


@pytest.mark.parametrize("signature", [NUMBER, VALUE])
def test_topics_that_name_what_is_measured_stay_apart(signature: Signature) -> None:
    """A number alone does not tell a temperature from a vibration; the topic does."""
    named = [f"plant/{line}/{what}" for line in ("7", "8") for what in ("temp", "vib")]
    assert filters_of(*named, signature=signature) == ["plant/+/temp", "plant/+/vib"]
    assert filters_of("m/1/t1", "m/1/t2", "m/1/t3", signature=signature) == ["m/1/+"]
    assert filters_of("h/1/temp/value", "h/1/vib/value", signature=signature) == ["h/1/temp/value", "h/1/vib/value"]


def test_a_wildcard_does_not_swallow_another_family() -> None:
    """Where two kinds of payload share a pattern, levels are fixed until they are apart."""
    heard = {f"plant/{n}/data": PRESS for n in range(1, 5)} | {"plant/9/data": NUMBER, "plant/10/data": TEXT}
    assert filters_of(others=heard) == [f"plant/{n}/data" for n in range(1, 5)]
    by_site = {f"site-{s}/{n}/data": PRESS if s == "a" else NUMBER for s in "ab" for n in range(3)}
    assert filters_of(others=by_site) == ["site-a/+/data"]


def test_a_field_more_or_less_makes_no_other_family() -> None:
    """A device with a newer firmware is of the same kind."""
    newer = PRESS._replace(names=PRESS.names | {"angle"})
    (family,) = group({"plant/7/press": PRESS, "plant/8/press": newer})
    assert family == Family(("plant/7/press", "plant/8/press"), newer, ("plant/+/press",))
    other = PRESS._replace(names=frozenset({"ts", "flow", "level"}))
    assert len(group({"plant/7/press": PRESS, "plant/8/tank": other})) == 2

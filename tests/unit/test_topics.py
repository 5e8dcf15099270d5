"""Topic names and filters."""

from __future__ import annotations

import hashlib
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from processor.topics import covers, encode_stream, matches, split_share, validate_filter, validate_topic

levels = st.sampled_from(["", "a", "b", "$SYS", "+", "#"])
names = st.lists(st.sampled_from(["", "a", "b", "$SYS"]), min_size=1, max_size=4).map("/".join).filter(bool)
filters = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(lambda text: validate_filter(text) is None)


@pytest.mark.parametrize(
    "text", ["a", "/", "a//b", "+", "#", "+/a/#", "a/+/b", "$SYS/#", "$share/g/a/#", "$share/g//a", "ü/+", "a" * 65_535]
)
def test_valid_filters_have_no_problem(text: str) -> None:
    """Everything that MQTT allows is allowed."""
    assert validate_filter(text) is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        ("a/#/b", "#"),
        ("a#", "#"),
        ("a/b#", "#"),
        ("##", "#"),
        ("a+/b", "+"),
        ("a/+b", "+"),
        ("a\0b", "NUL"),
        ("\ud800", "UTF-8"),
        ("a" * 65_536, "65536"),
        ("ü" * 40_000, "80000"),
        ("$share", "$share/<group>/<filter>"),
        ("$share/g", "$share/<group>/<filter>"),
        ("$share/g/", "$share/<group>/<filter>"),
        ("$share//a", "$share/<group>/<filter>"),
        ("$share/g+/a", "$share/<group>/<filter>"),
        ("$share/#/a", "$share/<group>/<filter>"),
        ("$share/g/a#", "#"),
    ],
)
def test_wrong_filters_have_a_problem_that_says_why(text: str, word: str) -> None:
    """Each mistake is named in a sentence."""
    problem = validate_filter(text)
    assert problem is not None
    assert word in problem
    assert problem.endswith(".")


@pytest.mark.parametrize("text", ["a", "/", "$SYS/x", "ü/ /b", "a" * 65_535])
def test_valid_topics_have_no_problem(text: str) -> None:
    """Everything that one may publish to is allowed."""
    assert validate_topic(text) is None


@pytest.mark.parametrize("text", ["", "a/+", "#", "a#b", "a\0", "\udfff", "a" * 65_536])
def test_wrong_topics_have_a_problem(text: str) -> None:
    """Whatever would make the broker end the connection is found before."""
    assert validate_topic(text) is not None


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        ("sport/#", "sport"),
        ("sport/#", "sport/"),
        ("sport/#", "sport/tennis/player1"),
        ("sport/+", "sport/"),
        ("+/+", "/finance"),
        ("/+", "/finance"),
        ("+/tennis/#", "sport/tennis"),
        ("$SYS/#", "$SYS/broker"),
        ("$SYS/+", "$SYS/broker"),
        ("a/+", "a/$b"),
        ("$share/group/a/#", "a/b"),
        ("$share/group//a", "/a"),
    ],
)
def test_matching_filters_match(topic_filter: str, topic: str) -> None:
    """The examples of the MQTT specification, and those of shared subscriptions."""
    assert matches(topic_filter, topic)


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        ("sport/+", "sport"),
        ("+", "/finance"),
        ("sport", "Sport"),
        ("a/b", "a/b/c"),
        ("a/b/c", "a/b"),
        ("a/+/#", "a"),
        ("#", "$SYS/broker"),
        ("+/broker", "$SYS/broker"),
        ("$share/group/#", "$SYS/broker"),
        ("$share/group/a", "$share/group/a"),
    ],
)
def test_other_filters_do_not_match(topic_filter: str, topic: str) -> None:
    """Wildcards stay within their levels and away from topics that begin with $."""
    assert not matches(topic_filter, topic)


@given(filters, names)
def test_matching_agrees_with_paho(topic_filter: str, topic: str) -> None:
    """An implementation of others gives the same answers."""
    if not topic_filter.startswith("$share"):
        assert matches(topic_filter, topic) == topic_matches_sub(topic_filter, topic)


@pytest.mark.parametrize(
    ("wide", "narrow"), [("#", "#"), ("#", "+/b"), ("+/+", "a/+"), ("a/#", "a"), ("a/#", "a/+/c/#"), ("+/#", "#")]
)
def test_a_filter_covers_a_narrower_one(wide: str, narrow: str) -> None:
    """The narrower one does not cover it, unless they mean the same."""
    assert covers(wide, narrow)
    assert not covers(narrow, wide) or {wide, narrow} <= {"#", "+/#"}


@pytest.mark.parametrize(("one", "other"), [("+", "#"), ("a/+", "+/b"), ("#", "$SYS/x"), ("a/+", "a/#"), ("a", "b")])
def test_a_filter_that_leaves_something_out_covers_nothing(one: str, other: str) -> None:
    """Also where both take some of the same topics."""
    assert not covers(one, other)


def test_a_shared_filter_is_taken_apart() -> None:
    """Group and filter are told apart, and an ordinary filter has no group."""
    assert split_share("$share/group/a/b") == ("group", "a/b")
    assert split_share("a/b") == (None, "a/b")
    assert split_share("$shared/group/a") == (None, "$shared/group/a")


@pytest.mark.parametrize(
    ("key", "written"),
    [("a/b", "a/b"), ("a b", "a%20b"), ("+#%", "%2B%23%25"), ("ü", "%C3%BC"), ("\0", "%00"), ("$SYS/x", "%24SYS/x")],
)
def test_a_stream_is_percent_encoded_except_slashes(key: str, written: str) -> None:
    """Nothing in a key can be a wildcard or reach a $ topic."""
    assert encode_stream(key) == written


def test_a_long_stream_is_written_as_its_digest() -> None:
    """512 bytes are written out, one more is not; what counts is the encoded form."""
    assert encode_stream("a" * 512) == "a" * 512
    assert encode_stream("a" * 513) == "sha256-" + hashlib.sha256(b"a" * 513).hexdigest()
    assert encode_stream("ü" * 86) == "sha256-" + hashlib.sha256("ü".encode() * 86).hexdigest()


@given(st.text(st.characters(), min_size=1, max_size=40))
def test_an_encoded_stream_is_a_topic_that_can_be_decoded(key: str) -> None:
    """Whatever the key, the result may be published to, and short ones lose nothing."""
    written = encode_stream(key)
    assert validate_topic(written) is None
    if not written.startswith("sha256-"):
        assert unquote_to_bytes(written).decode("utf-8", "surrogatepass") == key

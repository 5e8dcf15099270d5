"""MQTT 5 properties, as they came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.mqtt.properties import MessageProperties, properties
from processor.types import Message


def pair(name: bytes, value: bytes) -> bytes:
    """Return a user property."""
    return b"\x26" + b"".join(len(text).to_bytes(2, "big") + text for text in (name, value))


@pytest.mark.parametrize(
    ("raw", "user"),
    [
        (pair(b"user", b"Ada"), "Ada"),
        (pair(b"plant", b"7") + pair(b"user", b"Ada") + b"\x03\x00\x01j", "Ada"),
        (pair(b"user", b"x" * 100), "x" * 64),
        (pair(b"user", b""), None),
        (pair(b"user", b"\xff"), None),
        (pair(b"users", b"Ada"), None),
        (pair(b"user", b"Ada")[:-1], None),
    ],
)
def test_a_message_may_say_who_sent_it(raw: bytes, user: str | None) -> None:
    """In a user property of that name."""
    assert properties(Message("t", b"", properties=raw)).user == user


@given(st.binary(max_size=40))
def test_nothing_in_properties_is_an_error(raw: bytes) -> None:
    """What is not understood counts as absent."""
    assert isinstance(properties(Message("t", b"", properties=raw)), MessageProperties)

"""The MQTT 5 properties of a received message, which are kept as they came and rarely looked at."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from processor.mqtt.packets import MalformedPacketError, variable_integer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from processor.types import Message

_LONGEST_CACHED_PROPERTIES = 64

_SUBSCRIPTION_IDENTIFIER = 0x0B
_CONTENT_TYPE = 0x03
_RESPONSE_TOPIC = 0x08
_CORRELATION_DATA = 0x09
_FIXED_PROPERTIES = {0x01: 1, 0x02: 4, 0x23: 2}
"""Bytes of payload format indicator, message expiry interval and topic alias."""
_STRINGS = (_CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION_DATA)
"""Those with one length-prefixed string, or bytes."""
_USER_PROPERTY = 0x26
"""Two such strings: a name and what it stands for."""
_USER = b"\x00\x04user"
_LONGEST_USER = 64


class MessageProperties(NamedTuple):
    """Those MQTT 5 properties of a message that mlade uses."""

    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_identifiers: tuple[int, ...] = ()
    content_type: str | None = None
    user: str | None = None
    """The user property of that name: who sent it, as they call themselves; at most 64 characters."""


def properties(message: Message) -> MessageProperties:
    """Decode a message's properties. What is not understood, and all that follows it, counts as absent."""
    return _decode(message.properties)


def _decode(raw: bytes) -> MessageProperties:
    found: dict[int, bytes] = {}
    identifiers: list[int] = []
    with suppress(IndexError, MalformedPacketError):
        for identifier, value in _each_property(raw):
            if identifier == _SUBSCRIPTION_IDENTIFIER:
                identifiers.append(variable_integer(value, 0)[0])
            elif identifier == _USER_PROPERTY:
                if value.startswith(_USER):
                    found[identifier] = value[len(_USER) + 2 :]
            else:
                found[identifier] = value
    return MessageProperties(
        response_topic=_text(found.get(_RESPONSE_TOPIC)),
        correlation_data=found.get(_CORRELATION_DATA),
        subscription_identifiers=tuple(identifiers),
        content_type=_text(found.get(_CONTENT_TYPE)),
        user=(_text(found.get(_USER_PROPERTY)) or "")[:_LONGEST_USER] or None,
    )


def subscription_identifiers(raw: bytes) -> tuple[int, ...]:
    """Return the identifiers of the subscriptions that a message with these properties came for."""
    return _cached_identifiers(raw) if len(raw) <= _LONGEST_CACHED_PROPERTIES else _identifiers(raw)


def _identifiers(raw: bytes) -> tuple[int, ...]:
    return _decode(raw).subscription_identifiers


_cached_identifiers = lru_cache(maxsize=1024)(_identifiers)


def _text(value: bytes | None) -> str | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _each_property(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each property's identifier and value. Raises IndexError or MalformedPacketError where they are wrong."""
    at = 0
    while at < len(raw):
        identifier = raw[at]
        at += 1
        value_at = at
        if identifier in _STRINGS:
            value_at = at + 2
            at = value_at + (raw[at] << 8 | raw[at + 1])
        elif identifier == _USER_PROPERTY:
            for _ in range(2):
                at += 2 + (raw[at] << 8 | raw[at + 1])
        elif identifier == _SUBSCRIPTION_IDENTIFIER:
            at += variable_integer(raw, at)[1] or len(raw)
        else:
            at += _FIXED_PROPERTIES.get(identifier, len(raw))  # an unknown one is as good as the end
        if at > len(raw):
            raise MalformedPacketError(f"property 0x{identifier:02x} is cut off or unknown")
        yield identifier, raw[value_at:at]

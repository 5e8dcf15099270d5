"""Both readers, paho's and ours, make the same of the same bytes; and what only ours does."""

from __future__ import annotations

import itertools
import logging
import struct
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import MQTTProtocolVersion, _ConnectionState

from processor.clock import ManualClock
from processor.mqtt import fast_reader
from processor.mqtt.fast_reader import FastClient
from processor.mqtt.packets import KEPT_OF_OVERSIZE
from processor.types import Message

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

PIECE = 256 * 1024


class FakeSocket:
    """What has arrived, what was sent, and how much more the network takes."""

    def __init__(self) -> None:
        self.arrived = bytearray()
        self.sent = bytearray()
        self.takes = 1 << 30
        self.zero_sends = 0
        """How often `send` reports 0 bytes, as paho's WebSockets do for a frame sent in part."""
        self.broken = False
        self.ended = False
        """The broker has closed its side."""
        self.closed = False

    def recv(self, size: int) -> bytes:
        """Return what has arrived, like a non-blocking socket."""
        if not self.arrived and not self.ended:
            raise BlockingIOError
        taken = bytes(self.arrived[:size])
        del self.arrived[:size]
        return taken

    def send(self, data: bytes) -> int:
        """Take what the network takes."""
        if self.broken:
            raise BrokenPipeError
        if self.zero_sends:
            self.zero_sends -= 1
            return 0
        if not self.takes:
            raise BlockingIOError
        count = min(len(data), self.takes)
        self.takes -= count
        self.sent += data[:count]
        return count

    def close(self) -> None:
        """Note the end."""
        self.closed = True

    def fileno(self) -> int:
        """Needed by paho's type only."""
        return -1

    def setblocking(self, flag: bool) -> None:
        """Needed by paho's type only."""


class Fed:
    """A client whose socket is a fake."""

    def __init__(self, protocol: int, *, fast: bool, max_payload: int = 1 << 20) -> None:
        self.client = FastClient(
            client_id="test",
            protocol=MQTTProtocolVersion(protocol),
            clean_session=None if protocol == MQTTProtocolVersion.MQTTv5 else False,
            transport="tcp",
            clock=ManualClock(wall=7),
            max_payload=max_payload,
        )
        self.client.fast = fast
        self.client.connection = 1
        self.socket = FakeSocket()
        self.client._sock = cast("SocketLike", self.socket)  # in place of a connection
        self.most_buffered = 0

    def feed(self, pieces: Sequence[bytes], limit: int = 1000) -> list[Message]:
        """Let the pieces arrive one after the other; return the messages read, at most `limit` at once."""
        messages: list[Message] = []
        for piece in pieces:
            self.socket.arrived += piece
            while True:
                read = self.client.take_buffered(limit)
                before = len(self.socket.arrived)
                if not read and not self.socket.closed:
                    read = self.client.receive(limit)
                assert len(read) <= limit
                messages += read
                self.most_buffered = max(self.most_buffered, self.client.buffered_bytes())
                if not read and len(self.socket.arrived) == before:
                    break
        return messages


def variable(number: int) -> bytes:
    """Encode a variable byte integer."""
    encoded = bytearray()
    while True:
        number, rest = divmod(number, 128)
        encoded.append(rest | (128 if number else 0))
        if not number:
            return bytes(encoded)


def packet(first: int, body: bytes) -> bytes:
    """Frame a packet."""
    return bytes([first]) + variable(len(body)) + body


def string(text: bytes) -> bytes:
    """Encode a string with its length."""
    return struct.pack(">H", len(text)) + text


def publish(
    protocol: int,
    topic: bytes,
    payload: bytes,
    qos: int = 0,
    mid: int = 1,
    *,
    retain: bool = False,
    dup: bool = False,
    properties: bytes = b"",
) -> bytes:
    """Encode a PUBLISH."""
    body = string(topic)
    body += struct.pack(">H", mid) if qos else b""
    body += variable(len(properties)) + properties if protocol == MQTTProtocolVersion.MQTTv5 else b""
    return packet(0x30 | dup << 3 | qos << 1 | retain, body + payload)


# In the order in which paho writes them again, so that they can be compared.
properties_of_messages = st.builds(
    lambda *parts: b"".join(parts),
    st.sampled_from([b"", b"\x01\x01"]),
    st.sampled_from([b"", b"\x02\0\0\x01\x00"]),
    st.sampled_from([b"", b"\x03" + string(b"text/plain")]),
    st.sampled_from([b"", b"\x08" + string(b"answers/here")]),
    st.sampled_from([b"", b"\x09" + string(b"\0\xff" * 70)]),
    st.sampled_from([b"", b"\x0b\x01", b"\x0b\x01\x0b\x02", b"\x0b\xff\xff\xff\x7f"]),
    st.sampled_from(
        [b"", b"\x26" + string(b"key") + string(b"value"), (b"\x26" + string(b"k" * 90) + string(b"")) * 2]
    ),
)


@st.composite
def conversations(draw: st.DrawFn, protocol: int) -> bytes:
    """Some of everything that a broker sends after CONNACK."""
    mqtt_5 = protocol == MQTTProtocolVersion.MQTTv5
    conversation = bytearray()
    for mid in range(1, draw(st.integers(2, 13))):
        kind = draw(st.sampled_from(["publish", "publish", "publish", "pingresp", "suback", "unsuback", "puback"]))
        if kind == "publish":
            qos = draw(st.integers(0, 2))
            size = draw(st.sampled_from([0, 1, 20, 100, 127, 128, 300, 17_000, 70_000]))
            conversation += publish(
                protocol,
                draw(st.sampled_from([b"a", "ü/x".encode(), b"wearable/07/imu", b"t" * 300])),
                bytes([mid]) * size,
                qos,
                mid,
                retain=draw(st.booleans()),
                dup=bool(qos) and draw(st.booleans()),
                properties=draw(properties_of_messages) if mqtt_5 else b"",
            )
            if qos == 2:
                conversation += packet(0x62, struct.pack(">H", mid))
        elif kind == "pingresp":
            conversation += packet(0xD0, b"")
        elif kind == "suback":
            conversation += packet(0x90, struct.pack(">H", mid) + (b"\0" if mqtt_5 else b"") + b"\1")
        elif kind == "unsuback":
            conversation += packet(0xB0, struct.pack(">H", mid) + (b"\0\0" if mqtt_5 else b""))
        else:
            conversation += packet(0x40, struct.pack(">H", mid))
    return bytes(conversation)


def cut(data: bytes, points: Sequence[int]) -> list[bytes]:
    """Cut data at the given places."""
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


protocols = pytest.mark.parametrize("protocol", [4, 5], ids=["3.1.1", "5"])
readers = pytest.mark.parametrize("fast", [True, False], ids=["ours", "paho"])


@protocols
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_both_readers_give_the_same_messages_and_answers(protocol: int, data: st.DataObject) -> None:
    """Whatever the packets, however they are cut, and however few messages are taken at once."""
    conversation = data.draw(conversations(protocol))
    pieces = cut(conversation, data.draw(st.lists(st.integers(0, 1 << 20), max_size=6)))
    limit = data.draw(st.sampled_from([1, 2, 5, 1000]))
    ours, theirs = Fed(protocol, fast=True), Fed(protocol, fast=False)
    messages, expected = ours.feed(pieces, limit), theirs.feed([conversation])
    assert messages == expected
    assert not ours.socket.closed
    assert ours.client.buffered_bytes() == 0
    ours.client.acknowledge(messages)
    theirs.client.acknowledge(expected)
    assert ours.socket.sent == theirs.socket.sent


@protocols
def test_messages_survive_being_split_at_every_byte(protocol: int) -> None:
    """One conversation with all QoS, cut in two at each place, and into single bytes."""
    properties = b"\x09" + string(b"c" * 130) + b"\x0b\x01" if protocol == MQTTProtocolVersion.MQTTv5 else b""
    conversation = (
        publish(protocol, b"a/b", b"x" * 150, 1, 9, properties=properties)
        + packet(0xD0, b"")
        + publish(protocol, b"a/b", b"", 2, 10)
        + publish(protocol, b"c", b"last", 0)
        + packet(0x62, struct.pack(">H", 10))
    )
    expected = Fed(protocol, fast=False).feed([conversation])
    assert [(message.topic, message.qos, len(message.payload)) for message in expected] == [
        ("a/b", 1, 150),
        ("c", 0, 4),
        ("a/b", 2, 0),
    ]
    for at in range(len(conversation)):
        assert Fed(protocol, fast=True).feed([conversation[:at], conversation[at:]]) == expected
    assert Fed(protocol, fast=True).feed([bytes([byte]) for byte in conversation]) == expected


def test_each_field_of_a_message_is_what_was_sent() -> None:
    """The fields themselves, not only that both readers agree."""
    fed = Fed(5, fast=True)
    sent = publish(5, b"a/b", b"payload", 1, 0x1234, retain=True, dup=True, properties=b"\x0b\x07")
    [message] = fed.feed([sent])
    assert message == Message("a/b", b"payload", 1, 0x1234, 7, True, True, b"\x0b\x07", 1, 0)  # noqa: FBT003
    assert type(message) is Message
    assert fed.client.bytes_read == len(sent)


@readers
@pytest.mark.parametrize(
    ("protocol", "wrong"),
    [
        (4, packet(0x36, string(b"a") + b"\0\1")),
        (5, packet(0x36, string(b"a") + b"\0\1\0")),
        (5, b"\x30\x80\x80\x80\x80\x01"),
        (4, b"\x30\xff\xff\xff\xff\x7f"),
        (4, packet(0x30, b"\x00\x09abc") + b"more than enough for the topic"),
        (4, packet(0x32, string(b"abc") + b"\1") + b"more"),
        (4, packet(0x30, b"\0")),
        (5, packet(0x30, string(b"abc"))),
        (5, packet(0x30, string(b"abc") + b"\x05\x01\x01")),
        (5, packet(0x30, string(b"abc") + b"\x80\x80\x80\x80\x01")),
        (4, publish(4, b"\xff\xfe", b"")),
        (5, publish(5, b"\xed\xa0\x80", b"")),
        (5, publish(5, b"a\0b", b"")),
        (4, publish(4, b"", b"x")),
        (5, publish(5, b"", b"x")),
        (5, publish(5, b"a/+", b"x")),
        (5, publish(5, b"a", b"x", 1, 0)),
        (4, publish(4, b"\xff", b"x", 2, 3) + packet(0x62, b"\0\3")),
        (4, packet(0xF0, b"")),
        (5, packet(0x00, b"")),
        (5, packet(0x90, b"\0")),
    ],
)
def test_what_is_not_mqtt_closes_the_connection(protocol: int, wrong: bytes, *, fast: bool) -> None:
    """The messages before it are kept, and nothing after it is believed."""
    fed = Fed(protocol, fast=fast)
    ended: list[str] = []
    fed.client.on_disconnect = lambda _client, _data, _flags, reason, _properties: ended.append(str(reason))
    good = publish(protocol, b"good", b"x")
    messages = fed.feed([good + wrong + good + good])
    assert [message.topic for message in messages] == ["good"]
    assert fed.socket.closed
    assert ended == ["Protocol error"]
    assert fed.client.buffered_bytes() == 0


@readers
def test_the_end_of_the_input_ends_the_connection(*, fast: bool) -> None:
    """A socket that was closed by the broker is closed here."""
    fed = Fed(5, fast=fast)
    fed.socket.ended = True
    assert fed.client.receive(10) == []
    assert fed.socket.closed


@pytest.mark.parametrize("qos", [0, 1, 2])
@protocols
@pytest.mark.parametrize("whole", [True, False], ids=["in one piece", "in many pieces"])
def test_an_oversize_payload_is_skipped_while_it_is_read(protocol: int, qos: int, *, whole: bool) -> None:
    """Its first 64 KiB, its length and its acknowledgement remain; memory holds little more; what follows is whole."""
    size = 3 << 20
    properties = b"\x0b\x01" if protocol == MQTTProtocolVersion.MQTTv5 else b""
    big = publish(protocol, b"big", b"x" * size, qos, 5, properties=properties)
    release = packet(0x62, struct.pack(">H", 5)) if qos == 2 else b""
    data = big + publish(protocol, b"next", b"y", 1, 6) + release
    fed = Fed(protocol, fast=True)
    messages = fed.feed([data] if whole else [data[at : at + 10_001] for at in range(0, len(data), 10_001)])
    by_topic = {message.topic: message for message in messages}
    assert sorted(by_topic) == ["big", "next"]
    assert by_topic["next"].payload == b"y"
    skipped = by_topic["big"]
    assert (skipped.payload, skipped.oversize) == (b"x" * KEPT_OF_OVERSIZE, size)
    assert (skipped.qos, skipped.mid, skipped.properties) == (qos, 5 if qos else 0, properties)
    assert fed.most_buffered <= PIECE + KEPT_OF_OVERSIZE
    fed.client.acknowledge(messages)
    assert {0: b"", 1: b"\x40\x02\0\5", 2: b"\x70\x02\0\5"}[qos] in bytes(fed.socket.sent)


def test_an_oversize_message_counts_only_when_all_of_it_has_been_read() -> None:
    """Were it given out before, its acknowledgement could overtake its end."""
    big = publish(4, b"big", b"x" * 200_000, 1, 5)
    fed = Fed(4, fast=True, max_payload=100_000)
    assert fed.feed([big[:-1]]) == []
    assert [message.oversize for message in fed.feed([big[-1:]])] == [200_000]


@readers
@protocols
@settings(max_examples=30, deadline=None)
@given(size=st.integers(0, 40), points=st.lists(st.integers(0, 500), max_size=4), qos=st.integers(0, 2))
def test_the_limit_of_a_payload_is_exact(protocol: int, *, fast: bool, size: int, points: list[int], qos: int) -> None:
    """A payload of max_payload bytes is a message, one byte more is oversize; in any pieces, at any QoS."""
    data = publish(protocol, b"topic", b"x" * size, qos, 3) + (packet(0x62, b"\0\3") if qos == 2 else b"")
    data += publish(protocol, b"next", b"")
    messages = Fed(protocol, fast=fast, max_payload=20).feed(cut(data, points))
    assert [(message.topic, len(message.payload)) for message in messages] == [("topic", size), ("next", 0)]
    assert messages[0].oversize == (size if size > 20 else 0)


def test_huge_properties_count_as_oversize() -> None:
    """They would be as good a way to fill the memory as a payload."""
    properties = (b"\x26" + string(b"k" * 60_000) + string(b"v" * 60_000)) * 10
    data = publish(5, b"big", b"", 1, 5, properties=properties) + publish(5, b"next", b"y")
    fed = Fed(5, fast=True)
    messages = fed.feed([data[at : at + 50_000] for at in range(0, len(data), 50_000)])
    assert [message.topic for message in messages] == ["big", "next"]
    assert messages[0].oversize > 0
    assert messages[0].payload == messages[0].properties == b""
    assert fed.most_buffered <= PIECE


def test_a_busy_caller_stops_the_reading() -> None:
    """Only when what was read is used up is more taken from the socket."""
    fed = Fed(5, fast=True)
    one = publish(5, b"a", b"x" * 990, 1, 1)
    fed.socket.arrived += one * 2000
    read = fed.client.receive(10)
    assert len(read) == 10
    assert len(fed.socket.arrived) == len(one) * 2000 - PIECE
    while read:
        assert fed.client.buffered_bytes() <= PIECE
        assert len(fed.socket.arrived) == len(one) * 2000 - PIECE
        read = fed.client.take_buffered(10)


def test_a_slow_caller_does_not_take_the_broker_for_silent() -> None:
    """While the buffer is worked off the answer to a ping cannot be read; the next ping is still sent."""
    fed = Fed(5, fast=True)
    fed.socket.arrived += publish(5, b"a", b"x") * 3
    fed.client.receive(1)
    long_ago = time.monotonic() - 2 * fed.client.keepalive
    fed.client._state = _ConnectionState.MQTT_CS_CONNECTED  # as after a ping that went unanswered for two keep-alives
    fed.client._last_bytes_received = fed.client._last_msg_out = fed.client._ping_t = long_ago
    assert len(fed.client.take_buffered(1)) == 1
    fed.client.loop_misc()
    assert not fed.socket.closed
    assert fed.socket.sent == b"\xc0\0"


@readers
def test_acknowledgements_go_out_once_in_order_and_for_this_connection_only(*, fast: bool) -> None:
    """Those of an earlier connection could hit other messages with the same identifier."""
    fed = Fed(5, fast=fast)
    messages = [Message("a", b"", 1, mid, connection=1) for mid in (3, 1, 2)]
    messages.insert(1, Message("a", b"", 1, 99, connection=0))
    messages.insert(2, Message("a", b"", 0, 0, connection=1))
    fed.client.acknowledge(messages)
    fed.client.acknowledge([])
    assert fed.socket.sent == b"\x40\x02\0\3\x40\x02\0\1\x40\x02\0\2"


def test_acknowledgements_wait_behind_a_half_written_packet() -> None:
    """A socket that takes three bytes now and the rest later gets whole packets."""
    fed = Fed(4, fast=True)
    fed.socket.takes = 3
    fed.client.publish("topic", b"payload")
    fed.client.acknowledge([Message("a", b"", 1, mid, connection=1) for mid in (1, 2)])
    assert fed.client.waiting_packets() == 2
    assert fed.client.waiting_bytes() > 8
    fed.socket.takes = 1 << 20
    fed.client.loop_write()
    assert fed.socket.sent == publish(4, b"topic", b"payload") + b"\x40\x02\0\1\x40\x02\0\2"
    assert fed.client.waiting_packets() == 0


def test_a_packet_that_the_socket_takes_in_parts_of_nothing_is_not_lost() -> None:
    """Over WebSockets paho's `send` returns 0 for a half-sent frame; the packet must be tried again."""
    fed = Fed(4, fast=True)
    fed.socket.zero_sends = 1
    fed.client.acknowledge([Message("a", b"", 1, 1, connection=1)])
    assert fed.socket.sent == b""
    fed.client.loop_write()
    assert fed.socket.sent == b"\x40\x02\0\1"


def test_the_release_of_an_unknown_message_is_answered() -> None:
    """After a reconnect the broker releases QoS 2 messages that were taken before; it waits until that is answered."""
    fed = Fed(5, fast=True)
    assert fed.feed([packet(0x62, b"\0\7")]) == []
    assert fed.socket.sent == b"\x70\x02\0\7"


def test_the_last_words_of_a_broker_are_heard() -> None:
    """When writing fails, the DISCONNECT that says why is still read."""
    fed = Fed(5, fast=True)
    reasons: list[int] = []
    fed.client.on_disconnect = lambda _client, _data, _flags, reason, _properties: reasons.append(reason.value)
    fed.socket.arrived += packet(0xE0, b"\x8e\0")
    fed.socket.broken = True
    fed.client.acknowledge([Message("a", b"", 1, 1, connection=1)])
    assert fed.client.take_buffered(10) == []
    assert reasons[-1] == 0x8E


def test_paho_reads_when_a_private_name_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another paho than the tested ones makes reading slower, not wrong, and one line says so."""
    monkeypatch.setattr(fast_reader, "_MISSING", ("_packet_handle",))
    with caplog.at_level(logging.WARNING):
        client = FastClient(
            client_id="x",
            protocol=MQTTProtocolVersion.MQTTv5,
            clean_session=None,
            transport="tcp",
            clock=ManualClock(),
            max_payload=1,
        )
    assert not client.fast
    assert ["_packet_handle" in record.message for record in caplog.records] == [True]


def test_paho_reads_when_it_is_asked_to(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The environment can turn our reader off."""
    monkeypatch.setenv("MLADE_PAHO_READER", "1")
    fed_by_paho = FastClient(
        client_id="x",
        protocol=MQTTProtocolVersion.MQTTv311,
        clean_session=True,
        transport="tcp",
        clock=ManualClock(),
        max_payload=1,
    )
    assert not fed_by_paho.fast
    assert len(caplog.records) == 1


def test_this_paho_has_every_private_name() -> None:
    """The installed version is one that our reader works with."""
    assert fast_reader._MISSING == ()

"""An MQTT client that reads many messages at a time.

paho's reader makes several system calls and some 25 µs of Python for each packet. This subclass takes whatever has
arrived in one piece, has PUBLISH packets of QoS 0 and 1 made into messages by `packets.PacketReader`, and hands every
other packet to paho. It touches paho's private names, and is the only file that does: they are listed in
`_PRIVATE_NAMES` and looked for at import. When one is missing, or `MLADE_PAHO_READER=1` is set, paho's own reader is
used. Tested with paho-mqtt 2.2.0. All methods are called by the one thread that owns the connection.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Literal

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket

from processor.mqtt.packets import (
    KEPT_OF_OVERSIZE,
    MalformedPacketError,
    PacketReader,
    decode_topic,
    encode_variable_integer,
)
from processor.types import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from processor.protocols import Clock

_PIECE = 256 * 1024
"""Bytes asked of the socket at once."""
_CONNACK = 0x20
_PUBLISH_QOS_1 = 0x32
_PUBACK = 0x40
_PUBACK_HEADER = 0x4002_0000
"""A PUBACK is this 32-bit number plus the packet identifier: in MQTT 3.1.1, and in MQTT 5 when nothing is wrong."""
_PUBREL = 0x60
_QOS_2 = 2

_PRIVATE_NAMES = (
    "_create_socket_connection",
    "_in_messages",
    "_in_packet",
    "_last_bytes_received",
    "_loop_rc_handle",
    "_out_packet",
    "_packet_handle",
    "_packet_queue",
    "_packet_read",
    "_packet_write",
    "_ping_t",
    "_send_pubcomp",
    "_sock",
    "_sock_recv",
    "_sock_send",
)
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
"""Linux only."""
_probe = paho.Client(CallbackAPIVersion.VERSION2)
_MISSING = tuple(name for name in _PRIVATE_NAMES if not hasattr(_probe, name))
del _probe

_log = logging.getLogger(__name__)


class FastClient(paho.Client):
    """A paho client whose received messages are fetched with `take_buffered` and `receive`.

    Attributes:
        fast: False when paho's own reader is used.
        bytes_read: bytes taken from the socket so far; of topics and payloads only, with paho's reader.
    """

    def __init__(
        self,
        *,
        client_id: str,
        protocol: MQTTProtocolVersion,
        clean_session: bool | None,
        transport: Literal["tcp", "websockets"],
        clock: Clock,
        max_payload: int,
    ) -> None:
        """Make a client that is not connected.

        Args:
            client_id: the client identifier.
            protocol: MQTT 3.1.1 or 5.
            clean_session: of MQTT 3.1.1; None on MQTT 5.
            transport: plain or TLS is for `tls_set_context` to say.
            clock: tells the messages' arrival.
            max_payload: bytes of payload from which on a message is oversize and only its beginning kept.
        """
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=protocol,
            clean_session=clean_session,
            transport=transport,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self.fast = not _MISSING and os.environ.get("MLADE_PAHO_READER") != "1"
        if not self.fast:
            reason = f"this paho-mqtt has no {', '.join(_MISSING)}" if _MISSING else "MLADE_PAHO_READER=1 is set"
            _log.warning("Messages are read by paho's own, slower reader: %s.", reason)
        self.bytes_read = 0
        self.on_message = self._append_from_paho
        self._clock = clock
        self._max_payload = max_payload
        mqtt_5 = protocol == MQTTProtocolVersion.MQTTv5
        self._reader = PacketReader(mqtt_5=mqtt_5, max_payload=max_payload, on_other=self._hand_to_paho)
        self._inbox: list[Message] = []
        self._limit = 1
        self._oversize_lengths: dict[int, int] = {}
        self._unconfirmed: set[int] = set()  # packet identifiers of `publish_together`
        self._confirmed: list[tuple[int, int]] = []
        self.on_publish = self._note_confirmed

    @property
    def connection(self) -> int:
        """Number of the connection that messages come over; its owner counts it up at each CONNACK."""
        return self._reader.connection

    @connection.setter
    def connection(self, number: int) -> None:
        self._reader.connection = number

    def leave_unread(self) -> None:
        """Take note that input is left for later: with the PINGRESP in it, nobody can say that the broker is silent."""
        self._last_bytes_received = time.monotonic()
        self._ping_t = 0.0

    def take_buffered(self, limit: int) -> list[Message]:
        """Return up to `limit` messages that were read earlier, without touching the socket."""
        if not self._reader.exhausted():
            self.leave_unread()
            self._limit = limit
            error = self._parse()
            if error:
                self._loop_rc_handle(error)
        return self._hand_over(limit)

    def receive(self, limit: int) -> list[Message]:
        """Read from the socket and return up to `limit` of the messages that came; the rest stays buffered."""
        self._limit = limit
        self.loop_read()
        if not self.fast:
            before = 0
            while before < len(self._inbox) < limit:  # paho reads one packet or few a call
                before = len(self._inbox)
                self.loop_read()
        return self._hand_over(limit)

    def buffered_bytes(self) -> int:
        """Return how much was read and is not yet a message; at most one piece and one packet."""
        return self._reader.buffered_bytes()

    def waiting_packets(self) -> int:
        """Return how many packets wait to be written."""
        return len(self._out_packet) if self.fast else int(self.want_write())

    def waiting_bytes(self) -> int:
        """Return how many bytes wait to be written."""
        return sum(packet["to_process"] for packet in self._out_packet) if self.fast else 0

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Queue the acknowledgements of those `messages` that came over this connection, and try to write them."""
        connection = self.connection
        mids = [message.mid for message in messages if message.qos == 1 and message.connection == connection]
        if self.fast and mids:
            pubacks = struct.pack(f">{len(mids)}I", *[_PUBACK_HEADER | mid for mid in mids])
            # One entry in paho's own queue, so that it is never written between the halves of another packet.
            self._packet_queue(_PUBACK, pubacks, 0, 1)
        else:
            for mid in mids:
                self.ack(mid, 1)
        for message in messages:
            if message.qos == _QOS_2 and message.connection == connection:
                self.ack(message.mid, _QOS_2)

    def publish_together(self, messages: Sequence[tuple[str, bytes]], properties: Properties | None) -> list[int]:
        """Queue messages of QoS 1 as one piece and try to write it; return their packet identifiers.

        paho keeps no copy: after a lost connection they are not sent again. What the broker says to them is fetched
        with `take_confirmed`.
        """
        if not self.fast:
            return [self.publish(topic, payload, qos=1, properties=properties).mid for topic, payload in messages]
        packed = b"" if properties is None else properties.pack()  # type: ignore[no-untyped-call]
        mids = [self._mid_generate() for _ in messages]
        piece = bytearray()
        for mid, (topic, payload) in zip(mids, messages, strict=True):
            name = topic.encode()
            piece.append(_PUBLISH_QOS_1)
            piece += encode_variable_integer(2 + len(name) + 2 + len(packed) + len(payload))
            piece += len(name).to_bytes(2) + name + mid.to_bytes(2) + packed + payload
        self._unconfirmed.update(mids)
        self._packet_queue(_PUBLISH_QOS_1, piece, mids[-1], 1)
        return mids

    def take_confirmed(self) -> list[tuple[int, int]]:
        """Return packet identifier and reason code of what was acknowledged since the last call."""
        taken, self._confirmed = self._confirmed, []
        return taken

    def acknowledge_at_once(self) -> None:
        """Have the kernel acknowledge what has come without its usual delay.

        A broker without TCP_NODELAY holds its second small packet back until the first is acknowledged, which takes
        40 ms while we have nothing to send.
        """
        if _QUICKACK is not None and isinstance(self._sock, socket.socket):
            self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def reconnect(self) -> MQTTErrorCode:
        """Connect again; what is left of the former connection's input is forgotten."""
        self._reader.clear()
        self._unconfirmed.clear()
        self._confirmed.clear()
        return super().reconnect()

    def _create_socket_connection(self) -> socket.socket:
        """Connect as paho does, but never hold a small packet back.

        By default the kernel keeps PUBACKs until the broker's side has confirmed the bytes before them, up to a round
        trip or 40 ms later; and what is not acknowledged keeps the broker from sending more.
        """
        connection = super()._create_socket_connection()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _hand_over(self, limit: int) -> list[Message]:
        taken = self._inbox
        self._inbox = taken[limit:]  # what paho's reader read beyond the limit
        del taken[limit:]
        return taken

    def _packet_read(self) -> MQTTErrorCode:
        """Read in paho's stead; called by `loop_read`, which closes the connection when an error is returned."""
        if not self.fast:
            return super()._packet_read()
        error = self._parse()
        received = 0
        while not error and self._sock is not None and len(self._inbox) < self._limit and received < _PIECE:
            try:
                piece = self._sock_recv(_PIECE)
            except BlockingIOError:
                break
            except OSError as problem:
                _log.debug("Reading from the broker failed: %s", problem)
                return MQTTErrorCode.MQTT_ERR_CONN_LOST
            if not piece:
                return MQTTErrorCode.MQTT_ERR_CONN_LOST
            self._accept(piece)
            error = self._parse()
            received += len(piece)
            if len(piece) < _PIECE and type(self._sock) is socket.socket:  # TLS and WebSockets give a record at a time
                break
        return error or MQTTErrorCode.MQTT_ERR_AGAIN

    def _packet_write(self) -> MQTTErrorCode:
        """Write as paho does, but when the broker has gone, read what it said last: that may be why."""
        result = super()._packet_write()
        if self.fast and result == MQTTErrorCode.MQTT_ERR_CONN_LOST and self._reader.exhausted():
            try:
                self._accept(self._sock_recv(_PIECE))
            except OSError as problem:
                _log.debug("The broker left no last packet: %s", problem)
        return result

    def _sock_send(self, buf: bytes | bytearray) -> int:
        """Send as paho does, but where it returns 0 for a half-sent WebSockets frame and then forgets the packet."""
        sent = super()._sock_send(buf)
        if not sent:
            raise BlockingIOError
        return sent

    def _accept(self, piece: bytes) -> None:
        self.bytes_read += len(piece)
        self._last_bytes_received = time.monotonic()
        self._reader.accept(piece, self._clock.wall())

    def _parse(self) -> MQTTErrorCode:
        """Fill the inbox from what is buffered; return why the connection is to be closed, if it is."""
        try:
            self._reader.parse(self._inbox, self._limit)
        except (MalformedPacketError, MalformedPacket) as problem:
            _log.warning("The broker sent what is not MQTT: %s. The connection is closed and made again.", problem)
            self._reader.clear()
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _hand_to_paho(self, first: int, body: bytes, oversize: int) -> None:
        """Let paho handle one whole packet as if it had read it; of an oversize PUBLISH, what was kept of it."""
        if first & 0xF0 == _PUBREL and int.from_bytes(body[:2]) not in self._in_messages:
            # For a message that was handed over before the connection was lost. With manual acknowledgement paho
            # stays silent here, and the broker would wait for good.
            self._send_pubcomp(int.from_bytes(body[:2]))
            return
        if first == _PUBACK and len(body) >= 2 and (mid := int.from_bytes(body[:2])) in self._unconfirmed:  # noqa: PLR2004
            self._unconfirmed.discard(mid)
            self._confirmed.append((mid, body[2] if len(body) > 2 else 0))  # noqa: PLR2004 - MQTT 5, 3.4.2
            return
        if oversize:
            mid_at = 2 + int.from_bytes(body[:2])
            self._oversize_lengths[int.from_bytes(body[mid_at : mid_at + 2])] = oversize
        packet = self._in_packet
        packet["command"] = first
        packet["have_remaining"] = 1
        packet["remaining_length"] = len(body)
        packet["packet"] = bytearray(body)
        packet["to_process"] = 0
        packet["pos"] = 0
        error = self._packet_handle()
        if error == MQTTErrorCode.MQTT_ERR_PROTOCOL and first != _CONNACK:  # a CONNACK of that kind is a refusal
            raise MalformedPacketError(f"a packet that begins with 0x{first:02x}")
        if error > 0 and self._sock is not None:
            self._loop_rc_handle(error)

    def _note_confirmed(
        self, _client: paho.Client, _userdata: object, mid: int, reason: ReasonCode, _properties: object
    ) -> None:
        self._confirmed.append((mid, int(reason.value)))

    def _append_from_paho(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        """Take a message that paho decoded: those of QoS 2, and all with paho's reader."""
        try:
            topic = decode_topic(message.topic.encode())
        except (UnicodeDecodeError, MalformedPacketError) as error:
            raise MalformedPacket("the topic of a message is not a topic name") from error
        if message.qos and not message.mid:
            raise MalformedPacket("a PUBLISH packet has no packet identifier")
        payload = bytes(message.payload)
        oversize = self._oversize_lengths.pop(message.mid, 0)
        if not self.fast:
            self.bytes_read += len(topic) + len(payload)
            oversize = len(payload) if len(payload) > self._max_payload else 0
        packed = b"\0" if message.properties is None else message.properties.pack()  # type: ignore[no-untyped-call]
        length_size = next(index for index, byte in enumerate(packed) if byte < 0x80) + 1  # noqa: PLR2004 - a varint's end
        self._inbox.append(
            Message(
                topic=topic,
                payload=payload[:KEPT_OF_OVERSIZE] if oversize else payload,
                qos=message.qos,
                mid=message.mid,
                arrival=self._clock.wall(),
                retain=bool(message.retain),
                dup=bool(message.dup),
                properties=packed[length_size:],
                connection=self.connection,
                oversize=oversize,
            )
        )

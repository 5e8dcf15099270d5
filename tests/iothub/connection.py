"""One client's MQTT connection to the hub (IoT Hub: "Communicate with your IoT hub using the MQTT protocol")."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.iothub import packets
from tests.iothub.identity import Unauthorized

if TYPE_CHECKING:
    from tests.iothub.service import Peer, Service

NOT_AUTHORIZED = 5
REFUSED_SUBSCRIPTION = 0x80
_LARGEST_PACKET = 512 * 1024
"""Bytes: a message that is too large is read whole, so that the refusal can say by how much."""
_CONNECT_WITHIN = 30.0
"""Seconds from the TCP connection to a CONNECT."""
_LONGEST_SILENCE = 1767.0
"""Seconds until a client that says nothing is dropped, whatever its keep-alive is."""


class Connection(asyncio.Protocol):
    """Reads packets, answers them, and ends the connection over whatever the service would not take.

    All of it runs in the hub's thread.
    """

    def __init__(self, service: Service, number: int) -> None:
        """Wait for a CONNECT.

        Args:
            service: whose client this will be.
            number: counts the hub's connections, from 1.
        """
        self.number = number
        self.client: Peer | None = None
        self.deaf = False
        self.token = ""
        self.certificate_name: str | None = None
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._reader = packets.Reader(_LARGEST_PACKET)
        self._transport: asyncio.Transport | None = None
        self._answers = bytearray()
        self._late: deque[tuple[float, bytes]] = deque()
        self._timers: list[asyncio.TimerHandle] = []
        self._heard = time.monotonic()
        self._next_id = 0
        self._will: tuple[str, bytes] | None = None
        self._readers: dict[int, Callable[[Peer, packets.Packet], None]] = {
            packets.PUBLISH: self._receive,
            packets.PUBACK: self._acknowledged,
            packets.SUBSCRIBE: self._subscribe,
            packets.UNSUBSCRIBE: self._unsubscribe,
            packets.PINGREQ: self._ping,
            packets.DISCONNECT: self._disconnect,
        }

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the peer's certificate, and give it some time for a CONNECT."""
        self._transport = transport  # type: ignore[assignment]  # asyncio declares less than it gives
        self.certificate_name = common_name(transport.get_extra_info("ssl_object"))
        self._service.connections.add(self)
        self._timers.append(self._loop.call_later(_CONNECT_WITHIN, self._still_unknown))
        self.apply_throttling()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        self._heard = time.monotonic()
        if self._service.faults.silent:
            self.deaf = True
        if self.deaf:
            return
        try:
            for packet in self._reader.feed(data):
                self._take(packet)
                if self._transport is None:
                    return
            faults = self._service.faults
            if faults.cut_after == 0 and faults.mid_packet and self._reader.begins(packets.PUBLISH):
                self._cut_is_due()
        except packets.Malformed as error:
            self.end(str(error))
        finally:
            self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection."""
        self._closed(f"the connection was lost: {error}" if error else "the client has ended it")

    # What the service calls.

    @property
    def is_open(self) -> bool:
        """Whether something can still be sent."""
        return self._transport is not None

    def publish(self, topic: str, payload: bytes, qos: int) -> int:
        """Send a message to the client and return its packet id."""
        self._next_id = self._next_id % 0xFFFF + 1
        self._answers += packets.publish(topic, payload, qos=qos, packet_id=self._next_id)
        self._flush()
        return self._next_id

    def end(self, reason: str, *, mid_packet: bool = False) -> None:
        """End the connection at once; what was not sent is lost."""
        self._flush()
        if self._transport is None:
            return
        if mid_packet:
            self._transport.write(b"\x40")
        self._transport.abort()
        self._closed(reason)

    def apply_throttling(self) -> None:
        """Stop or resume reading."""
        if self._transport is None:
            return
        if self._service.faults.throttling == "stop reading":
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # What a client sends.

    def _take(self, packet: packets.Packet) -> None:
        if self.client is None:
            if packet.kind != packets.CONNECT:
                raise packets.Malformed("the first packet is not a CONNECT")
            self._connect(packets.read_connect(packet.body))
            return
        if packet.kind not in self._readers:
            raise packets.Malformed(f"a packet of type {packet.kind} from a client")
        self._readers[packet.kind](self.client, packet)

    def _connect(self, asked: packets.Connect) -> None:
        code = self._service.faults.refuse
        if code is not None:
            self._refuse(code, "as the test asked")
            return
        try:
            admission = self._service.admit(asked, self.certificate_name)
        except Unauthorized as error:
            self._refuse(NOT_AUTHORIZED, str(error))
            return
        self.token = asked.password
        self._will = None if asked.will_topic is None else (asked.will_topic, asked.will_payload)
        self.client = admission.client
        present = self.client.attach(self, clean=asked.clean)
        self._service.note("connected", self.client.id, f"connection {self.number}")
        if admission.expires is not None:
            wait = admission.expires - time.time()
            self._timers.append(self._loop.call_later(wait, self.end, "its token has expired"))
        self._watch(min(asked.keepalive * 1.5, _LONGEST_SILENCE) or _LONGEST_SILENCE)
        self._answers += packets.connack(0, session_present=present)
        self.client.attached()

    def _refuse(self, code: int, reason: str) -> None:
        self._service.note("refused", "", reason)
        self._answers += packets.connack(code)
        self._flush()
        if self._transport is not None:
            self._transport.close()
        self._closed(reason)

    def _subscribe(self, client: Peer, packet: packets.Packet) -> None:
        packet_id, filters = packets.read_subscribe(packet.body)
        granted = bytearray()
        for topic, qos in filters:
            answer = client.subscribe(topic, qos)
            if answer is None:
                self._service.note("subscription refused", client.id, topic)
            granted.append(REFUSED_SUBSCRIPTION if answer is None else answer)
        self._answers += packets.acknowledge(packets.SUBACK, packet_id, bytes(granted))
        client.subscribed()

    def _unsubscribe(self, client: Peer, packet: packets.Packet) -> None:
        packet_id, filters = packets.read_unsubscribe(packet.body)
        for topic in filters:
            client.subscriptions.pop(topic, None)
        self._answers += packets.acknowledge(packets.UNSUBACK, packet_id)

    def _ping(self, _client: Peer, _packet: packets.Packet) -> None:
        self._answers += packets.packet(packets.PINGRESP, b"")

    def _disconnect(self, _client: Peer, _packet: packets.Packet) -> None:
        self._will = None
        self._flush()
        if self._transport is not None:
            self._transport.close()
        self._closed("the client disconnected")

    def _acknowledged(self, client: Peer, packet: packets.Packet) -> None:
        client.acknowledged(packets.read_packet_id(packet.body))

    def _receive(self, client: Peer, packet: packets.Packet) -> None:
        message = packets.read_publish(packet)
        refusal = "QoS 2 is not supported" if message.qos > 1 else None
        if refusal is None and "/messages/events" in message.topic:
            if self._cut_is_due() or self._service.swallows():
                return
            refusal = self._service.refusal()
        refusal = refusal or client.receive(message, self)
        if refusal is not None:
            self.end(refusal)
        elif message.qos:
            self._acknowledge(message.packet_id)

    def _acknowledge(self, packet_id: int) -> None:
        faults = self._service.faults
        if faults.dropped_pubacks > 0:
            faults.dropped_pubacks -= 1
            return
        answer = packets.acknowledge(packets.PUBACK, packet_id)
        if faults.puback_delay:
            self._timers.append(self._loop.call_later(faults.puback_delay, self._write, answer))
        else:
            self._answers += answer

    def _cut_is_due(self) -> bool:
        """Tell, with every message, whether it is the one at which a test wants the connection cut; then it is."""
        faults = self._service.faults
        if faults.cut_after is None:
            return False
        if faults.cut_after > 0:
            faults.cut_after -= 1
            return False
        faults.cut_after = None
        self.end("cut, as the test asked", mid_packet=faults.mid_packet)
        return True

    # What the client gets.

    def _flush(self) -> None:
        """Send the answers to what was just read, in one piece."""
        if self._answers:
            answers, self._answers = bytes(self._answers), bytearray()
            self._write(answers)

    def _write(self, data: bytes) -> None:
        """Send something, after the link's delay where it has one."""
        faults = self._service.faults
        if self._transport is None or faults.silent or self.deaf:
            return
        if faults.round_trip or self._late:
            self._late.append((self._loop.time() + faults.round_trip, data))
            if len(self._late) == 1:
                self._loop.call_at(self._late[0][0], self._write_late)
        else:
            self._transport.write(data)

    def _write_late(self) -> None:
        while self._late and self._late[0][0] <= self._loop.time():
            _, data = self._late.popleft()
            if self._transport is not None:
                self._transport.write(data)
        if self._late:
            self._loop.call_at(self._late[0][0], self._write_late)

    # Time, and the end.

    def _still_unknown(self) -> None:
        if self.client is None:
            self.end(f"no CONNECT within {_CONNECT_WITHIN:g} s")

    def _watch(self, patience: float) -> None:
        idle = 0.0 if self._service.faults.throttling == "stop reading" else time.monotonic() - self._heard
        if self._transport is None:
            return
        if idle >= patience:
            self.end(f"nothing heard for {idle:.1f} s")
        else:
            self._timers.append(self._loop.call_later(patience - idle, self._watch, patience))

    def _closed(self, reason: str) -> None:
        if self._transport is None:
            return
        self._transport = None
        for timer in self._timers:
            timer.cancel()
        self._service.connections.discard(self)
        if self.client is None:
            return
        self.client.detach(self)
        self._service.note("disconnected", self.client.id, reason)
        if self._will is not None:
            self.client.will(*self._will)


def common_name(tls: ssl.SSLObject | None) -> str | None:
    """Return the common name of the certificate that the peer has shown; TLS has checked who signed it."""
    certificate = tls.getpeercert() if tls is not None else None
    subject = certificate.get("subject", ()) if certificate else ()
    for entry in subject:
        for pair in entry:
            if pair[0] == "commonName":
                return str(pair[1])
    return None

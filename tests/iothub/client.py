"""A device or module: its session, what it has sent, and what waits for it. All of it runs in the hub's thread."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.iothub import packets, twin
from tests.iothub.connection import Connection
from tests.iothub.identity import Device
from tests.iothub.messages import LARGEST, Event, decode_bag, encode_bag

if TYPE_CHECKING:
    from tests.iothub.service import Service

METHODS = "$iothub/methods/POST/#"
TWIN_ANSWERS = "$iothub/twin/res/#"
TWIN_CHANGES = "$iothub/twin/PATCH/properties/desired/#"
_MOST_SUBSCRIPTIONS = 5
_LARGEST_METHOD = 128 * 1024
_MOST_WAITING = 50
"""Cloud-to-device messages that wait for a device (IoT Hub: "Send cloud-to-device messages")."""


class Client:
    """What the hub knows of a device or module.

    Attributes:
        device: its registration.
        connection: the one that is open, if any.
        events: its messages, in the order in which they came.
        desired, reported: its twin.
    """

    def __init__(self, service: Service, device: Device) -> None:
        """Begin with nothing."""
        self.device = device
        self.connection: Connection | None = None
        self.subscriptions: dict[str, int] = {}
        self.events: list[Event] = []
        self.desired, self.reported = twin.Section(), twin.Section()
        self._service = service
        self._session = False
        self._calls: dict[str, asyncio.Future[tuple[int, twin.Json]]] = {}
        self._count = 0
        self._waiting: dict[int, tuple[str, str, bytes]] = {}  # by number: subscription, topic, payload
        self._sent: dict[int, int] = {}  # numbers by packet id, on this connection

    @property
    def id(self) -> str:
        """The client id."""
        return self.device.id

    # Sessions.

    def attach(self, connection: Connection, *, clean: bool) -> bool:
        """Make a connection this client's only one; return whether there was a session to go on with."""
        if self.connection is not None:
            self.connection.end("the same client has connected again")
        self.connection = connection
        self._sent.clear()
        present = self._session and not clean
        if not present:
            self.subscriptions.clear()
        self._session = not clean
        return present

    def attached(self) -> None:
        """Send what waits, once the CONNACK is on its way."""
        for number in list(self._waiting):
            self._send(number)

    def detach(self, connection: Connection) -> None:
        """Forget a connection that is over."""
        if self.connection is connection:
            self.connection = None

    def forget_session(self) -> None:
        """Lose subscriptions, as a hub that has moved to other machines."""
        self._session = False
        self.subscriptions.clear()

    def subscribe(self, topic: str, qos: int) -> int | None:
        """Return the QoS granted for a topic filter, or None where it is not one of the service's."""
        resource = self.device.resource
        if self.device.module_id is None:
            own = {f"{resource}/messages/devicebound/#"}
        else:
            own = {f"{resource}/inputs/#", f"{resource}/#"}
        full = len(self.subscriptions) >= _MOST_SUBSCRIPTIONS and topic not in self.subscriptions
        if full or topic not in own | {METHODS, TWIN_ANSWERS, TWIN_CHANGES}:
            return None
        self.subscriptions[topic] = min(qos, 1)
        return self.subscriptions[topic]

    def subscribed(self) -> None:
        """Send what has waited for a subscription, once the SUBACK is on its way."""
        self.attached()

    # From the client.

    def receive(self, message: packets.Publish, connection: Connection) -> str | None:
        """Take a message, or return why the connection has to end."""
        topic = message.topic
        if topic.startswith(f"{self.device.resource}/messages/events"):
            bag = topic.removeprefix(f"{self.device.resource}/messages/events")
            return self._telemetry(message, bag, connection)
        path, _, query = topic.partition("?")
        if path == "$iothub/twin/GET/":
            return self._answer_twin(query, 200, {"desired": self.desired.document, "reported": self.reported.document})
        if path == "$iothub/twin/PATCH/properties/reported/":
            return self._report(query, message.payload)
        if path.startswith("$iothub/methods/res/"):
            return self._returned(path.removeprefix("$iothub/methods/res/"), query, message.payload)
        return f"the topic {topic!r} is not one of the service's"

    def acknowledged(self, packet_id: int) -> None:
        """Take a PUBACK: what it is for waits no longer."""
        number = self._sent.pop(packet_id, None)
        if number is not None:
            self._waiting.pop(number, None)
            self._service.observe()

    def will(self, topic: str, payload: bytes) -> None:
        """Take a will message as telemetry, where its topic is telemetry's; the connection is already over."""
        path, _, bag = topic.partition(f"{self.device.resource}/messages/events/")
        if path or f"{self.device.resource}/messages/events/" not in topic:
            self._service.note("will ignored", self.id, topic)
            return
        self._record(Event.read(payload, {**decode_bag(bag), "iothub-MessageType": "Will"}))

    def _telemetry(self, message: packets.Publish, bag: str, connection: Connection) -> str | None:
        if bag[:1] not in {"", "/"}:
            return f"the topic {message.topic!r} is not one of the service's"
        try:
            properties = decode_bag(bag.strip("/"))
        except ValueError as error:
            return str(error)
        if message.retain:
            properties["mqtt-retain"] = "true"
        event = Event.read(
            message.payload, properties, packet_id=message.packet_id, dup=message.dup, connection=connection.number
        )
        if event.size > LARGEST:
            return f"a message of {event.size} bytes; at most {LARGEST} are allowed"
        self._service.faults.quota_left -= event.blocks
        self._record(event)
        return None

    def _record(self, event: Event) -> None:
        self.events.append(event)
        self._service.recorded(self.id, event)

    def _report(self, query: str, payload: bytes) -> str | None:
        try:
            self.reported.patch(twin.read(payload))
        except ValueError as error:
            self._service.note("report refused", self.id, str(error))
            return self._answer_twin(query, 400, {"errorCode": 400004, "message": str(error)})
        self._service.note("reported", self.id, f"version {self.reported.version}")
        return self._answer_twin(query, 204, None, version=self.reported.version)

    def _answer_twin(self, query: str, status: int, body: twin.Json, version: int | None = None) -> str | None:
        request = decode_bag(query).get("$rid")
        if request is None:
            return "a twin request without $rid"
        if self._service.faults.throttling is not None:
            status, body = 429, None
        suffix = "" if version is None else f"&$version={version}"
        payload = b"" if body is None else json.dumps(body).encode()
        self._push(TWIN_ANSWERS, f"$iothub/twin/res/{status}/?$rid={quote(request, safe='')}{suffix}", payload)
        return None

    def _returned(self, status: str, query: str, payload: bytes) -> str | None:
        request = decode_bag(query).get("$rid", "")
        code = status.rstrip("/")
        if not code.removeprefix("-").isdecimal() or len(payload) > _LARGEST_METHOD:
            return f"a method's answer with status {code!r} and {len(payload)} bytes"
        try:
            body = twin.read(payload) if payload else None
        except ValueError:
            return f"a method's answer that is not JSON: {payload[:80]!r}"
        call = self._calls.pop(request, None)
        if call is not None and not call.done():
            call.set_result((int(code), body))
        return None

    # To the client.

    def change(self, document: Mapping[str, twin.Json], *, replace: bool) -> int:
        """Patch or replace the desired properties, tell the client, and return their version.

        Raises:
            ValueError: the service would not store that.
        """
        if replace:
            self.desired.replace(document)
        else:
            self.desired.patch(dict(document))
        payload = json.dumps({**document, "$version": self.desired.version}).encode()
        self._push(TWIN_CHANGES, f"$iothub/twin/PATCH/properties/desired/?$version={self.desired.version}", payload)
        return self.desired.version

    async def invoke(self, name: str, payload: twin.Json, patience: float) -> tuple[int, twin.Json]:
        """Call a method and return its status and payload; 404 and 504 (after `patience` seconds) are the hub's own."""
        self._count += 1
        request = f"{self._count:x}"
        topic = f"$iothub/methods/POST/{quote(name, safe='')}/?$rid={request}"
        call: asyncio.Future[tuple[int, twin.Json]] = asyncio.get_running_loop().create_future()
        self._calls[request] = call
        if not self._push(METHODS, topic, json.dumps(payload).encode()):
            del self._calls[request]
            return 404, {"message": "the device is not online, or has not subscribed to methods"}
        try:
            async with asyncio.timeout(patience):
                return await call
        except TimeoutError:
            return 504, {"message": f"no answer within {patience:g} s"}
        finally:
            self._calls.pop(request, None)

    def send(self, subscription: str, path: str, payload: bytes, properties: Mapping[str, str]) -> int:
        """Send a message that waits until the client acknowledges it; return its number.

        Raises:
            OverflowError: too many wait already.
        """
        if len(self._waiting) >= _MOST_WAITING:
            raise OverflowError(f"{_MOST_WAITING} messages wait for {self.id} already")
        self._count += 1
        self._waiting[self._count] = subscription, f"{path}/{encode_bag(properties)}", payload
        self._send(self._count)
        return self._count

    def waits(self, number: int) -> bool:
        """Tell whether a message that `send` numbered is not acknowledged."""
        return number in self._waiting

    def _send(self, number: int) -> None:
        subscription, topic, payload = self._waiting[number]
        if self.connection is None or number in self._sent.values():
            return
        qos = self._granted(subscription)
        if qos is not None:
            packet_id = self.connection.publish(topic, payload, qos)
            if qos:
                self._sent[packet_id] = number
            else:
                del self._waiting[number]

    def _granted(self, subscription: str) -> int | None:
        return self.subscriptions.get(subscription, self.subscriptions.get(f"{self.device.resource}/#"))

    def _push(self, subscription: str, topic: str, payload: bytes) -> bool:
        """Send something at QoS 0 if the client is there and has subscribed; return whether it went."""
        if self.connection is None or subscription not in self.subscriptions:
            return False
        self.connection.publish(topic, payload, 0)
        return True

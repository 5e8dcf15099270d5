"""The Device Provisioning Service's side (IoT DPS: "Communicate with DPS using the MQTT protocol")."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.iothub import packets
from tests.iothub.connection import Connection
from tests.iothub.identity import Device
from tests.iothub.messages import decode_bag

if TYPE_CHECKING:
    from tests.iothub.service import Service

SCOPE = "0ne00DOUBLE"
API_VERSIONS = frozenset({"2019-03-31", "2021-06-01", "2021-10-01"})
_ANSWERS = "$dps/registrations/res/#"
_REGISTER = "$dps/registrations/PUT/iotdps-register/"
_QUERY = "$dps/registrations/GET/iotdps-get-operationstatus/"


class Registration:
    """An individual enrollment, and the client that registers with it.

    Attributes:
        device: what it becomes; its key or certificate is the enrollment's.
        connection: the one that is open, if any.
    """

    def __init__(
        self, service: Service, registration_id: str, device: Device, assign: Callable[[Device], None]
    ) -> None:
        """Wait for the client.

        Args:
            service: of the hub that it is assigned to.
            registration_id: the client id.
            device: to be registered with the hub.
            assign: registers it.
        """
        self.id = registration_id
        self.device = device
        self.connection: Connection | None = None
        self.subscriptions: dict[str, int] = {}
        self._service = service
        self._assign = assign
        self._assigned = False

    @property
    def resource(self) -> str:
        """What its token is for."""
        return f"{SCOPE}/registrations/{self.id}"

    def attach(self, connection: Connection, *, clean: bool) -> bool:  # noqa: ARG002 - sessions are not kept here
        """Make a connection this client's only one; sessions are not kept, whatever it asks."""
        if self.connection is not None:
            self.connection.end("the same client has connected again")
        self.connection = connection
        self.subscriptions.clear()
        return False

    def attached(self) -> None:
        """Have nothing to send."""

    def detach(self, connection: Connection) -> None:
        """Forget a connection that is over."""
        if self.connection is connection:
            self.connection = None

    def subscribe(self, topic: str, qos: int) -> int | None:
        """Return the QoS granted for a topic filter, or None where it is not the service's."""
        if topic != _ANSWERS:
            return None
        self.subscriptions[topic] = min(qos, 1)
        return self.subscriptions[topic]

    def subscribed(self) -> None:
        """Have nothing to send."""

    def acknowledged(self, packet_id: int) -> None:
        """Send nothing a second time."""

    def will(self, topic: str, payload: bytes) -> None:  # noqa: ARG002 - it goes nowhere
        """Send a will nowhere."""
        self._service.note("will ignored", self.id, topic)

    def receive(self, message: packets.Publish, connection: Connection) -> str | None:
        """Take a request, or return why the connection has to end."""
        path, _, query = message.topic.partition("?")
        fields = decode_bag(query)
        if "$rid" not in fields or path not in {_REGISTER, _QUERY}:
            return f"the topic {message.topic!r} is not one of the service's"
        if _ANSWERS not in self.subscriptions:
            return None
        if self._service.faults.throttling is not None:
            self._answer(connection, 429, fields["$rid"], {"errorCode": 429001, "message": "throttled"})
        elif path == _REGISTER:
            self._assign(self.device)
            self._assigned = True
            self._answer(connection, 202, fields["$rid"], {"operationId": self._operation, "status": "assigning"})
        elif fields.get("operationId") != self._operation or not self._assigned:
            self._answer(connection, 404, fields["$rid"], {"errorCode": 404204, "message": "no such operation"})
        else:
            self._answer(connection, 200, fields["$rid"], self._result())
        return None

    @property
    def _operation(self) -> str:
        return f"4.{self.device.generation}"

    def _result(self) -> dict[str, object]:
        state = {
            "registrationId": self.id,
            "assignedHub": self.device.host,
            "deviceId": self.device.device_id,
            "status": "assigned",
            "substatus": "initialAssignment",
        }
        return {"operationId": self._operation, "status": "assigned", "registrationState": state}

    def _answer(self, connection: Connection, status: int, request: str, body: dict[str, object]) -> None:
        wait = "&retry-after=1" if status in {202, 429} else ""
        topic = f"$dps/registrations/res/{status}/?$rid={quote(request, safe='')}{wait}"
        connection.publish(topic, json.dumps(body).encode(), 0)
        self._service.note("registration answered", self.id, str(status))

"""What the hub knows: its clients, their sessions and their messages. All of it runs in the hub's thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from tests.iothub import packets
from tests.iothub.connection import Connection
from tests.iothub.faults import State
from tests.iothub.identity import API_VERSIONS, Device, Unauthorized, check_token
from tests.iothub.messages import LARGEST, Event, decode_bag


@dataclass(slots=True, frozen=True)
class Note:
    """Something that happened: `connected`, `disconnected`, `refused` and the like; `client` is a device's id."""

    at: float
    kind: str
    client: str
    detail: str


@dataclass(slots=True, frozen=True)
class Admission:
    """A CONNECT that was accepted; `expires` is in seconds since the epoch, None: never."""

    client: Client
    expires: float | None


class Service:
    """The hub behind its listeners.

    Attributes:
        hosts: the names that a client may call the hub by.
        faults: what it does wrong.
        connections: those that are open.
        clients: by client id.
        notes: what has happened, oldest first.
        observe: called after everything that a test may wait for.
    """

    def __init__(self, hosts: set[str], faults: State, observe: Callable[[], None]) -> None:
        """Begin with no device."""
        self.hosts = hosts
        self.faults = faults
        self.observe = observe
        self.connections: set[Connection] = set()
        self.clients: dict[str, Client] = {}
        self.notes: list[Note] = []
        self.expired: set[str] = set()
        self._count = 0

    def accept(self) -> Connection:
        """Make what speaks to one more TCP connection."""
        self._count += 1
        return Connection(self, self._count)

    def note(self, kind: str, client: str, detail: str) -> None:
        """Keep that something has happened."""
        self.notes.append(Note(time.monotonic(), kind, client, detail))
        self.observe()

    def admit(self, asked: packets.Connect, certificate_name: str | None) -> Admission:
        """Decide about a CONNECT.

        Raises:
            Unauthorized: its user name, client id, token or certificate is not right.
        """
        path, _, query = asked.username.partition("?")
        host, _, client_id = path.rstrip("/").partition("/")
        if host.casefold() not in self.hosts:
            raise Unauthorized(f"the user name {asked.username!r} does not begin with this hub's name")
        versions = parse_qs(query).get("api-version", [])
        if len(versions) != 1 or versions[0] not in API_VERSIONS:
            raise Unauthorized(f"the user name {asked.username!r} has no api-version that is known")
        if client_id != asked.client_id:
            raise Unauthorized(f"the user name is for {client_id!r}, and the client id is {asked.client_id!r}")
        client = self.clients.get(client_id)
        if client is None or not client.device.enabled:
            raise Unauthorized(f"there is no device {client_id!r}, or it is disabled")
        return Admission(client, self.check(client.device, asked.password, certificate_name))

    def check(self, device: Device, password: str, certificate_name: str | None) -> float | None:
        """Return until when a token counts, or None for a certificate.

        Raises:
            Unauthorized: the token or certificate is missing or not the device's.
        """
        if not device.key:
            if password or certificate_name != device.device_id:
                raise Unauthorized(f"{device.id} needs its certificate and no password, and shows {certificate_name}")
            return None
        if password in self.expired:
            raise Unauthorized("the token has expired, as the test asked")
        return check_token(password, device.key, {f"{host}/{device.resource}" for host in self.hosts})

    # The levers of `Faults`.

    def cut(self, *, mid_packet: bool) -> None:
        """End all connections."""
        for connection in list(self.connections):
            connection.end("cut, as the test asked", mid_packet=mid_packet)

    def apply_throttling(self) -> None:
        """Stop or resume reading."""
        for connection in self.connections:
            connection.apply_throttling()

    def expire_tokens(self) -> None:
        """End all connections made with tokens, and take none of these again."""
        for connection in list(self.connections):
            if connection.token:
                self.expired.add(connection.token)
                connection.end("its token has expired, as the test asked")

    def end_deaf(self) -> None:
        """End the connections whose bytes were thrown away."""
        for connection in list(self.connections):
            if connection.deaf:
                connection.end("it was not heard")


@dataclass(slots=True)
class Client:
    """A device or module, its session, and what it has sent."""

    service: Service
    device: Device
    connection: Connection | None = None
    session: bool = False
    subscriptions: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The client id."""
        return self.device.id

    def attach(self, connection: Connection, *, clean: bool) -> bool:
        """Make a connection this client's only one; return whether there was a session to go on with."""
        if self.connection is not None:
            self.connection.end("the same client has connected again")
        self.connection = connection
        present = self.session and not clean
        if not present:
            self.subscriptions.clear()
        self.session = not clean
        return present

    def detach(self, connection: Connection) -> None:
        """Forget a connection that is over."""
        if self.connection is connection:
            self.connection = None

    def may_subscribe(self, topic: str) -> bool:
        """Tell whether a topic filter is one of the service's."""
        own = {f"{self.device.resource}/inputs/#"} if self.device.module_id else set()
        own.add(f"devices/{self.device.device_id}/messages/devicebound/#")
        return topic in own | {
            "$iothub/methods/POST/#",
            "$iothub/twin/res/#",
            "$iothub/twin/PATCH/properties/desired/#",
        }

    def receive(self, message: packets.Publish, connection: Connection) -> str | None:
        """Take a message, or return why the connection has to end."""
        prefix = f"{self.device.resource}/messages/events"
        base, slash, bag = message.topic.partition(prefix)
        if base or not slash or bag[:1] not in {"", "/"}:
            return f"the topic {message.topic!r} is not one of the service's"
        return self._telemetry(message, bag[1:], connection)

    def _telemetry(self, message: packets.Publish, bag: str, connection: Connection) -> str | None:
        faults = self.service.faults
        if connection.cut_is_due():
            return "cut, as the test asked"
        if faults.throttling == "disconnect":
            return "throttled, as the test asked"
        if faults.quota_left <= 0:
            return "the day's quota is used up, as the test asked"
        try:
            properties = decode_bag(bag.rstrip("/"))
        except ValueError as error:
            return str(error)
        if message.retain:
            properties["mqtt-retain"] = "true"
        system = {name: value for name, value in properties.items() if name.startswith("$.")}
        event = Event(
            body=message.payload,
            properties={name: value for name, value in properties.items() if name not in system},
            system=system,
            output=system.get("$.on"),
            packet_id=message.packet_id,
            at=time.monotonic(),
            dup=message.dup,
            connection=connection.number,
        )
        if event.size > LARGEST:
            return f"a message of {event.size} bytes; at most {LARGEST} are allowed"
        faults.quota_left -= 1
        self.events.append(event)
        self.service.observe()
        return None

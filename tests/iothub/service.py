"""What the hub knows: its clients, their sessions and their messages. All of it runs in the hub's thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qs

from tests.iothub import packets, provisioning
from tests.iothub.client import Client
from tests.iothub.connection import Connection
from tests.iothub.faults import State
from tests.iothub.identity import API_VERSIONS, Device, Unauthorized, check_token
from tests.iothub.messages import Event
from tests.iothub.provisioning import Registration


@dataclass(slots=True, frozen=True)
class Note:
    """Something that happened: `connected`, `disconnected`, `refused` and the like; `client` is a device's id."""

    at: float
    kind: str
    client: str
    detail: str


class Peer(Protocol):
    """Whoever is at the other end of a connection: a client of the hub, or of the provisioning service."""

    subscriptions: dict[str, int]

    @property
    def id(self) -> str:
        """The client id."""
        ...

    def attach(self, connection: Connection, *, clean: bool) -> bool:
        """Make a connection the only one; return whether there was a session to go on with."""
        ...

    def attached(self) -> None:
        """Send what waits, once the CONNACK is on its way."""
        ...

    def detach(self, connection: Connection) -> None:
        """Forget a connection that is over."""
        ...

    def subscribe(self, topic: str, qos: int) -> int | None:
        """Return the QoS granted for a topic filter, or None where it is not one of the service's."""
        ...

    def subscribed(self) -> None:
        """Send what has waited for a subscription, once the SUBACK is on its way."""
        ...

    def receive(self, message: packets.Publish, connection: Connection) -> str | None:
        """Take a message, or return why the connection has to end."""
        ...

    def acknowledged(self, packet_id: int) -> None:
        """Take a PUBACK."""
        ...

    def will(self, topic: str, payload: bytes) -> None:
        """Take the will of a connection that ended without DISCONNECT."""
        ...


@dataclass(slots=True, frozen=True)
class Admission:
    """A CONNECT that was accepted; `expires` is in seconds since the epoch, None: never."""

    client: Peer
    expires: float | None


class Service:
    """The hub behind its listeners.

    Attributes:
        hosts: the names that a client may call the hub by.
        faults: what it does wrong.
        connections: those that are open.
        clients: by client id.
        registrations: the provisioning service's, by registration id.
        notes: what has happened, oldest first.
        observe: called after everything that a test may wait for.
        on_event: called with each message and its client's id, where a test or the command line wants to see them.
    """

    def __init__(self, hosts: set[str], faults: State, observe: Callable[[], None]) -> None:
        """Begin with no device."""
        self.hosts = hosts
        self.faults = faults
        self.observe = observe
        self.connections: set[Connection] = set()
        self.clients: dict[str, Client] = {}
        self.registrations: dict[str, Registration] = {}
        self.notes: list[Note] = []
        self.on_event: Callable[[str, Event], None] | None = None
        self._expired: set[str] = set()
        self._count = 0

    def accept(self) -> Connection:
        """Make what speaks to one more TCP connection."""
        self._count += 1
        return Connection(self, self._count)

    def note(self, kind: str, client: str, detail: str) -> None:
        """Keep that something has happened."""
        self.notes.append(Note(time.monotonic(), kind, client, detail))
        self.observe()

    def recorded(self, client: str, event: Event) -> None:
        """Tell whoever wants to know that a message was recorded."""
        if self.on_event is not None:
            self.on_event(client, event)
        self.observe()

    def refusal(self) -> str | None:
        """Return why no message is taken now, as the test asked; None: it is."""
        if self.faults.throttling == "disconnect":
            return "throttled, as the test asked"
        if self.faults.quota_left <= 0:
            return "the day's quota is used up, as the test asked"
        return None

    def swallows(self) -> bool:
        """Tell whether a message is neither recorded nor acknowledged, and the connection stays."""
        return self.faults.quota_left <= 0 and self.faults.over_quota == "ignore"

    def admit(self, asked: packets.Connect, certificate_name: str | None) -> Admission:
        """Decide about a CONNECT.

        Raises:
            Unauthorized: its user name, client id, token or certificate is not right.
        """
        if asked.username.startswith(f"{provisioning.SCOPE}/"):
            return self._admit_registration(asked, certificate_name)
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
        resources = {f"{host}/{client.device.resource}" for host in self.hosts}
        return Admission(client, self.check(client.device, asked.password, certificate_name, resources))

    def _admit_registration(self, asked: packets.Connect, certificate_name: str | None) -> Admission:
        scope, _, rest = asked.username.partition("/registrations/")
        registration_id, _, query = rest.partition("/")
        registration = self.registrations.get(registration_id)
        if registration is None or asked.client_id != registration_id:
            raise Unauthorized(f"{scope} has no registration {registration_id!r}, or it is not the client id")
        if not provisioning.API_VERSIONS & set(parse_qs(query).get("api-version", [])):
            raise Unauthorized(f"the user name {asked.username!r} has no api-version that is known")
        expires = self.check(registration.device, asked.password, certificate_name, {registration.resource})
        return Admission(registration, expires)

    def check(self, device: Device, password: str, certificate_name: str | None, resources: set[str]) -> float | None:
        """Return until when a token counts, or None for a certificate.

        Raises:
            Unauthorized: the token or certificate is missing or not the device's.
        """
        if not device.key:
            if password or certificate_name != device.certificate_name:
                raise Unauthorized(f"{device.id} needs its certificate and no password, and shows {certificate_name}")
            return None
        if password in self._expired:
            raise Unauthorized("the token has expired, as the test asked")
        return check_token(password, device.key, resources)

    def forget_sessions(self) -> None:
        """Lose all sessions."""
        for client in self.clients.values():
            client.forget_session()

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
                self._expired.add(connection.token)
                connection.end("its token has expired, as the test asked")

    def end_deaf(self) -> None:
        """End the connections whose bytes were thrown away."""
        for connection in list(self.connections):
            if connection.deaf:
                connection.end("it was not heard")

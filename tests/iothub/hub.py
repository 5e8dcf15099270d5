"""The double as tests use it: a hub on a loopback address of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self, TypeVar

from tests.iothub.faults import Faults, State
from tests.iothub.identity import Authority, Device, new_key
from tests.iothub.messages import Event
from tests.iothub.service import Client, Note, Service

T = TypeVar("T")

MQTT_PORT = 8883
"""The only port that the SDK speaks MQTT to; each hub has an address of its own, so that several can have it."""
NAME = "double.azure-devices.net"
_PATIENCE = 10.0
_ATTEMPTS = 50


class Hub:
    """An IoT Hub for tests.

    Attributes:
        host: its address, somewhere in 127.0.0.0/8; the gateway in connection strings.
        name: what its devices call it, in `HostName`.
        port: of MQTT over TLS.
        ca: PEM file of the authority that has signed its certificate.
        faults: what it does wrong.
    """

    def __init__(self, directory: Path, *, host: str | None = None, port: int = 0, name: str = NAME) -> None:
        """Make its certificates and take its address; `start` listens.

        Args:
            directory: for its files.
            host: a loopback address; absent: one that is free.
            port: of MQTT; 0: 8883, the only one that the SDK knows.
            name: the hub's name.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.name = name
        self.port = port or MQTT_PORT
        self._listener = _listen(host, self.port)
        self.host = str(self._listener.getsockname()[0])
        self._authority = Authority(directory)
        self.ca = self._authority.file
        self._tls = self._server_tls()
        self._changed = threading.Condition()
        state = State()
        self._service = Service({self.name.casefold(), self.host, "localhost"}, state, self._notify)
        self.faults = Faults(state, self._run, self._service)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="iothub", daemon=True)
        self._accepting: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def start(self) -> None:
        """Listen; return when clients can connect."""
        self._thread.start()
        self._run(self._open)

    def stop(self) -> None:
        """End all connections and the thread."""
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()

    def restart(self, *, keep_sessions: bool = True) -> None:
        """End all connections and listen again on the same address.

        Args:
            keep_sessions: whether subscriptions and what waits for a client are still there afterwards.
        """
        self.take_down()
        if not keep_sessions:
            self._run(self._forget_sessions)
        self.bring_up()

    def take_down(self) -> None:
        """End all connections and stop listening; clients are refused by the kernel."""
        self._wait(self._close())

    def bring_up(self) -> None:
        """Listen again after `take_down`."""
        self._listener = _listen(self.host, self.port)
        self._run(self._open)

    def add_device(self, device_id: str, module: str | None = None, *, x509: bool = False) -> Device:
        """Register a device, or a module of one, and return what a client needs to be it."""
        device = Device(device_id, module, self.host, self.name)
        if x509:
            device.certificate, device.private_key = self._authority.issue(device_id)
        else:
            device.key = new_key()
        client = Client(self._service, device)
        self._run(lambda: self._service.clients.__setitem__(device.id, client))
        return device

    def received(self, device: Device) -> list[Event]:
        """Return what a device has sent, in the order in which it came; a message that came twice is there twice."""
        return list(self._client(device).events)

    def connected(self, device: Device) -> bool:
        """Tell whether a device has a connection."""
        return self._client(device).connection is not None

    @property
    def notes(self) -> list[Note]:
        """What has happened to connections, oldest first."""
        return list(self._service.notes)

    def wait_for(self, condition: Callable[[], object], timeout: float = _PATIENCE) -> None:
        """Wait until a condition holds; it is looked at after everything that happens in the hub.

        Raises:
            TimeoutError: it does not within `timeout` seconds; the text has the last notes.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    last = "\n".join(f"{note.kind} {note.client}: {note.detail}" for note in self.notes[-10:])
                    raise TimeoutError(f"not within {timeout:g} s; the hub's last notes:\n{last}")
                self._changed.wait(min(left, 0.05))  # the condition may look at more than the hub

    # In the hub's thread.

    def _open(self) -> None:
        self._accepting = self._loop.create_task(self._accept())

    async def _accept(self) -> None:
        while True:
            end, _ = await self._loop.sock_accept(self._listener)
            if self._service.faults.unreachable:
                end.close()
            else:
                self._loop.create_task(self._greet(end))

    async def _greet(self, end: socket.socket) -> None:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.connect_accepted_socket(self._service.accept, end, ssl=self._tls)
        except (OSError, ssl.SSLError) as error:
            self._service.note("no TLS", "", str(error))

    async def _close(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None
        self._listener.close()
        for connection in list(self._service.connections):
            connection.end("the hub is going down")

    def _forget_sessions(self) -> None:
        for client in self._service.clients.values():
            client.session = False
            client.subscriptions.clear()

    # Between threads.

    def _client(self, device: Device) -> Client:
        return self._service.clients[device.id]

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self, action: Callable[[], T]) -> T:
        async def act() -> T:
            return action()

        return self._wait(act())

    def _wait(self, work: Awaitable[T]) -> T:
        async def wait() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result(_PATIENCE)

    def _server_tls(self) -> ssl.SSLContext:
        chain, key = self._authority.issue(self.name, self.name, self.host, "localhost")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        tls.load_cert_chain(chain, key)
        tls.load_verify_locations(self.ca)
        tls.verify_mode = ssl.CERT_OPTIONAL
        return tls


def _listen(host: str | None, port: int) -> socket.socket:
    """Return a listener on an address; absent: on a loopback address where nobody listens on that port."""
    for _ in range(_ATTEMPTS):
        address = host or ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])  # noqa: S311 - no secret
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
            listener.listen(128)
        except OSError:
            listener.close()
            if host is not None:
                raise
            continue
        listener.settimeout(0)  # asyncio waits
        return listener
    raise OSError(f"no loopback address with port {port} free in {_ATTEMPTS} attempts")

"""The double as tests use it: a hub on a loopback address of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Self, TypeVar

from tests.iothub.client import Client
from tests.iothub.edge import API_VERSION, Workload
from tests.iothub.faults import Faults, State
from tests.iothub.identity import Authority, Device, new_key
from tests.iothub.listeners import Listeners, listen
from tests.iothub.messages import Event
from tests.iothub.provisioning import SCOPE, Registration
from tests.iothub.service import Note, Service
from tests.iothub.twin import Json
from tests.iothub.uploads import Upload, Uploads

T = TypeVar("T")

MQTT_PORT, HTTPS_PORT = 8883, 443
"""The only ports that the SDK knows; each hub has an address of its own, so that several can have them."""
NAME = "double.azure-devices.net"
_PATIENCE = 10.0


class Hub:
    """An IoT Hub for tests; every method may be called from any thread but its own.

    Attributes:
        host: its address, somewhere in 127.0.0.0/8; the gateway in connection strings.
        name: what its devices call it, in `HostName`.
        port: of MQTT over TLS.
        https_port: of file uploads, blobs, and MQTT over WebSockets.
        ca: PEM file of the authority that has signed its certificate.
        scope: the provisioning service's id scope; it listens where the hub does.
        faults: what it does wrong.
    """

    scope = SCOPE

    def __init__(
        self, directory: Path, *, host: str | None = None, port: int = 0, https_port: int = 0, name: str = NAME
    ) -> None:
        """Make its certificates and take its address; `start` serves.

        Args:
            directory: for its files.
            host: a loopback address; absent: one that is free.
            port: of MQTT; 0: 8883.
            https_port: 0: 443 where this user may have it, else any that is free (see `environment`).
            name: the hub's name.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        mqtt = listen(host, port or MQTT_PORT)
        self.host, self.port = mqtt.getsockname()
        try:
            https = listen(self.host, https_port or HTTPS_PORT)
        except OSError:
            if https_port:
                mqtt.close()
                raise
            https = listen(self.host, 0)
        self.https_port = int(https.getsockname()[1])
        self.name = name
        self._authority = Authority(directory)
        self.ca = self._authority.file
        self._changed = threading.Condition()
        state = State()
        self._service = Service({self.name.casefold(), self.host, "localhost"}, state, self._notify)
        self._uploads = Uploads(self._service, f"{self.host}:{self.https_port}")
        self._listeners = Listeners(self._service, self._server_tls(), mqtt, https)
        self.faults = Faults(state, self._run, self._service, self._listeners.end_unheard)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="iothub", daemon=True)

    # Running.

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def start(self) -> None:
        """Serve; return when clients can connect."""
        self._thread.start()
        self.bring_up()

    def stop(self) -> None:
        """End all connections and the thread."""
        self._wait(self._listeners.end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()

    def take_down(self) -> None:
        """End all connections and stop listening; clients are refused by the kernel."""
        self._wait(self._listeners.close())

    def bring_up(self) -> None:
        """Listen again after `take_down`, on the same address."""
        self._run(lambda: self._listeners.open(self._uploads))

    def restart(self, *, keep_sessions: bool = True) -> None:
        """Go down and come up again.

        Args:
            keep_sessions: whether clients still have their subscriptions afterwards.
        """
        self.take_down()
        if not keep_sessions:
            self._run(self._service.forget_sessions)
        self.bring_up()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for a process that uses HTTPS or WebSockets; the SDK knows only port 443."""
        if self._listeners.proxy is None:
            return {"NO_PROXY": self.host, "no_proxy": self.host}
        proxy = f"http://{self.host}:{self._listeners.proxy}"
        return {"NO_PROXY": "", "no_proxy": "", "HTTPS_PROXY": proxy, "https_proxy": proxy, "mqtt_proxy": proxy}

    # Devices.

    def add_device(self, device_id: str, module: str | None = None, *, x509: bool = False) -> Device:
        """Register a device, or a module of one, and return what a client needs to be it."""
        device = self._make_device(device_id, module, x509=x509)
        self._run(lambda: self._register(device))
        return device

    def enroll(self, registration_id: str, *, x509: bool = False) -> Device:
        """Enroll a device of that name with the provisioning service; registering makes it the hub's."""
        device = self._make_device(registration_id, None, x509=x509)
        registration = Registration(self._service, registration_id, device, self._register)
        self._run(lambda: self._service.registrations.__setitem__(registration_id, registration))
        return device

    def edge_environment(self, device: Device) -> dict[str, str]:
        """Return the environment that IoT Edge gives to a module, and serve its workload API."""
        path = self._directory / "workload.sock"
        if not path.exists():
            self._wait(self._listeners.open_workload(path, Workload(self._service, self.ca)))
        return {
            "IOTEDGE_IOTHUBHOSTNAME": self.name,
            "IOTEDGE_GATEWAYHOSTNAME": self.host,
            "IOTEDGE_DEVICEID": device.device_id,
            "IOTEDGE_MODULEID": device.module_id or "",
            "IOTEDGE_MODULEGENERATIONID": device.generation,
            "IOTEDGE_WORKLOADURI": f"unix://{path}",
            "IOTEDGE_APIVERSION": API_VERSION,
        }

    # What came.

    def received(self, device: Device) -> list[Event]:
        """Return what a device has sent, in the order in which it came; a message that came twice is there twice."""
        return list(self._client(device).events)

    def connected(self, device: Device) -> bool:
        """Tell whether a device has a connection."""
        return self._client(device).connection is not None

    def subscriptions(self, device: Device) -> set[str]:
        """Return the topic filters that a device has subscribed to."""
        return set(self._client(device).subscriptions)

    def on_event(self, seen: Callable[[str, Event], None]) -> None:
        """Have a function called with each message and its client's id, in the hub's thread."""
        self._service.on_event = seen

    @property
    def notes(self) -> list[Note]:
        """What has happened beside messages, oldest first."""
        return list(self._service.notes)

    @property
    def uploads(self) -> list[Upload]:
        """The file uploads that devices began, oldest first."""
        return list(self._uploads.files)

    @property
    def blobs(self) -> dict[str, bytes]:
        """Complete blobs by name, `<device>/<name>`."""
        return dict(self._uploads.blobs)

    def configure_storage(self, *, present: bool) -> None:
        """Give the hub a storage account, which it has at first, or take it away."""
        self._uploads.configured = present

    def wait_for(self, condition: Callable[[], object], timeout: float = _PATIENCE) -> None:
        """Wait until a condition holds; it is looked at after everything that happens in the hub.

        Raises:
            TimeoutError: it does not within `timeout` seconds; the text has the last notes.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                last = "\n".join(f"{note.kind} {note.client}: {note.detail}" for note in self.notes[-10:])
                raise TimeoutError(f"not within {timeout:g} s; the hub's last notes:\n{last}")
            with self._changed:
                self._changed.wait(min(left, 0.05))  # the condition may look at more than the hub

    # What goes.

    def set_desired(self, device: Device, patch: Mapping[str, Json], *, replace: bool = False) -> int:
        """Patch the desired properties, or replace them; return their version.

        Raises:
            ValueError: the service would not store that.
        """
        return self._run(lambda: self._client(device).change(patch, replace=replace))

    def desired(self, device: Device) -> dict[str, Json]:
        """Return the desired properties, with `$version`."""
        return self._client(device).desired.document

    def reported(self, device: Device) -> dict[str, Json]:
        """Return the reported properties, with `$version`."""
        return self._client(device).reported.document

    def invoke(self, device: Device, name: str, payload: Json = None, timeout: float = _PATIENCE) -> tuple[int, Json]:
        """Call a method and return its status and payload.

        404 and 504 are also the hub's own: the device is not there or has not subscribed; no answer in `timeout`
        seconds.
        """
        return self._wait(self._client(device).invoke(name, payload, timeout), timeout + _PATIENCE)

    def send_c2d(self, device: Device, payload: bytes, properties: Mapping[str, str] | None = None) -> int:
        """Send a message to a device, which waits until it is acknowledged; return its number for `waits`."""
        path = f"{device.resource}/messages/devicebound"
        fields = {"$.to": f"/{path}", **(properties or {})}
        return self._run(lambda: self._client(device).send(f"{path}/#", path, payload, fields))

    def send_input(self, device: Device, name: str, payload: bytes, properties: Mapping[str, str] | None = None) -> int:
        """Send a message to a module's input, as the Edge's routes do; return its number for `waits`."""
        path = f"{device.resource}/inputs"
        return self._run(lambda: self._client(device).send(f"{path}/#", f"{path}/{name}", payload, properties or {}))

    def waits(self, device: Device, number: int) -> bool:
        """Tell whether a message to a device is not acknowledged yet."""
        return self._client(device).waits(number)

    # Between threads.

    def _make_device(self, device_id: str, module: str | None, *, x509: bool) -> Device:
        device = Device(device_id, module, self.host, self.name)
        if x509:
            device.certificate, device.private_key = self._authority.issue(device.id)
            device.certificate_name = device.id
        else:
            device.key = new_key()
        return device

    def _register(self, device: Device) -> None:
        known = self._service.clients.setdefault(device.id, Client(self._service, device))
        if known.device is not device:
            raise ValueError(f"there is a device {device.id!r} already")

    def _client(self, device: Device) -> Client:
        return self._service.clients[device.id]

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self, action: Callable[[], T]) -> T:
        async def act() -> T:
            return action()

        return self._wait(act())

    def _wait(self, work: Awaitable[T], patience: float = _PATIENCE) -> T:
        async def wait() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result(patience)

    def _server_tls(self) -> ssl.SSLContext:
        chain, key = self._authority.issue(self.name, self.name, self.host, "localhost")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        tls.load_cert_chain(chain, key)
        tls.load_verify_locations(self.ca)
        tls.verify_mode = ssl.CERT_OPTIONAL
        return tls

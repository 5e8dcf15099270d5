"""One connection to a hub through the SDK: made, used and given up, never mended.

After an error the SDK's client cannot be trusted: a message may be queued in it though its send failed, and its
acknowledgement may later be taken for another's. So a client that failed is given up, and another made.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from azure.iot.device import X509, ProvisioningDeviceClient
from azure.iot.device import Message as SdkMessage
from azure.iot.device.aio import IoTHubDeviceClient, IoTHubModuleClient

from processor import __version__
from processor.bridges.iothub import sdk_private
from processor.bridges.iothub.identity import (
    Certificate,
    Credentials,
    EdgeModule,
    Identity,
    Provisioned,
    WithCertificate,
    WithConnectionString,
    WithKey,
    describe,
)
from processor.bridges.iothub.messages import Message
from processor.errors import BridgeError

log = logging.getLogger(__name__)

T = TypeVar("T")
Client = IoTHubDeviceClient | IoTHubModuleClient

OPENING: Final = 30.0
"""Seconds in which a connection has to be made; and as many for the provisioning before it."""
_CLOSING: Final = 5.0
"""Seconds in which a client has to end."""
_KEEP_ALIVE: Final = 60
OUTPUT: Final = "training"
"""Of an IoT Edge module: where samples go."""
_QUIET: Final = ("azure", "paho", "urllib3", "requests", "uamqp")
"""Loggers of the SDK and what it uses. At DEBUG they write tokens and signed addresses; and what goes wrong is raised
here, so that their warnings, tracebacks of several pages, would only say it again."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a connection is made.

    Attributes:
        websockets: port 443 instead of 8883.
        window: messages that may wait for their PUBACK.
        token_ttl: seconds for which a token is good; it is renewed two minutes before.
    """

    websockets: bool = False
    window: int = 64
    token_ttl: int = 3600


@dataclass(frozen=True, slots=True)
class Assigned:
    """What the Device Provisioning Service has answered."""

    host: str
    device: str


class Connection:
    """A connected client of the SDK. Used by the delivery thread, but for `end`, which any may call.

    Attributes:
        client: the SDK's.
        who: we are, as a clause for the log.
        is_module: whether it is a module's: without file upload.
        ca: certificates that are trusted beside the system's, PEM.
        has_inputs: whether it is to an IoT Edge, which has inputs and outputs for modules.
        acknowledged: messages.
    """

    def __init__(self, client: Client, who: str = "", *, ca: str | None = None, has_inputs: bool = False) -> None:
        """Take a client that is connected, or will be."""
        self.client = client
        self.who = who
        self.is_module = isinstance(client, IoTHubModuleClient)
        self.ca = ca
        self.has_inputs = has_inputs
        self.acknowledged = 0
        self._farewell: threading.Thread | None = None

    @property
    def is_lost(self) -> bool:
        """Whether it has ended; not so while the SDK renews the token."""
        return not self.client.connected and not sdk_private.is_renewing(self.client)

    async def send(self, message: Message) -> None:
        """Send a message; returns when the hub has acknowledged it."""
        out = SdkMessage(  # type: ignore[no-untyped-call] # the SDK's has no types
            message.body, message_id=message.id, content_encoding="utf-8", content_type=message.content_type
        )
        out.custom_properties = dict(message.properties)
        if self.has_inputs and isinstance(self.client, IoTHubModuleClient):  # an edge hub's routes are by output
            await self.client.send_message_to_output(out, OUTPUT)
        else:
            await self.client.send_message(out)
        self.acknowledged += 1

    def end(self, *, in_peace: bool) -> threading.Thread:
        """Give the client up, in a thread of its own.

        Args:
            in_peace: let it say goodbye; else its connection is cut first.
        """
        if self._farewell is None:
            if not in_peace:
                sdk_private.sever(self.client)
            self._farewell = threading.Thread(target=_shut_down, args=(self.client,), name="iothub-end", daemon=True)
            self._farewell.start()
        return self._farewell


def quieten() -> None:
    """Keep what the SDK and its libraries write out of the log."""
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def run_apart(work: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> T:
    """Run a coroutine on this thread, with a pool of its own for what the SDK does in threads.

    What still hangs in a thread after `seconds` is left there.

    Raises:
        TimeoutError: it was not ready in time.
    """
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(ignore)
    pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="iothub-apart")
    loop.set_default_executor(pool)
    try:
        return loop.run_until_complete(asyncio.wait_for(work(), seconds))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        loop.close()


def ignore(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Take note of an answer that comes when nobody waits for it any more."""
    log.debug("Too late from the SDK: %s", context.get("message"))


def assign(identity: Provisioned, ca: str | None, *, websockets: bool) -> Assigned:
    """Ask the Device Provisioning Service for our hub. Blocks.

    Raises:
        BridgeError: it has none for us.
        Exception: whatever the SDK raises.
    """
    options: dict[str, Any] = {"websockets": websockets, "keep_alive": _KEEP_ALIVE}
    if ca is not None:
        options["server_verification_cert"] = ca

    async def register() -> Assigned:
        loop = asyncio.get_running_loop()
        client = await loop.run_in_executor(None, _provisioning_client, identity, options)
        try:
            result = await loop.run_in_executor(None, client.register)
        except BaseException:
            sdk_private.sever(client)
            threading.Thread(
                target=sdk_private.end_provisioning, args=(client,), name="iothub-end", daemon=True
            ).start()
            raise
        state = result.registration_state
        if result.status != "assigned" or state is None or not state.assigned_hub:
            raise BridgeError(f"it has no hub for {identity.registration} ({result.status})")
        return Assigned(state.assigned_hub, state.device_id)

    return run_apart(register, OPENING)


def _provisioning_client(identity: Provisioned, options: dict[str, Any]) -> ProvisioningDeviceClient:
    arguments = {
        "provisioning_host": identity.service,
        "registration_id": identity.registration,
        "id_scope": identity.scope,
    }
    if identity.certificate is not None:
        return ProvisioningDeviceClient.create_from_x509_certificate(
            **arguments, x509=_x509(identity.certificate), **options
        )
    return ProvisioningDeviceClient.create_from_symmetric_key(**arguments, symmetric_key=identity.key or "", **options)


def connect(credentials: Credentials, assigned: Assigned | None, options: Options) -> Connection:
    """Make a connection. Blocks.

    Args:
        credentials: who we are.
        assigned: the hub, where the provisioning service has told it.
        options: how.

    Raises:
        Exception: whatever the SDK raises.
    """

    async def make() -> Connection:
        loop = asyncio.get_running_loop()
        client = await loop.run_in_executor(None, _client, credentials, assigned, options)
        identity = credentials.identity
        who = describe(identity)
        if assigned is not None:
            who = f"{assigned.device} at {assigned.host}"
        connection = Connection(client, who, ca=credentials.ca, has_inputs=_is_at_the_edge(identity))
        try:
            sdk_private.allow_in_flight(client, options.window)
            await client.connect()
        except BaseException:
            connection.end(in_peace=False)
            raise
        return connection

    return run_apart(make, OPENING)


def _client(credentials: Credentials, assigned: Assigned | None, options: Options) -> Client:
    """Return a client of the SDK that is ready to connect, and will do so only once."""
    identity = credentials.identity
    arguments: dict[str, Any] = {
        "websockets": options.websockets,
        "keep_alive": _KEEP_ALIVE,
        "product_info": f"mlade/{__version__}",
        "auto_connect": False,
        "connection_retry": False,
        "ensure_desired_properties": False,
    }
    if credentials.ca is not None:
        arguments["server_verification_cert"] = credentials.ca
    if isinstance(identity, Provisioned) and assigned is not None:
        if identity.certificate is not None:
            identity = WithCertificate(assigned.host, assigned.device, identity.certificate)
        else:
            identity = WithKey(assigned.host, assigned.device, identity.key or "")
    if isinstance(identity, WithCertificate):
        return IoTHubDeviceClient.create_from_x509_certificate(
            _x509(identity.certificate), identity.host, identity.device, **arguments
        )
    arguments["sastoken_ttl"] = options.token_ttl
    if isinstance(identity, EdgeModule):
        return IoTHubModuleClient.create_from_edge_environment(**arguments)
    if isinstance(identity, WithKey):
        return IoTHubDeviceClient.create_from_symmetric_key(identity.key, identity.host, identity.device, **arguments)
    if not isinstance(identity, WithConnectionString):
        raise TypeError(f"no hub is assigned to {identity}")
    kind = IoTHubDeviceClient if identity.parsed.module is None else IoTHubModuleClient
    return kind.create_from_connection_string(identity.parsed.text, **arguments)


def _is_at_the_edge(identity: Identity) -> bool:
    if isinstance(identity, WithConnectionString):
        return identity.parsed.module is not None and identity.parsed.gateway is not None
    return isinstance(identity, EdgeModule)


def _x509(certificate: Certificate) -> X509:
    return X509(str(certificate.cert), str(certificate.key))  # type: ignore[no-untyped-call] # it has no types


def _shut_down(client: Client) -> None:
    """End a client, or leave it to itself."""
    try:
        run_apart(client.shutdown, _CLOSING)
    except TimeoutError:
        sdk_private.give_up_pipeline_thread()
    except Exception as error:  # noqa: BLE001 - it is given up in any case
        log.debug("A client of the hub ended with %s.", type(error).__name__)

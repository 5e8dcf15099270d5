"""The real SDK as a device: telemetry, twin, methods, messages, files, and the ways of proving who it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from azure.iot.device import X509, Message, MethodRequest, MethodResponse
from azure.iot.device.aio import IoTHubDeviceClient, IoTHubModuleClient, ProvisioningDeviceClient
from azure.iot.device.exceptions import ClientError, CredentialError
from azure.storage.blob import BlobClient

from tests.iothub import Device, Hub

# The SDK uses paho's older callbacks.
pytestmark = pytest.mark.filterwarnings("ignore:Callback API version 1 is deprecated")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Run a hub."""
    with Hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let HTTPS reach the hub, whichever port it has."""
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)


def message(body: bytes, **attributes: Any) -> Message:  # noqa: ANN401 - as the SDK
    """Make a message with some of its attributes."""
    made = Message(body)  # type: ignore[no-untyped-call]  # the SDK's has no types
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def certificate_of(device: Device) -> X509:
    """Return what the SDK takes."""
    return X509(str(device.certificate), str(device.private_key))  # type: ignore[no-untyped-call]  # has no types


@asynccontextmanager
async def client_of(hub: Hub, device: Device, **options: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - as the SDK
    """Connect the SDK's client of a device or module."""
    kind = IoTHubDeviceClient if device.module_id is None else IoTHubModuleClient
    client: Any = kind.create_from_connection_string(
        device.connection_string, server_verification_cert=hub.ca.read_text(), connection_retry=False, **options
    )
    await client.connect()
    try:
        yield client
    finally:
        await client.shutdown()


def test_a_message_comes_with_its_properties(hub: Hub) -> None:
    """System properties are apart from the application's, and all of them are decoded."""
    device = hub.add_device("telemetry")

    async def run() -> None:
        async with client_of(hub, device) as client:
            sent = message(b'{"a": 1}', message_id="id 1", content_type="application/json", content_encoding="utf-8")
            sent.custom_properties = {"rule": "a/b c&d=%+ü"}
            await client.send_message(sent)

    asyncio.run(run())
    (event,) = hub.received(device)
    assert event.body == b'{"a": 1}'
    assert event.properties == {"rule": "a/b c&d=%+ü"}
    assert event.system == {"$.mid": "id 1", "$.ct": "application/json", "$.ce": "utf-8"}
    assert (event.id, event.output, event.blocks) == ("id 1", None, 1)


def test_messages_over_websockets_of_any_size(hub: Hub) -> None:
    """MQTT goes through a WebSocket on the HTTPS port."""
    device = hub.add_device("websockets")
    bodies = [bytes([number]) * size for number, size in enumerate([0, 1, 125, 126, 65_536, 250_000])]

    async def run() -> None:
        async with client_of(hub, device, websockets=True) as client:
            for body in bodies:
                await client.send_message(message(body))

    asyncio.run(run())
    assert [event.body for event in hub.received(device)] == bodies


def test_a_certificate_is_as_good_as_a_token(hub: Hub) -> None:
    """A device with a certificate connects to the hub's own address, without a password."""
    device = hub.add_device("certified", x509=True)
    hub.add_device("other", x509=True)

    async def run(device_id: str) -> None:
        client = IoTHubDeviceClient.create_from_x509_certificate(
            certificate_of(device),
            hub.host,
            device_id,
            server_verification_cert=hub.ca.read_text(),
            connection_retry=False,
        )
        try:
            await client.send_message("hello")
        finally:
            await client.shutdown()

    asyncio.run(run("certified"))
    assert [event.body for event in hub.received(device)] == [b"hello"]
    with pytest.raises(CredentialError):
        asyncio.run(run("other"))


def test_a_token_is_renewed_in_time(hub: Hub) -> None:
    """The SDK connects again with a new one, two minutes before the old one expires; its session goes on."""
    device = hub.add_device("renewing")

    def renewed() -> bool:
        return sum(note.client == device.id and note.kind == "connected" for note in hub.notes) >= 2

    async def run() -> None:
        async with client_of(hub, device, sastoken_ttl=121) as client:
            await client.send_message(message(b"0"))
            await asyncio.to_thread(hub.wait_for, renewed)
            await client.send_message(message(b"1"))

    asyncio.run(run())
    assert [event.body for event in hub.received(device)] == [b"0", b"1"]
    assert len({event.connection for event in hub.received(device)}) == 2


def test_the_twin_is_read_and_reported(hub: Hub) -> None:
    """Patches are merged, null removes, and each change counts up the section's version."""
    device = hub.add_device("twin")
    assert hub.set_desired(device, {"filter": {"enabled": True, "rules": [1]}, "gone": 1}) == 2
    hub.set_desired(device, {"filter": {"enabled": False}, "gone": None})

    async def run() -> Any:  # noqa: ANN401 - JSON
        async with client_of(hub, device) as client:
            await client.patch_twin_reported_properties({"status": "applied", "errors": [], "old": 1})
            await client.patch_twin_reported_properties({"old": None, "at": {"path": "rules[0].band"}})
            return await client.get_twin()

    twin = asyncio.run(run())
    assert twin["desired"] == {"filter": {"enabled": False, "rules": [1]}, "$version": 3}
    assert twin["reported"] == {"status": "applied", "errors": [], "at": {"path": "rules[0].band"}, "$version": 3}
    assert hub.reported(device) == twin["reported"]


@pytest.mark.parametrize(
    "refused", [{"a.b": 1}, {"$a": 1}, {"a b": 1}, {"a": "x" * 4097}, {"a": 1 << 52}, {"a": [["x" * 4000] * 9]}]
)
def test_a_twin_does_not_store_everything(hub: Hub, refused: dict[str, Any]) -> None:
    """Keys with dots, long strings, large integers and large sections are refused, and the client is told."""
    device = hub.add_device(f"twin-{json.dumps(refused)[:20].encode().hex()}")

    async def run() -> None:
        async with client_of(hub, device) as client:
            await client.patch_twin_reported_properties(refused)

    with pytest.raises(ClientError) as caught:
        asyncio.run(run())
    assert "400" in str(caught.value.__cause__)
    with pytest.raises(ValueError, match=r"\d|dot"):
        hub.set_desired(device, refused)
    assert hub.reported(device) == {"$version": 1}


def test_methods_desired_properties_and_messages_reach_a_device(hub: Hub) -> None:
    """What a service sends arrives, and is answered."""
    device = hub.add_device("listening")
    assert hub.invoke(device, "status")[0] == 404
    early = hub.send_c2d(device, b"early", {"a": "1 2"})

    async def run() -> tuple[Any, Any, Any]:
        async with client_of(hub, device) as client:
            messages: asyncio.Queue[Any] = asyncio.Queue()
            patches: asyncio.Queue[Any] = asyncio.Queue()

            async def respond(request: MethodRequest) -> None:
                if request.name == "status":
                    response = MethodResponse.create_from_method_request(request, 207, {"got": request.payload})
                    await client.send_method_response(response)

            client.on_method_request_received = respond
            client.on_message_received = messages.put
            client.on_twin_desired_properties_patch_received = patches.put
            first = await messages.get()
            await asyncio.to_thread(hub.wait_for, lambda: len(hub.subscriptions(device)) == 3)
            await asyncio.to_thread(hub.set_desired, device, {"filter": {"enabled": True}})
            answer = await asyncio.to_thread(hub.invoke, device, "status", {"verbose": True})
            silence = await asyncio.to_thread(hub.invoke, device, "unknown", None, 0.05)
            assert silence[0] == 504
            return first, answer, await patches.get()

    first, answer, patch = asyncio.run(run())
    assert (first.data, first.custom_properties) == (b"early", {"a": "1 2"})
    assert not hub.waits(device, early)
    assert answer == (207, {"got": {"verbose": True}})
    assert patch == {"filter": {"enabled": True}, "$version": 2}


def test_a_module_has_inputs_and_outputs(hub: Hub) -> None:
    """As in IoT Edge: a module signs in through the workload API."""
    module = hub.add_device("edge", module="filter")

    async def run() -> Any:  # noqa: ANN401 - a message of the SDK
        client: Any = IoTHubModuleClient.create_from_edge_environment()
        try:
            arrived: asyncio.Queue[Any] = asyncio.Queue()
            client.on_message_received = arrived.put
            await client.connect()
            await client.send_message_to_output(message(b"out"), "training")
            return await arrived.get()
        finally:
            await client.shutdown()

    with pytest.MonkeyPatch.context() as patch:
        for name, value in hub.edge_environment(module).items():
            patch.setenv(name, value)
        number = hub.send_input(module, "input1", b"[1, 2]", {"a": "b"})
        got = asyncio.run(run())
    assert (got.input_name, got.data, got.custom_properties) == ("input1", b"[1, 2]", {"a": "b"})
    assert [(event.body, event.output) for event in hub.received(module)] == [(b"out", "training")]
    hub.wait_for(lambda: not hub.waits(module, number))


def test_files_are_uploaded_with_azures_own_client(hub: Hub) -> None:
    """In one piece, and in blocks; the hub is told how it went."""
    device = hub.add_device("files")
    contents = {"small.json": b"{}", "large/file.bin": bytes(range(256)) * 2000}

    async def run(name: str, content: bytes) -> None:
        async with client_of(hub, device) as client:
            storage = await client.get_storage_info_for_blob(name)
            with BlobClient(
                f"https://{storage['hostName']}",
                storage["containerName"],
                storage["blobName"],
                credential=storage["sasToken"],
                connection_verify=str(hub.ca),
                max_single_put_size=100_000,
                max_block_size=200_000,
            ) as blob:
                await asyncio.to_thread(blob.upload_blob, content)
            await client.notify_blob_upload_status(storage["correlationId"], True, 200, "done")  # noqa: FBT003 - SDK's

    for name, content in contents.items():
        asyncio.run(run(name, content))
    assert hub.blobs == {f"files/{name}": content for name, content in contents.items()}
    assert [(file.blob, file.success) for file in hub.uploads] == [(f"files/{name}", True) for name in contents]
    hub.configure_storage(present=False)
    with pytest.raises(ClientError) as caught:
        asyncio.run(run("none", b""))
    assert "400" in str(caught.value.__cause__)
    hub.configure_storage(present=True)


def test_devices_provision_themselves(hub: Hub) -> None:
    """The provisioning service says which hub is the device's, and that takes it; with a key or a certificate."""
    devices = [hub.enroll("provisioned"), hub.enroll("provisioned-certificate", x509=True)]

    async def provision(device: Device) -> None:
        proof: dict[str, Any]
        proof = {"x509": certificate_of(device)} if device.certificate else {"symmetric_key": device.key}
        how = "create_from_x509_certificate" if device.certificate else "create_from_symmetric_key"
        trust = {"server_verification_cert": hub.ca.read_text()}
        client = getattr(ProvisioningDeviceClient, how)(
            provisioning_host=hub.host, registration_id=device.device_id, id_scope=hub.scope, **proof, **trust
        )
        result = await client.register()
        assert (result.status, result.registration_state.device_id) == ("assigned", device.device_id)
        sender = getattr(IoTHubDeviceClient, how)(
            hostname=result.registration_state.assigned_hub, device_id=device.device_id, **proof, **trust
        )
        await sender.send_message("hello")
        await sender.shutdown()

    async def run() -> None:
        await asyncio.gather(*map(provision, devices))

    asyncio.run(run())
    for device in devices:
        assert [event.body for event in hub.received(device)] == [b"hello"]

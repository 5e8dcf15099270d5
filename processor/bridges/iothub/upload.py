"""Samples too large for a message, through the storage account that the hub is linked to (file upload)."""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import requests
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.iot.device import exceptions
from azure.iot.device.aio import IoTHubDeviceClient
from azure.storage.blob import BlobClient
from requests.adapters import HTTPAdapter

from processor.bridges.iothub.connection import Connection
from processor.bridges.iothub.errors import explain, status_of
from processor.bridges.iothub.messages import reference

_ASKING: Final = 70.0
"""Seconds for the hub's answers; the SDK gives up on its own after a minute."""
_STORING: Final = 600.0
"""Seconds for the content."""
_FOR_GOOD: Final = frozenset({400, 404, 405, 501})
"""Answers of a hub without file upload. Others may be different later: 403 also says that too many are under way."""
_OK: Final = 200
LONGEST_UPLOAD: Final = 2 * _ASKING + _STORING
"""Seconds that all of it may take."""


class WillNeverTake(Exception):
    """The other side will never take this sample; the text is a clause that says why."""


class DoesNotTakeNow(Exception):
    """It may take it later; the text is a clause that says what is wrong."""


class Uploads:
    """Stores events as blobs. What is stored again, after a crash or an error, takes the same place."""

    def __init__(self) -> None:
        """Begin with nothing under way."""
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="iothub-upload")

    async def store(self, connection: Connection, name: str, event: bytes) -> bytes:
        """Store an event, and return the one that refers to it.

        Args:
            connection: to the hub.
            name: the event's id.
            event: what is stored.

        Raises:
            WillNeverTake: the hub has no storage.
            DoesNotTakeNow: hub or storage could not do it.
        """
        client = connection.client
        if not isinstance(client, IoTHubDeviceClient):
            raise WillNeverTake("it is too large for a message, and a module cannot upload files")
        info: dict[str, Any] = await self._ask_for_room(client, f"samples/{name}.json")
        where = f"https://{info['hostName']}/{info['containerName']}/{info['blobName']}"
        loop = asyncio.get_running_loop()
        try:
            storing = loop.run_in_executor(self._pool, _store, where + info["sasToken"], event, connection.ca)
            await asyncio.wait_for(storing, _STORING)
        except (AzureError, OSError, TimeoutError) as error:
            why = _why(error)
            await self._tell(client, info["correlationId"], succeeded=False)
            raise DoesNotTakeNow(f"the hub's storage account does not take an upload: {why}") from error
        await self._tell(client, info["correlationId"], succeeded=True)
        return reference(event, where)

    async def _ask_for_room(self, client: IoTHubDeviceClient, name: str) -> dict[str, Any]:
        try:
            return dict(await asyncio.wait_for(client.get_storage_info_for_blob(name), _ASKING))
        except (exceptions.ClientError, exceptions.ServiceError, TimeoutError) as error:
            status = status_of(error)
            if status in _FOR_GOOD:
                raise WillNeverTake(
                    f"it is too large for a message, and the hub offers no file upload (status {status}); link a "
                    "storage account to the hub under File upload"
                ) from error
            said = explain(error) if status is None else f"it answered {status}"
            raise DoesNotTakeNow(f"the hub gives no place for an upload: {said}") from error

    async def _tell(self, client: IoTHubDeviceClient, correlation: str, *, succeeded: bool) -> None:
        """Tell the hub that an upload is over; it tells its back ends, and frees the device's slot for another."""
        try:
            said = client.notify_blob_upload_status(
                correlation, succeeded, _OK if succeeded else 500, "stored" if succeeded else "failed"
            )
            await asyncio.wait_for(said, _ASKING)
        except (exceptions.ClientError, exceptions.ServiceError, TimeoutError) as error:
            if succeeded:
                raise DoesNotTakeNow(f"the hub was not told of an upload: {explain(error)}") from error

    def close(self) -> None:
        """Wait for nothing."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Trusting(HTTPAdapter):
    """HTTPS that trusts some certificates beside the usual ones."""

    def __init__(self, ca: str) -> None:
        self._context = ssl.create_default_context()
        self._context.load_verify_locations(cadata=ca)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the base class's
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401 - the base class's
        return super().proxy_manager_for(proxy, ssl_context=self._context, **kwargs)


def _store(address: str, event: bytes, ca: str | None) -> None:
    """Put a blob at an address that holds its signature."""
    with requests.Session() as session:
        if ca is not None:
            session.mount("https://", _Trusting(ca))
        transport = RequestsTransport(session=session, session_owner=False)
        with BlobClient.from_blob_url(address, retry_total=1, transport=transport) as blob:
            blob.upload_blob(event, overwrite=True, timeout=int(_STORING))


def _why(error: Exception) -> str:
    """Say what went wrong, without the address and its signature, which the error's own text may hold."""
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        code = getattr(error, "error_code", None)
        return f"it answered {error.status_code}" + (f" {code}" if code else "")
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return f"it cannot be reached ({type(error).__name__})"

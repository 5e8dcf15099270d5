"""What goes over the connection beside samples: twin, methods, inputs, notices; by way of cloud.CloudLink."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from azure.iot.device import Message as SdkMessage
from azure.iot.device import MethodRequest, MethodResponse

from processor.bridges.iothub.connection import Client, Connection
from processor.bridges.iothub.errors import explain, status_of
from processor.cloud import CloudLink, Desired, Input, Method, Notice
from processor.protocols import Clock

log = logging.getLogger(__name__)

_SUBSCRIBING: Final = 20.0
_NOTICES: Final = 16
"""Under way at a time; most of the window is for samples."""
_ASKING: Final = 20.0
"""Seconds for an answer to a twin's request."""
_METHOD: Final = 300.0
"""Seconds after which nobody waits for a method's answer: the hub's longest."""
_AGAIN: Final = 60.0
_LONGEST: Final = 3600.0
"""Seconds until something is tried again that the hub did not answer, while samples pass; doubled each time."""
_TRANSIENT: Final = frozenset({408, 429})


class Talk:
    """One connection's. The handlers are called on threads of the SDK's, everything else by the delivery thread.

    Attributes:
        unreported: what the twin's reported properties are to be, and are not known to be.
    """

    def __init__(self, connection: Connection, link: CloudLink, clock: Clock, unreported: Mapping[str, Any]) -> None:
        """Begin over a new connection.

        Args:
            connection: that is made.
            link: to the pipeline.
            clock: for pauses.
            unreported: what an earlier connection has not brought over.
        """
        self.unreported = dict(unreported)
        self._connection = connection
        self._client: Client = connection.client
        self._link = link
        self._clock = clock
        self._subscribed = False
        # Of its own: where the hub does not answer, a thread hangs in the SDK until the connection is given up.
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="iothub-subscribe")
        self._twin_wanted = True
        self._not_before = 0.0
        self._pause = _AGAIN
        self._notice: Notice | None = None
        self._over = False

    def end(self) -> None:
        """Hear nothing any more: another connection speaks for us."""
        self._over = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def has_something(self) -> bool:
        """Whether `run` has something to do."""
        if self._clock.monotonic() < self._not_before:
            return False
        self._take()
        return not self._subscribed or self._twin_wanted or bool(self.unreported) or self._notice is not None

    async def run(self) -> None:
        """Do what there is to do. What fails is tried again later: samples have the say over the connection."""
        try:
            if not self._subscribed:
                await asyncio.wait_for(self._subscribe(), _SUBSCRIBING)
                self._subscribed = True
            if self._twin_wanted:
                await self._read_twin()
            await self._report()
            await self._send_notices()
            self._pause = _AGAIN
        except Exception as error:  # noqa: BLE001 - the SDK raises what it likes
            self._not_before = self._clock.monotonic() + self._pause
            if self._pause == _AGAIN and not self._over and not self._connection.is_lost:
                log.warning(
                    "The hub does not answer for twin and methods: %s. Samples are not affected; trying again in %g s, "
                    "and on.", explain(error), _AGAIN,
                )  # fmt: skip
            self._pause = min(2 * self._pause, _LONGEST)

    async def _subscribe(self) -> None:
        """Have the SDK call us. It waits for the hub in these assignments, so they are made on another thread."""
        handlers: dict[str, Any] = {
            "on_connection_state_change": self._on_state,
            "on_method_request_received": self._on_method,
            "on_twin_desired_properties_patch_received": self._on_patch,
        }
        if self._connection.has_inputs:
            handlers["on_message_received"] = self._on_input
        elif not self._connection.is_module:
            handlers["on_message_received"] = self._on_message
        loop = asyncio.get_running_loop()
        for name, handler in handlers.items():
            await loop.run_in_executor(self._pool, setattr, self._client, name, handler)
        self._pool.shutdown(wait=False)

    async def _read_twin(self) -> None:
        twin = await asyncio.wait_for(self._client.get_twin(), _ASKING)
        self._twin_wanted = not self._link.ask(Desired(twin.get("desired", {}), complete=True))

    async def _report(self) -> None:
        if not self.unreported:
            return
        reported = dict(self.unreported)
        try:
            await asyncio.wait_for(self._client.patch_twin_reported_properties(reported), _ASKING)
        except Exception as error:
            status = status_of(error)
            if status is None or status in _TRANSIENT or status >= 500:  # noqa: PLR2004 - the server's own failures
                raise
            log.warning("The hub does not take our reported properties (status %d); they are left out.", status)
        for key, value in reported.items():
            if self.unreported.get(key) == value:
                del self.unreported[key]

    def _take(self) -> None:
        self.unreported |= self._link.take_reported() or {}
        self._notice = self._notice or self._link.take_notice()

    async def _send_notices(self) -> None:
        self._take()
        while self._notice is not None:
            notices, self._notice = [self._notice], None
            while len(notices) < _NOTICES and (notice := self._link.take_notice()) is not None:
                notices.append(notice)
            await asyncio.wait_for(asyncio.gather(*map(self._send_notice, notices)), _ASKING)
            self._take()

    async def _send_notice(self, notice: Notice) -> None:
        message = SdkMessage(notice.body, content_encoding="utf-8", content_type="application/json")  # type: ignore[no-untyped-call] # it has no types
        message.custom_properties = dict(notice.properties)
        if notice.output is not None and self._connection.is_module:
            await self._client.send_message_to_output(message, notice.output)  # type: ignore[union-attr] # a module's
        else:
            await self._client.send_message(message)

    # On threads of the SDK's.

    def _on_state(self) -> None:
        if self._client.connected:
            self._twin_wanted = True  # it may have changed while the SDK renewed the token

    def _on_patch(self, patch: dict[str, Any]) -> None:
        if not self._over and not self._link.ask(Desired(patch, complete=False)):
            self._twin_wanted = True

    def _on_message(self, message: SdkMessage) -> None:
        log.info("A cloud-to-device message of %d bytes came and is ignored; use the twin, or methods.", _size(message))

    def _on_input(self, message: SdkMessage) -> None:
        body = message.data if isinstance(message.data, bytes) else str(message.data).encode()
        if not self._over and not self._link.ask(Input(message.input_name or "", body, time.time_ns())):
            log.warning("A message on input %s is lost: too many wait already.", message.input_name)

    async def _on_method(self, request: MethodRequest) -> None:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[tuple[int, Mapping[str, Any]]] = loop.create_future()

        def settle(status: int, body: Mapping[str, Any]) -> None:
            if not answered.done():
                answered.set_result((status, body))

        def answer(status: int, body: Mapping[str, Any]) -> None:
            loop.call_soon_threadsafe(settle, status, body)

        if self._over:
            return
        if not self._link.ask(Method(request.name, request.payload, answer)):
            answer(503, {"error": "too many requests wait already"})
        try:
            status, body = await asyncio.wait_for(answered, _METHOD)
            response = MethodResponse.create_from_method_request(request, status, dict(body))
            await asyncio.wait_for(self._client.send_method_response(response), _ASKING)
        except Exception as error:  # noqa: BLE001 - whoever called will see that no answer came
            log.info("The method %s was not answered: %s.", request.name, explain(error))


def _size(message: SdkMessage) -> int:
    return len(message.data) if isinstance(message.data, bytes | str) else 0

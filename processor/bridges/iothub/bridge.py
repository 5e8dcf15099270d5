"""Samples as messages to an IoT Hub, in order of their priority, at the rate that is paid for.

The delivery thread runs an event loop, but only within `deliver` and `idle`. What may hang in the SDK, to make a
connection and to end one, runs on threads of its own, so that a processor always ends in time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from uuid import uuid4

from processor.bridges.iothub.connection import Assigned, Connection, Options, assign, connect, ignore, quieten
from processor.bridges.iothub.errors import ENDED, explain
from processor.bridges.iothub.exchange import Exchange, Lost, Parcel, Sent
from processor.bridges.iothub.identity import Credentials, Provisioned
from processor.bridges.iothub.messages import Message, packs, room, single
from processor.bridges.iothub.rate import Flow, Rate
from processor.bridges.iothub.talk import Talk
from processor.bridges.iothub.upload import Uploads
from processor.cloud import CloudLink
from processor.errors import BridgeError, ConfigurationError
from processor.ledger import jittered
from processor.outbox import Claim, Waiting
from processor.protocols import Clock, Handover, Shipment

log = logging.getLogger(__name__)

_AT_ONCE: Final = 1000
"""Samples in a delivery, where each is a message."""
_SECONDS_AT_ONCE: Final = 5.0
"""A delivery's length where a rate is set: what is more important then comes next."""
_BYTES_AT_ONCE: Final = 16 << 20
"""In the packs of a delivery."""
_MOST_IN_A_PACK: Final = 5000
_LOOK: Final = 0.2
"""Seconds after which it is looked whether the time is up."""
_IDLE: Final = 0.05
"""Seconds that `idle` may take while there is something to do."""
_GOODBYE: Final = 0.5
_DEFAULT: Final = Options()
_REASSIGN_AFTER: Final = 3
"""Connections that could not be made, before the provisioning service is asked again."""


class _Opening:
    """A connection that is being made, on a thread of its own."""

    def __init__(self, make: Callable[[], Connection], before: threading.Thread | None) -> None:
        """Make it as soon as `before`, which ends the last one, has ended."""
        self.done = threading.Event()
        self.connection: Connection | None = None
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._unwanted = False
        threading.Thread(target=self._run, args=(make, before), name="iothub-open", daemon=True).start()

    def _run(self, make: Callable[[], Connection], before: threading.Thread | None) -> None:
        try:
            if before is not None:
                before.join()
            connection = make()
            with self._lock:
                if self._unwanted:
                    connection.end(in_peace=True)
                else:
                    self.connection = connection
        except BaseException as error:  # noqa: BLE001 - whoever waits looks at it
            self.error = error
        finally:
            self.done.set()

    def give_up(self) -> None:
        """Have the connection ended as soon as it is made."""
        with self._lock:
            self._unwanted = True
            if self.connection is not None:
                self.connection.end(in_peace=True)


class IotHubBridge:
    """A hub, or an IoT Edge, through the SDK; see `protocols.Bridge`."""

    def __init__(
        self,
        credentials: Callable[[], Credentials],
        clock: Clock,
        *,
        link: CloudLink | None = None,
        options: Options = _DEFAULT,
        timeout: float = 30.0,
        rate: Rate | None = None,
        per_second: float | None = None,
        pack: int = 0,
        linger: float = 1.0,
        upload: bool = True,
    ) -> None:
        """Prepare to send.

        Args:
            credentials: reads who we are; called for each connection, on any thread.
            clock: for deadlines and the day.
            link: to the pipeline, for twin, methods and inputs; None: they are left alone.
            options: how a connection is made.
            timeout: seconds for a message's acknowledgement.
            rate: what may be sent when; None: anything.
            per_second: its messages a second, after which the deliveries' size is chosen.
            pack: bytes of a message with several samples; 0: one sample a message.
            linger: seconds that a message which is not full waits for more samples.
            upload: whether what is too large for a message goes through the hub's storage account.
        """
        quieten()
        self.shipment = _shipment(pack, linger, per_second, options.window)
        self._credentials = credentials
        self._clock = clock
        self._link = link
        self._options = options
        self._timeout = timeout
        self._rate = rate or Rate(clock, per_second=None, per_day=None)
        self._flow = Flow(options.window)
        self._sent = Sent()
        self._suspects: dict[str, int] = {}
        self._uploads = Uploads() if upload else None
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(ignore)
        self._pool: ThreadPoolExecutor | None = None
        self._connection: Connection | None = None
        self._talk: Talk | None = None
        self._talking: asyncio.Task[None] | None = None
        self._unreported: Mapping[str, Any] = {}
        self._opening: _Opening | None = None
        self._ending: threading.Thread | None = None
        self._since = 0.0  # when the connection was made
        self._retry_at = float("-inf")
        self._trouble: str | None = None
        self._assigned: Assigned | None = None
        self._closed = False

    def together(self, first: Waiting, other: Waiting) -> bool:
        """Return whether both are of one rule and one model, where they are packed: a message names them."""
        return not self.shipment.claims or (first.rule, first.model) == (other.rule, other.model)

    def name(self, first: Waiting) -> str:
        """Return a name that nobody looks at: a message's id says what is in it."""
        return f"{first.seq}-{uuid4().hex}"

    def figures(self) -> Mapping[str, float]:
        """Return what was sent and what may still be. Any thread."""
        connection, sent, left = self._connection, self._sent, self._rate.left()
        figures = {
            "connected": float(connection is not None and not connection.is_lost),  # true while the token is renewed
            "messages": float(sent.messages),
            "blocks": float(sent.blocks),
            "samples": float(sent.samples),
            "uploads": float(sent.uploads),
            "window": float(self._flow.window),
        }
        return figures if left is None else {**figures, "quota_left": float(left)}

    def deliver(self, claims: Sequence[Claim], handover: Handover) -> None:
        """Send the messages and wait for their acknowledgements; see `protocols.Bridge`."""
        connection = self._connected(handover)
        exchange = Exchange(
            connection,
            handover,
            self._flow,
            self._rate,
            self._clock,
            self._timeout,
            self._sent,
            self._uploads,
            self._suspects,
            self._converse,
        )
        try:
            self._loop.run_until_complete(exchange.run(self._parcels(claims, handover)))
        except Lost as error:
            self._lose(str(error))
            raise BridgeError(f"the hub did not take all samples: {self._trouble}") from error

    def _parcels(self, claims: Sequence[Claim], handover: Handover) -> Iterator[Parcel]:
        for claim in claims:
            if not claim.number:
                for sample, event in handover.events(claim.samples):
                    yield _parcel(claim, single(sample, event), event, is_whole=False)
                continue
            events = dict(handover.events(claim.samples))
            messages = packs(events.items())
            for message in messages:
                yield _parcel(claim, message, events[message.samples[0]], is_whole=len(messages) == 1)

    def _connected(self, handover: Handover) -> Connection:
        """Return a connection.

        Raises:
            BridgeError: there is none.
        """
        while handover.seconds_left() > 0:
            failures = self._flow.losses
            self._keep_up()
            if self._connection is not None:
                return self._connection
            if self._flow.losses > failures and self._trouble:
                break
            if self._opening is not None:
                self._opening.done.wait(_LOOK)
            else:
                self._loop.run_until_complete(asyncio.sleep(min(_LOOK, self._seconds_until_retry())))
        raise BridgeError(f"no connection to the hub: {self._trouble or 'it is being made'}")

    def _seconds_until_retry(self) -> float:
        return max(0.0, self._retry_at - self._clock.monotonic())

    def _keep_up(self) -> None:
        """Notice what became of the connection, and begin to make one where there is none."""
        if self._connection is not None and self._connection.is_lost:
            self._lose(ENDED)
        opening = self._opening
        if opening is not None and opening.done.is_set():
            self._opening = None
            if opening.connection is not None:
                self._adopt(opening.connection)
            else:
                self._fail(opening.error)
        if self._connection is None and self._opening is None and not self._seconds_until_retry():
            self._opening = _Opening(self._open, self._ending)

    def _open(self) -> Connection:
        """Make a connection. A thread of its own."""
        credentials = self._credentials()
        if isinstance(credentials.identity, Provisioned) and self._assigned is None:
            try:
                self._assigned = assign(credentials.identity, credentials.ca, websockets=self._options.websockets)
            except Exception as error:
                raise BridgeError(f"the provisioning service did not tell it: {explain(error)}") from error
        return connect(credentials, self._assigned, self._options)

    def _adopt(self, connection: Connection) -> None:
        self._connection = connection
        self._since = self._clock.monotonic()
        self._trouble = None
        log.info("Connected to the hub as %s.", connection.who)
        # One thread, so that messages leave in order; a new one, because in the old one something may hang.
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="iothub-send")
        self._loop.set_default_executor(self._pool)
        if self._link is not None:
            self._talk = Talk(connection, self._link, self._clock, self._unreported)

    def _fail(self, error: BaseException | None) -> None:
        """Take note that a connection could not be made."""
        if isinstance(error, ConfigurationError):
            self._trouble = "; ".join(map(str, error.problems))
        else:
            self._trouble = explain(error or RuntimeError())
        self._pause(lasted=0.0)
        if self._flow.losses >= _REASSIGN_AFTER:
            self._assigned = None  # the device may have another hub now

    def _lose(self, why: str) -> None:
        """Give the connection up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._ending = connection.end(in_peace=False)
        self._stop_talking()
        self._pause(lasted=self._clock.monotonic() - self._since)
        if self._flow.losses > 1 and why == ENDED:
            why += " again; another client may be connected as the same device, or the hub's daily quota used up"
        self._trouble = why

    def _pause(self, *, lasted: float) -> None:
        self._retry_at = self._clock.monotonic() + jittered(self._flow.lost(lasted))

    def _stop_talking(self) -> None:
        if self._talk is not None:
            self._talk.end()
            self._unreported = self._talk.unreported
        if self._talking is not None:
            self._talking.cancel()
        self._talk = self._talking = None
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _converse(self) -> None:
        """See that what there is to say beside samples is being said, whenever the loop runs."""
        talking = self._talking is not None and not self._talking.done()
        if self._talk is not None and not talking and self._talk.has_something:
            self._talking = self._loop.create_task(self._talk.run())

    def idle(self) -> str | None:
        """Keep the connection, twin and methods alive; see `protocols.Bridge`."""
        if self._closed:
            return None
        self._keep_up()
        self._converse()
        if self._talking is not None and not self._talking.done():
            self._loop.run_until_complete(asyncio.wait([self._talking], timeout=_IDLE))
        return None if self._trouble is None else f"no connection to the hub: {self._trouble}"

    def close(self) -> None:
        """Say goodbye, if that does not take long."""
        if self._closed:
            return
        self._closed = True
        self._stop_talking()
        if self._opening is not None:
            self._opening.give_up()
        if self._connection is not None:
            self._connection.end(in_peace=True).join(_GOODBYE)
        if self._uploads is not None:
            self._uploads.close()
        self._loop.run_until_complete(asyncio.sleep(0))  # what was cancelled ends
        self._loop.close()


def _parcel(claim: Claim, message: Message, event: bytes, *, is_whole: bool) -> Parcel:
    """Return a parcel; `event` is that of its sample where it has only one."""
    if message.fits:
        return Parcel(claim, message, is_whole)
    return Parcel(claim, message._replace(body=b""), is_whole, event)


def _shipment(pack: int, linger: float, per_second: float | None, window: int) -> Shipment:
    """Return how samples are put together.

    Args:
        pack: bytes of a message with several samples; 0: one sample a message.
        linger: seconds that one which is not full waits.
        per_second: messages, where they are limited.
        window: messages under way.
    """
    messages = _AT_ONCE if per_second is None else max(1, min(_AT_ONCE, int(per_second * _SECONDS_AT_ONCE)))
    if not pack:
        return Shipment(samples=messages, max_bytes=4 << 20, linger=0.0)
    claims = max(1, min(messages, 4 * window, _BYTES_AT_ONCE // pack))
    return Shipment(samples=_MOST_IN_A_PACK, max_bytes=room(pack), linger=linger, claims=claims, overhead=1)

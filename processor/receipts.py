"""Which of the messages that the broker sends again were already taken in.

After a lost connection or a crash the broker repeats, first and in order, what it holds no acknowledgement for. A
message without the DUP flag is new. The flag alone proves nothing: brokers set it on messages that never arrived. What
tells a repeat is its packet identifier together with its content and its place: the repeats are the end of what was
committed, in the same order.

What cannot be told apart: a broker that gives identifiers out again as soon as they are acknowledged, and then sends,
first after a reconnect and with DUP set, a new message equal to the last one that had its identifier.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from processor.store import RECEIPT_BYTES, RECEIPTS_KEPT
from processor.types import Message

_RECEIPT: Final = struct.Struct("<HI")
_COLUMNS: Final = np.dtype([("identifier", "<u2"), ("digest", "<u4")])
_SEARCHED: Final = 32_767


class Receipts:
    """The last committed messages, and where in them a redelivery stands. Used by the pipeline thread."""

    def __init__(self, packed: bytes = b"") -> None:
        """Start with what the store kept of an earlier run, as `pack` gave it."""
        self._known = bytearray(packed)
        self._resumed: set[int] = set()  # connections that go on with a session, and so may begin with repeats
        self._void_from: int | None = None  # the connection that began another session, until it is seen
        self._connection: int | None = None  # the one that messages were last seen of
        self._listening = False
        self._next: int | None = None  # where in _known the next repeat is expected

    def connected(self, connection: int, *, session_present: bool) -> None:
        """Take note of a connection, by its number; a new session numbers its packets anew.

        Messages of those before it may still come to `fresh`.
        """
        if session_present:
            self._resumed.add(connection)
        else:
            self._void_from = connection

    def fresh(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages that were not taken in before; the others need only be acknowledged again.

        Args:
            messages: of one connection, in the order they came.
        """
        if messages and messages[0].connection != self._connection:
            self._begin(messages[0].connection)
        if not self._listening:
            return list(messages)
        return [message for message in messages if not (self._listening and message.qos and self._repeats(message))]

    def _begin(self, connection: int) -> None:
        """The first messages of a connection have come to be taken in."""
        if self._void_from is not None and connection >= self._void_from:
            self._void_from = None
            self._known.clear()
        self._connection = connection
        self._listening = bool(self._known) and connection in self._resumed
        self._resumed = {later for later in self._resumed if later > connection}
        self._next = None

    def _repeats(self, message: Message) -> bool:
        if not message.dup:  # a broker has to set it on what it sends again (MQTT 5, 3.3.1.1)
            self._listening = False
            return False
        receipt = pack((message,))
        if self._next is None:
            self._next = self._last_like(receipt)
        if self._next is not None and self._known[self._next : self._next + RECEIPT_BYTES] == receipt:
            self._next += RECEIPT_BYTES
            return True
        self._listening = False
        return False

    def _last_like(self, receipt: bytes) -> int | None:
        """Return where the last equal one stands: an identifier may have been used more than once.

        Not further back than half of all identifiers: beyond that, an equal one was given to another message.
        """
        oldest = max(0, len(self._known) - _SEARCHED * RECEIPT_BYTES)
        position = len(self._known)
        while (position := self._known.rfind(receipt, oldest, position)) >= 0:
            if position % RECEIPT_BYTES == 0:
                return position
            position += RECEIPT_BYTES - 1
        return None

    def hold(self, message: Message) -> bool:
        """Whether a message with this topic and payload was taken in, in this session, whatever its identifier."""
        if self._void_from is not None and message.connection >= self._void_from:
            return False
        digests = np.frombuffer(self._known, _COLUMNS)["digest"]
        return bool((digests == _digest(message)).any())

    def committed(self, packed: bytes) -> None:
        """Remember messages whose effect is on disk, as `pack` gave them."""
        self._known += packed
        if len(self._known) > 2 * RECEIPTS_KEPT * RECEIPT_BYTES:
            excess = len(self._known) - RECEIPTS_KEPT * RECEIPT_BYTES
            del self._known[:excess]
            if self._next is not None:
                self._next = max(0, self._next - excess)


def pack(messages: Sequence[Message]) -> bytes:
    """Return the receipts of the messages at QoS 1 and 2, in order."""
    return b"".join([_RECEIPT.pack(message.mid, _digest(message)) for message in messages if message.qos])


def _digest(message: Message) -> int:
    return zlib.crc32(message.payload, zlib.crc32(message.topic.encode("utf-8", "surrogatepass")))

"""Which retained messages were read before. Used by the pipeline thread.

A broker sends what it retains with every SUBSCRIBE that matches. MQTT 5 lets us ask for it once. MQTT 3.1.1 does not:
it comes with every connection, and a kept session sends those copies again that were not acknowledged, so neither the
DUP flag nor its absence tells anything. What is published while we are subscribed does not carry the retain flag.

So nothing retained is new once all that came with a session's first SUBSCRIBE is on disk. Until then a retained message
is new unless one like it was taken in during this session.
"""

from __future__ import annotations

from collections.abc import Iterable

from processor.mqtt.properties import subscription_identifiers
from processor.receipts import Receipts
from processor.session import BrokerSession
from processor.types import Message


class RetainedCopies:
    """Tells copies from what is new."""

    def __init__(self, session: BrokerSession, receipts: Receipts, *, mqtt_5: bool) -> None:
        """Ask `session` and `receipts` what is known.

        Args:
            session: knows the filters whose retained messages are all on disk.
            receipts: of what was taken in.
            mqtt_5: whether the broker was asked to send retained messages with new subscriptions only.
        """
        self._session = session
        self._receipts = receipts
        self._mqtt_5 = mqtt_5

    def can_come(self, message: Message, *, overlapping: bool) -> bool:
        """Whether there can be copies of a retained message that nothing else tells from it.

        Args:
            message: a retained one.
            overlapping: whether several of our filters match its topic.
        """
        return not self._mqtt_5 or (overlapping and not subscription_identifiers(message.properties))

    def came_before(self, message: Message, earlier: Iterable[Message]) -> bool:
        """Whether a retained message was read before; `earlier` are those before it in its batch."""
        if not self._mqtt_5 and self._session.is_settled(message.topic):
            return True
        alike = any(one.payload == message.payload and one.topic == message.topic for one in earlier)
        return alike or self._receipts.hold(message)

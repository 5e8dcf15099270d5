"""What we ask the broker to send, and what it says to that. Used by the pipeline thread."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.subscribeoptions import SubscribeOptions

from processor.mqtt.client import make_properties

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from paho.mqtt import client as paho
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from processor.mqtt.fast_reader import FastClient
    from processor.protocols import Clock

_FAILURE = 0x80
"""Reason codes from here on are failures."""
_ASKED_AGAIN_AFTER = 30.0
"""Seconds: somebody may mend the broker's access list, and not every broker then ends the connection."""

_log = logging.getLogger(__name__)


class Subscription(NamedTuple):
    """One SUBSCRIBE."""

    filter: str
    qos: int
    identifier: int = 0
    """MQTT 5 subscription identifier, 1 to 268,435,455; 0: none."""
    control: bool = False
    """Retained messages are wanted after each connect, not only when the subscription is new."""
    optional: bool = False
    """Nothing is said where the broker does not grant it."""


class Subscriptions:
    """Made at each connection; those that the broker refuses are asked for again and again.

    Attributes:
        refused: filters that the broker did not let us subscribe to, with its reason; of the current connection.
    """

    def __init__(
        self,
        client: FastClient,
        subscriptions: Callable[[], Sequence[Subscription]],
        *,
        mqtt_5: bool,
        clock: Clock,
        on_unsubscribed: Callable[[], None] | None,
    ) -> None:
        """Take `client`'s `on_subscribe` and `on_unsubscribe`; nothing is sent before `start`.

        Args:
            client: the connection.
            subscriptions: called at each connect; returns those to make, in this order.
            mqtt_5: the protocol version.
            clock: a running one.
            on_unsubscribed: called when the broker has dropped what it was asked to.
        """
        self.refused: dict[str, str] = {}
        self._client = client
        self._subscriptions = subscriptions
        self._wanted: dict[str, Subscription] = {}
        self._mqtt_5 = mqtt_5
        self._clock = clock
        self._on_unsubscribed = on_unsubscribed
        self._identify = True
        self._asked: dict[int, Subscription] = {}  # without an answer, by packet identifier
        self._ask_again_at = 0.0
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe

    @property
    def answered(self) -> bool:
        """Whether the broker has said something to every SUBSCRIBE."""
        return not self._asked

    def start(self, limits: Properties) -> None:
        """Send them all, within the limits of the CONNACK that has just come."""
        self._asked = {}
        self._identify = getattr(limits, "SubscriptionIdentifierAvailable", 1) == 1
        self._wanted = {subscription.filter: subscription for subscription in self._subscriptions()}
        # What was refused counts as refused until the broker has answered anew.
        self.refused = {text: reason for text, reason in self.refused.items() if text in self._wanted}
        self._ask_again_at = self._clock.monotonic() + _ASKED_AGAIN_AFTER
        for subscription in self._wanted.values():
            self._subscribe(subscription)

    def ask_again(self) -> None:
        """Ask for what was refused, when it is time."""
        if self.refused and self._clock.monotonic() >= self._ask_again_at:
            self._ask_again_at = self._clock.monotonic() + _ASKED_AGAIN_AFTER
            for text in self.refused:
                self._subscribe(self._wanted[text])

    def _subscribe(self, subscription: Subscription) -> None:
        """Send one SUBSCRIBE; its answer comes to `_on_subscribe`."""
        if self._mqtt_5:
            # Retained messages: 0 at each subscribe, 1 only when the subscription is new (MQTT 5, 3.8.3.1).
            retain_handling = 0 if subscription.control else 1
            options = SubscribeOptions(qos=subscription.qos, retainHandling=retain_handling)
            asked = None
            if self._identify and subscription.identifier:
                asked = make_properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=subscription.identifier)
            _, mid = self._client.subscribe(subscription.filter, options=options, properties=asked)
        else:
            _, mid = self._client.subscribe(subscription.filter, subscription.qos)
        if mid is not None:
            self._asked[mid] = subscription

    # paho calls the rest, while it is called. They take notes only: a call back into paho could deadlock.

    def _on_subscribe(
        self,
        _client: paho.Client,
        _data: object,
        mid: int,
        reasons: Sequence[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        subscription = self._asked.pop(mid, None)
        if subscription is None or subscription.optional or not reasons:
            return
        wanted, granted = subscription.qos, reasons[0]
        if granted.value >= _FAILURE:
            self._note_refusal(subscription.filter, str(granted))
            return
        if self.refused.pop(subscription.filter, None) is not None:
            _log.info("The broker grants the subscription to %r now.", subscription.filter)
        if granted.value < wanted:
            told = "The broker grants QoS %d instead of %d for %r; messages may be lost while we are away."
            _log.warning(told, granted.value, wanted, subscription.filter)

    def _note_refusal(self, text: str, reason: str) -> None:
        if self.refused.get(text) != reason:
            _log.error(
                "The broker refused the subscription to %r: %s. Nothing comes from there; check its access list. It is "
                "asked again every %g s.", text, reason, _ASKED_AGAIN_AFTER,
            )  # fmt: skip
        if not self.refused:
            self._ask_again_at = self._clock.monotonic() + _ASKED_AGAIN_AFTER
        self.refused[text] = reason

    def _on_unsubscribe(
        self,
        _client: paho.Client,
        _data: object,
        _mid: int,
        reasons: Sequence[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        if all(reason.value < _FAILURE for reason in reasons) and self._on_unsubscribed is not None:  # none on 3.1.1
            self._on_unsubscribed()

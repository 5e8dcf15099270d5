"""Every topic of a processor's own, declared once: where it is, who writes it, and how.

docs/reference/topics.md is made from these.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from processor.protocols import Source

_DIFFERS: Final = re.compile("<[a-z ]+>$")


class OwnTopic(NamedTuple):
    """A topic below `<prefix>/<id>/`."""

    name: str
    """`<…>` at its end stands for what differs from message to message."""
    writer: Literal["the processor", "an operator", "the bridge `mqtt`"]
    says: str
    """What is published there, for the reference."""
    qos: int | None = 1
    """Of what is published; None: as the writer likes."""
    retain: bool = False
    listen: int | None = None
    """QoS at which the processor subscribes to it; None: it does not."""
    per_model: bool = False
    """Whether there is one for each model: of those in `models` below `<prefix>/<id>/models/<name>/`."""

    def at(self, root: str, part: str = "") -> str:
        """Return the whole topic, below `root`, with `part` in place of what differs."""
        return f"{root}/{_DIFFERS.sub('', self.name)}{part}"

    def publish(self, source: Source, root: str, payload: bytes, *, part: str = "") -> None:
        """Publish there over the processor's own connection. Pipeline thread."""
        source.publish(self.at(root, part), payload, qos=self.qos or 0, retain=self.retain)


STATUS: Final = OwnTopic("status", "the processor", "`online` or `offline`; also the will", retain=True)
FILTER: Final = OwnTopic(
    "filter",
    "an operator",
    "the wanted filter, YAML or JSON, at most 64 KiB; an empty payload: the file's",
    retain=True,
    listen=1,
    per_model=True,
)
FILTER_STATE: Final = OwnTopic(
    "filter/state", "the processor", "the answer: `status`, `revision`, `errors`, `active`", retain=True, per_model=True
)
FILTER_HISTORY: Final = OwnTopic(
    "filter/history",
    "the processor",
    "the last revisions, newest first: `revision`, `applied_at`, `source`, `user`, `filter`",
    retain=True,
    per_model=True,
)
MODEL: Final = OwnTopic(
    "model",
    "an operator",
    "the wanted model, YAML or JSON, at most 64 KiB: `path`, `input`, `output`, `temperature`, `refresh`, "
    "`shadow`; an empty payload: the configuration's",
    retain=True,
    listen=1,
    per_model=True,
)
MODEL_STATE: Final = OwnTopic(
    "model/state",
    "the processor",
    "the answer: `status`, `revision`, `errors`, `active`, `recent`",
    retain=True,
    per_model=True,
)
ACCEPTED: Final = OwnTopic("accepted/<rule>", "the bridge `mqtt`", "a sample, a CloudEvent")
INFERENCE: Final = OwnTopic(
    "inference/<stream>", "the processor", "every prediction, with `publish_inference: true`", qos=0
)
DEAD_LETTER: Final = OwnTopic("deadletter", "the processor", "what could not be processed, with its reason", qos=0)
METRICS: Final = OwnTopic("metrics", "the processor", "[the metrics](metrics.md) as JSON", qos=0, retain=True)
COMMAND: Final = OwnTopic(
    "command",
    "an operator",
    '`{"command": "pause", "id": 7}`: heartbeat, pause, resume, flush, status, reload_model; retained ones are ignored',
    qos=None,
    # At QoS 0 commands come through while nothing can be acknowledged.
    listen=0,
)
RESPONSE: Final = OwnTopic(
    "command/response", "the processor", "the answer, where the command named no response topic (MQTT 5)"
)
INSTANCE: Final = OwnTopic(
    "instance",
    "the processor",
    "which process uses this id, so that a second one is noticed",
    retain=True,
    listen=0,
)
SETTLED: Final = OwnTopic("settled", "the processor", "its own mark: what the broker had kept has been read", listen=1)

OWN_TOPICS: Final = (
    STATUS, FILTER, FILTER_STATE, FILTER_HISTORY, MODEL, MODEL_STATE, ACCEPTED, INFERENCE, DEAD_LETTER, METRICS,
    COMMAND, RESPONSE, INSTANCE, SETTLED,
)  # fmt: skip

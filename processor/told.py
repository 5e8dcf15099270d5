"""What processors say of themselves over the broker, as others read it.

Every key may be missing: another version may have written it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace


class FilterState(msgspec.Struct, frozen=True):
    """What a processor says about its filter, on `filter/state`."""

    status: str
    revision: int
    sha256: str
    source: str
    active: dict[str, Any]
    applied_at: str = ""
    active_source: str = ""
    """Of the filter in force, where `source` is the last document's; an older version does not say."""
    errors: list[dict[str, str]] = []


class ModelInForce(msgspec.Struct, frozen=True):
    """The model that judges, as `model/state` has it."""

    name: str = ""
    path: str = ""
    sha256: str = ""
    kind: str = ""
    labels: list[str] = []
    document: dict[str, Any] | None = None
    """An operator's; None: the configuration's model is in force."""


class ModelTrial(msgspec.Struct, frozen=True):
    """What came of running a model on the newest windows before it took over."""

    windows: int = 0
    failed: int = 0
    agreement: float | None = None


class ModelState(msgspec.Struct, frozen=True):
    """What a processor says about its model, on `model/state`."""

    status: str
    revision: int
    sha256: str
    source: str
    active: ModelInForce
    applied_at: str = ""
    active_source: str = ""
    errors: list[dict[str, str]] = []
    recent: ModelTrial = msgspec.field(default_factory=ModelTrial)


class Revision(msgspec.Struct, frozen=True):
    """A filter that is or was in force."""

    revision: int
    filter: dict[str, Any]
    applied_at: str = ""
    source: str = ""
    user: str | None = None
    """Who sent it, as they call themselves."""


class History(msgspec.Struct, frozen=True):
    """The last revisions, newest first; on `filter/history`."""

    revisions: list[Revision] = []


class Bridge(msgspec.Struct, frozen=True):
    """What a processor says about one bridge."""

    delivered: int = 0
    waiting: int = 0
    failures: int = 0
    error: str | None = None
    connected: float | None = None
    messages: float | None = None
    blocks: float | None = None
    quota_left: float | None = None


class Outbox(msgspec.Struct, frozen=True):
    """What a processor says about its outbox."""

    samples: int = 0
    bytes: int = 0
    lost: dict[str, int] = {}


class ScheduleNow(msgspec.Struct, frozen=True):
    """Whether the filter's schedule is active, and when that changes."""

    active: bool = True
    next_change: str | None = None


class ModelFacts(msgspec.Struct, frozen=True):
    """What a filter has to fit."""

    name: str = ""
    sha256: str = ""
    kind: str = ""
    labels: list[str] = []
    fields: list[str] = []
    complete: bool = False
    """Whether these are all labels and fields."""


class RuleScores(msgspec.Struct, frozen=True):
    """One rule's scores of the last hour, in bins of one width."""

    rule: str
    measure: str = ""
    label: str | None = None
    seconds: int = 0
    """How much of the hour they are of."""
    windows: int = 0
    low: float = 0.0
    """Lower edge of the first bin."""
    width: float = 0.01
    by_label: dict[str, list[int]] = {}
    """Of all windows, by predicted label."""
    reached: list[int] = []
    """Of the windows that the rule's band was tested on."""


class ShadowLabel(msgspec.Struct, frozen=True):
    """What the shadow says of the windows to which the model gives one label."""

    windows: int = 0
    agreement: float | None = None


class Shadow(msgspec.Struct, frozen=True):
    """What a processor says of its shadow, a second model beside the model."""

    name: str = ""
    sha256: str = ""
    part: float = 0.0
    windows: int = 0
    failures: int = 0
    seconds: float = 0.0
    agreement: float | None = None
    """Part of the windows that both give the same label; None where there are no labels, or no windows yet."""
    disagreement: float | None = None
    """How far their answers lie apart on average."""
    by_label: dict[str, ShadowLabel] = {}


class LastHour(msgspec.Struct, frozen=True):
    """What came and went by the minute, oldest first, and the scores."""

    minutes: dict[str, list[int]] = {}
    scores: list[RuleScores] = []


class ModelMetrics(msgspec.Struct, frozen=True):
    """What a processor with several models says about one of them."""

    filter_revision: int = 0
    counters: dict[str, float] = {}
    streams: int = 0
    by_rule: dict[str, int] = {}
    by_label: dict[str, int] = {}
    by_reason: dict[str, int] = {}
    schedule: ScheduleNow = msgspec.field(default_factory=ScheduleNow)
    model: ModelFacts = msgspec.field(default_factory=ModelFacts)
    shadow: Shadow | None = None
    last_hour: LastHour = msgspec.field(default_factory=LastHour)


class Metrics(msgspec.Struct, frozen=True):
    """A processor's metrics; on `metrics`."""

    time: str = ""
    version: str = ""
    uptime_seconds: float = 0.0
    paused: bool = False
    blocked: str | None = None
    filter_revision: int = 0
    counters: dict[str, float] = {}
    rates: dict[str, float] = {}
    streams: int = 0
    by_rule: dict[str, int] = {}
    by_label: dict[str, int] = {}
    by_reason: dict[str, int] = {}
    dead_letters: dict[str, int] = {}
    outbox: Outbox = msgspec.field(default_factory=Outbox)
    bridges: dict[str, Bridge] = {}
    schedule: ScheduleNow = msgspec.field(default_factory=ScheduleNow)
    model: ModelFacts = msgspec.field(default_factory=ModelFacts)
    shadow: Shadow | None = None
    last_hour: LastHour = msgspec.field(default_factory=LastHour)
    models: dict[str, ModelMetrics] = {}
    """Where there are several, each; what stands above is then of the one named `default`, or a sum, or missing."""

    def of(self, model: str) -> Metrics:
        """Return these as if there were one model only, as far as they tell them apart."""
        own = self.models.get(model)
        if own is None:
            return self
        hour = LastHour({**self.last_hour.minutes, **own.last_hour.minutes}, own.last_hour.scores)
        return replace(
            self,
            filter_revision=own.filter_revision,
            counters={**self.counters, **own.counters},
            streams=own.streams,
            by_rule=own.by_rule,
            by_label=own.by_label,
            by_reason=own.by_reason,
            schedule=own.schedule,
            model=own.model,
            shadow=own.shadow,
            last_hour=hour,
            models={},
        )

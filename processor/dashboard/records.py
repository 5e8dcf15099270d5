"""Recent samples, dead letters, and the filter's history."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from html import escape
from typing import Final

from nicegui import ui

from processor.dashboard import drawing, words
from processor.dashboard.changes import origin, summary
from processor.dashboard.samples import Letter, Sample, band_text, shown_payload
from processor.dashboard.shell import button, html, now
from processor.dashboard.view import Look, View, confirmed
from processor.printing import as_yaml
from processor.told import Revision

_LONGEST: Final = 60


def build_samples(view: View) -> Look:
    """Build the recent samples; return what brings them up to date."""
    lead = html(tag="p").classes("lead muted")
    box = html()
    shown: list[tuple[object, ...]] = []

    def look() -> None:
        samples = view.record.samples
        lead.set_content(_samples_lead(view))
        seen = (samples, now().utcoffset())
        if [seen] != shown:
            shown[:] = [seen]
            box.set_content(f'<ul class="samples">{"".join(map(_sample, samples))}</ul>')

    return look


def _samples_lead(view: View) -> str:
    if view.record.samples:
        return "Some of what was kept while this dashboard ran, the newest first: at most four a second are looked at."
    if "mqtt" in view.metrics.bridges or not view.metrics.bridges:
        return "Nothing was kept since this dashboard has started."
    return "Samples come here over MQTT: add the bridge <code>{type: mqtt}</code> to its configuration to see them."


def _sample(sample: Sample) -> str:
    label = f"<b>{escape(sample.label)}</b>" if sample.label else "<b>sample</b>"
    sure = f" {words.share(sample.confidence)}" if sample.confidence is not None else ""
    why = f"rule {escape(sample.rule)}"
    if sample.measure and sample.score is not None:
        band = band_text(sample.band)
        why += f": {escape(sample.measure)} {sample.score:.3g}" + (f", wanted {band}" if band else "")
    if sample.context:
        why += ", beside another sample"
    names = "".join(
        f'<span class="{drawing.colour(at)}">{escape(name[:_LONGEST])}</span> '
        for at, (name, _) in enumerate(sample.channels)
    )
    drawn = drawing.lines(sample.channels)
    if sample.picture is not None:
        drawn = f'<img src="{escape(sample.picture)}" alt="">'
    readings = "1 reading" if sample.size == 1 else f"{sample.size} readings"
    said = "an image" if sample.picture else f"{readings} of {', '.join(name for name, _ in sample.channels)}"
    return (
        f'<li><div class="plot" role="img" aria-label="{escape(said)}">{drawn}</div>'
        f'<div class="channels" aria-hidden="true">{names}</div>'
        f"<p>{label}{sure}</p><p>{why}</p>"
        f'<p class="muted">{escape(words.when(sample.time, now()))} · {escape(sample.stream)}</p></li>'
    )


def build_letters(view: View) -> Look:
    """Build the dead letters; return what brings them up to date."""
    html("Messages that could not be processed, with what they held. The processor keeps them all.", tag="p").classes(
        "lead muted"
    )
    reasons = html()
    box = ui.element("div").classes("letters")
    shown: list[Letter] = []

    def look() -> None:
        counts = view.metrics.dead_letters
        rows = [(reason, count, words.count(count)) for reason, count in counts.items() if count]
        reasons.set_content(drawing.shares(rows) if rows else '<p class="muted">None since its start.</p>')
        letters = view.record.letters
        new = letters[: letters.index(shown[0])] if shown and shown[0] in letters else letters
        with box:
            for letter in reversed(new):  # those that are open stay open
                html(_letter(letter), tag="details").move(target_index=0)
        for element in list(box)[len(letters) :]:
            element.delete()
        shown[:] = letters

    return look


def _letter(letter: Letter) -> str:
    return (
        f"<summary><b>{escape(letter.reason)}</b> {escape(letter.detail)} "
        f'<span class="muted">{escape(words.when(letter.time, now()))} · {escape(letter.topic)} · '
        f"{words.size(letter.size)}</span></summary><pre>{escape(shown_payload(letter))}</pre>"
    )


def build_history(view: View, send: Callable[[], Awaitable[None]]) -> Look:
    """Build the filter's history; `send` sends the draft. Return what brings it up to date."""
    html("Who changed the filter when: the last revisions, the newest first.", tag="p").classes("lead muted")
    box = ui.element("div").classes("history")
    shown: list[tuple[object, ...]] = []

    def look() -> None:
        revisions, may = view.record.revisions, view.visitor.may_change
        seen = (revisions, may, now().utcoffset())
        if shown == [seen]:
            return
        shown[:] = [seen]
        box.clear()
        with box:
            if not revisions:
                html("This processor does not tell its history; it may be of an older version.", tag="p")
            for position, revision in enumerate(revisions):
                before = revisions[position + 1].filter if position + 1 < len(revisions) else None
                _revision(view, revision, before, send, in_force=position == 0)

    return look


def _revision(
    view: View,
    revision: Revision,
    before: dict[str, object] | None,
    send: Callable[[], Awaitable[None]],
    *,
    in_force: bool,
) -> None:
    came = origin(revision.source, revision.user)
    since = words.when(revision.applied_at, now())
    what = "The first that is remembered." if before is None else summary(before, revision.filter) or "Says the same."

    async def restore() -> None:
        def show() -> None:
            ui.code(as_yaml(revision.filter), language="yaml").classes("whole")

        title = f"Restore revision {revision.revision}?"
        if await confirmed(title, "It comes into force at once, as a new revision.", "Restore", content=show):
            view.draft.change(revision.filter, None)
            await send()

    with ui.element("div").classes("revision"):
        html(f"<b>{revision.revision}</b>").classes("number")
        html(f'<p>{escape(what)}</p><p class="muted">{escape(since)} · {escape(came)}</p>').classes("what")
        with ui.element("div").classes("act"):
            if in_force:
                html("in force").classes("chip well")
            elif view.visitor.may_change:
                button("Restore", restore).props(f'aria-label="Restore revision {revision.revision}"')

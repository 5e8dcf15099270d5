"""Scores by label, with the band on them; dragging it writes the draft, and says what it would have kept."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, Final

from nicegui import events, ui
from nicegui.element import Element

from processor.dashboard import drawing, words
from processor.dashboard.estimate import estimate
from processor.dashboard.shell import html
from processor.dashboard.view import Look, View
from processor.told import RuleScores

_MEASURES: Final[Mapping[str, str]] = {
    "confidence": "Confidence: the chance of the predicted label",
    "margin": "Margin: by how much the predicted label leads",
    "entropy": "Entropy: how undecided the model is, 0 to 1",
    "probability": "Probability of",
    "score": "The model's score",
    "value": "The model's value",
    "disagreement": "Disagreement: how far the shadow's answer lies from the model's",
}


class Band(Element, component="static/band.js"):
    """A histogram with a band."""

    def show(self, **props: object) -> None:
        """Show these properties, as in `band.js`."""
        self._props.update(props)
        self.update()


def build_bands(view: View) -> Look:
    """Build one for every rule that measures; return what brings them up to date."""
    html("How sure the model is", tag="h2")
    lead = html(tag="p").classes("lead")
    box = ui.element("div").classes("bands")
    shown: dict[tuple[str, str, str | None], Look] = {}

    def look() -> None:
        scores = view.metrics.last_hour.scores
        wanted = [(one.rule, one.measure, one.label) for one in scores]
        if wanted != list(shown):
            box.clear()
            shown.clear()
            with box:
                shown.update({key: _build(view, position) for position, key in enumerate(wanted)})
        for update in shown.values():
            update()
        lead.set_content(_lead(view, scores))

    view.draft.listen(lambda _author: look())
    return look


def _lead(view: View, scores: list[RuleScores]) -> str:
    if not scores:
        return "No rule of its filter measures anything, so there are no scores to show."
    if not view.visitor.may_change:
        what = "Scores of the last hour by predicted label, rare ones drawn taller, and the band in force."
        return f"{what} {view.visitor.why_not}"
    return (
        "Scores of the last hour by predicted label, rare ones drawn taller. Drag the band, or an end of it, to see "
        "what it would have kept."
    )


def _build(view: View, position: int) -> Look:
    with ui.element("div").classes("one-band"):
        title = html(tag="h3")
        chart = Band()
        said = html(tag="p").classes("kept-said").props("role=status")

    def find() -> tuple[RuleScores | None, Mapping[str, Any] | None]:
        found = view.metrics.last_hour.scores
        scores = found[position] if position < len(found) else None
        return scores, None if scores is None else _rule(view.draft.plain, scores)

    def dragged(event: events.GenericEventArguments) -> None:
        scores, _ = find()
        band = {key: event.args.get(key) for key in ("min", "max") if isinstance(event.args.get(key), int | float)}
        if scores is None or not band or not view.visitor.may_change:
            return

        def move(plain: dict[str, Any]) -> None:
            rule = _rule(plain, scores)
            if rule is not None:
                rule["band"] = band

        view.draft.edit(move, chart)

    chart.on("band", dragged)

    def look() -> None:
        scores, rule = find()
        if scores is None:
            return
        band = rule.get("band") if rule else None
        band = band if isinstance(band, dict) else {}
        of = f" {escape(scores.label)}" if scores.label else ""
        title.set_content(f"{escape(scores.rule)} <small>{_MEASURES.get(scores.measure, scores.measure)}{of}</small>")
        chart.show(
            title=f"Scores of rule {scores.rule}",
            start=scores.low,
            binwidth=scores.width,
            series=[
                {"label": label or "all windows", "colour": drawing.colour(at), "counts": counts}
                for at, label, counts in _in_order(view, scores)
            ],
            min=_number(band.get("min")),
            max=_number(band.get("max")),
            banded=bool(band),
            outside=bool(rule and rule.get("outside") is True),
            editable=view.visitor.may_change and bool(band),
        )
        said.set_content(_said(view, scores, rule))

    return look


def _said(view: View, scores: RuleScores, rule: Mapping[str, Any] | None) -> str:
    if rule is None:
        return "The filter being written has this rule no more, or measures something else."
    would = estimate(scores, rule)
    before = _rule(view.draft.base, scores)
    text = escape(would.sentence())
    if view.draft.changed and before is not None and before != rule:
        now = estimate(scores, before)
        text += f' <span class="muted">The one in force: {words.share(now.share)}.</span>'
    return text


def _in_order(view: View, scores: RuleScores) -> list[tuple[int, str, list[int]]]:
    """Return the counts by label with its place in the model's order, so that each keeps its colour."""
    places = {label: at for at, label in enumerate(view.metrics.model.labels or [""])}
    found = ((places.get(label, drawing.COLOURS), label, counts) for label, counts in scores.by_label.items())
    return sorted(found, key=lambda one: one[0])


def _rule(plain: Mapping[str, Any] | None, scores: RuleScores) -> dict[str, Any] | None:
    """Return the rule that these scores are of, where it still measures the same."""
    rules = (plain or {}).get("rules")
    for rule in rules if isinstance(rules, list) else ():
        if isinstance(rule, dict) and rule.get("name") == scores.rule:
            same = (rule.get("measure"), rule.get("label")) == (scores.measure, scores.label)
            return rule if same else None
    return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

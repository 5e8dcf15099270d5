"""What the commands print: a filter as YAML, a processor's status as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, TextIO

import msgspec
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from processor import document
from processor.errors import ConfigurationError
from processor.logs import one_line
from processor.remote import Status
from processor.told import Bridge, FilterState, Metrics, ModelState
from processor.types import MODEL_SLOT
from processor.units import size_text


class _FilterDumper(yaml.SafeDumper):
    """Writes YAML 1.1 that is the same when it is read as 1.2, which a filter is."""


def _quoted_where_needed(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        plain = document.parse(text) == text
    except ConfigurationError:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_FilterDumper.add_representer(str, _quoted_where_needed)


def filter_yaml(state: FilterState) -> str:
    """Return the filter in force as a document that `mlade filter set` takes, with its state as comments."""
    lines = [f"# {one_line(line)}\n" for line in _state_lines(state)]
    return "".join(lines) + as_yaml(state.active)


def as_yaml(plain: dict[str, Any]) -> str:
    """Return a filter as YAML that is read again as it is."""
    return yaml.dump(plain, Dumper=_FilterDumper, sort_keys=False, allow_unicode=True)


def as_flow(value: object) -> str:
    """Return a value as YAML in one line that is read again as it is: `[ax, ay]`."""
    text: str = yaml.dump(
        value, Dumper=_FilterDumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9
    )
    return text.removesuffix("\n").removesuffix("\n...")


def model_yaml(state: ModelState) -> str:
    """Return the model in force as a document that `mlade model set` takes, with its state as comments."""
    active = state.active
    lines = [*_state_lines(state), f"{active.name}, {active.kind}, sha256 {active.sha256}"]
    return "".join(f"# {one_line(line)}\n" for line in lines) + as_yaml(active.document or {"path": active.path})


def model_line(state: ModelState) -> str:
    """Return a model's state in one line."""
    active = f"{state.active.name}, sha256 {state.active.sha256[:12]}…"
    if state.status != "applied":
        reasons = "; ".join(errors_of(state))
        told = f"{state.status}, wanted by the {state.source}{f': {reasons}' if reasons else ''}"
        return one_line(f"{told}; revision {state.revision} ({active}) stays in force")
    return one_line(f"applied, revision {state.revision} from the {state.source}: {active}{_trial(state)}")


def _trial(state: ModelState) -> str:
    trial = state.recent
    if not trial.windows:
        return ""
    failed = f", failed on {trial.failed} of them" if trial.failed else ""
    alike = "" if trial.agreement is None else f", {trial.agreement:.1%} with the label of the model before"
    return f"; tried on {trial.windows} windows{failed}{alike}"


def _state_lines(state: FilterState | ModelState) -> Iterator[str]:
    if state.status == "applied":
        yield f"revision {state.revision}, applied, from the {state.source}, since {state.applied_at}"
        return
    origin = f", from the {state.active_source}" if state.active_source else ""
    yield f"revision {state.revision}{origin}, in force since {state.applied_at}"
    yield f"The last document, from the {state.source}, was {state.status}:"
    for error in errors_of(state):
        yield f"  {error}"


def errors_of(state: FilterState | ModelState) -> list[str]:
    """Return why a filter or a model was rejected: one line each, with its path."""
    errors = [(error.get("path", ""), error.get("message", "")) for error in state.errors]
    return [one_line(f"{path}: {message}" if path else message) for path, message in errors]


def filter_line(state: FilterState) -> str:
    """Return a filter's state in one line."""
    if state.status != "applied":
        stays = f"; revision {state.revision} stays in force"
        return one_line(f"{state.status}, from the {state.source}: {'; '.join(errors_of(state))}{stays}")
    return one_line(f"applied, revision {state.revision} from the {state.source}: {_summary(state.active)}")


def _summary(active: dict[str, Any]) -> str:
    rules = active.get("rules")
    names = [str(rule.get("name")) for rule in rules if isinstance(rule, dict)] if isinstance(rules, list) else []
    switched_off = "" if active.get("enabled", True) else ", not enabled"
    return ("rules " + ", ".join(names) if names else "no rules") + switched_off


def status_rows(status: Status, now: datetime) -> Iterator[tuple[str, str]]:
    """Yield what a processor says about itself, as headings and lines."""
    words = {True: "online", False: "offline", None: "unknown: nothing stands on its status topic"}
    yield "status", words[status.online]
    for name, state in status.filters.items():
        yield "filter" + _of(name), filter_line(state)
    for name, model in status.models.items():
        yield "model" + _of(name), model_line(model)
    if status.metrics is not None:
        yield from _metrics_rows(status.metrics, now)


def _of(model: str) -> str:
    return "" if model == MODEL_SLOT else f" of {model}"


def _metrics_rows(metrics: Metrics, now: datetime) -> Iterator[tuple[str, str]]:
    yield "as of", f"{metrics.time}{_age(metrics.time, now)}"
    if metrics.paused:
        yield "paused", "windows are refused until the command resume"
    if metrics.blocked:
        yield "blocked", f"nothing is acknowledged: {metrics.blocked}"
    yield "version", f"{metrics.version}, up for {metrics.uptime_seconds:.0f} s"
    for name, count in metrics.counters.items():
        rate = f"{metrics.rates[name]:>12.1f} /s" if name in metrics.rates else ""
        yield name.replace("_", " "), f"{count:>12.0f}{rate}"
    yield "streams", f"{metrics.streams:>12}"
    of_models = {name: (model.by_rule, model.shadow) for name, model in metrics.models.items()}
    for name, (by_rule, shadow) in (of_models or {"": (metrics.by_rule, metrics.shadow)}).items():
        of = f" of {name}" if name else ""
        for rule, count in by_rule.items():
            yield f"accepted by {rule}{of}", f"{count:>12}"
        if shadow is not None:
            for number, line in enumerate(agreement_lines(msgspec.to_builtins(shadow))):
                yield "" if number else f"shadow{of}", line
    outbox = metrics.outbox
    lost = ", ".join(f"{count} {reason}" for reason, count in outbox.lost.items() if count)
    yield "outbox", f"{outbox.samples} samples, {size(outbox.bytes)}" + (f"; lost: {lost}" if lost else "")
    for name, bridge in metrics.bridges.items():
        yield f"bridge {name}", _bridge_line(bridge)


def agreement_lines(told: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield how a shadow agrees with its model, in all and by label, from what `Agreement.told` says."""
    if told is None:
        return
    yield f"{told['name']} judged {told['windows']:,} windows, {told['part'] * 100:.4g} % of all; {_agrees(told)}" + (
        f"; it failed on {told['failures']:,}" if told["failures"] else ""
    )
    for label, one in told["by_label"].items():
        yield f"  {label}: {_percent(one['agreement'])} of {one['windows']:,}"


def _agrees(told: Mapping[str, Any]) -> str:
    if told["agreement"] is not None:
        return f"it agrees with the model on {_percent(told['agreement'])}"
    if told["disagreement"] is not None:
        return f"its answers are {told['disagreement']:.4g} from the model's on average"
    return "it is not known yet whether it agrees with the model"


def _percent(share: float | None) -> str:
    return "nothing" if share is None else f"{share:.1%}"


def _bridge_line(bridge: Bridge) -> str:
    said = [f"{bridge.delivered} delivered, {bridge.waiting} waiting, {bridge.failures} failed attempts"]
    if bridge.messages is not None and bridge.blocks is not None:
        left = "" if bridge.quota_left is None else f", {bridge.quota_left:.0f} left today"
        said.append(f"{bridge.messages:.0f} messages, billed as {bridge.blocks:.0f}{left}")
    return "; ".join([*said, *([bridge.error] if bridge.error else [])])


def size(count: int) -> str:
    """Return bytes for people, to a tenth."""
    for unit, bytes_in in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= bytes_in:
            return f"{count / bytes_in:.1f} {unit}"
    return size_text(count)


def _age(time: str, now: datetime) -> str:
    try:
        seconds = (now - datetime.fromisoformat(time)).total_seconds()
    except (ValueError, TypeError):
        return ""
    return f", {seconds:.0f} s ago" if seconds >= 1 else ""


def print_rows(rows: Iterable[tuple[str, str]], file: TextIO) -> None:
    """Print headings and lines: a table on a terminal, and plain lines of their full length elsewhere."""
    shown = [(one_line(heading), one_line(line)) for heading, line in rows]
    if file.isatty():
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for heading, line in shown:
            table.add_row(Text(heading), Text(line))  # not as markup: what a processor says may hold brackets
        Console(file=file).print(table)
        return
    width = max((len(heading) for heading, _ in shown), default=0)
    for heading, line in shown:
        print(f"{heading:<{width}}  {line}".rstrip(), file=file)

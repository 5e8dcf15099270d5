"""What `mlade discover` does, from listening to what to do next."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live

from processor import document
from processor.clock import SystemClock
from processor.discover.choice import Choice, choose
from processor.discover.families import group
from processor.discover.heard import Heard, without_processors
from processor.discover.joins import joins
from processor.discover.listening import Listener
from processor.discover.looks import Signature, signature
from processor.discover.pace import window_for
from processor.discover.proposals import Proposal, give_names, propose
from processor.discover.table import table_of
from processor.discover.wishes import Wanted, look_at_model
from processor.discover.writing import Session, configuration
from processor.errors import ConfigurationError, ModelError, Problem
from processor.logs import one_line
from processor.model.onnx_model import OnnxModel, load_model
from processor.mqtt.client import Tls
from processor.remote import NoAnswer
from processor.sections import Broker
from processor.topics import validate_filter

_WIDTH: Final = 140
"""Characters in a line where the output is no terminal."""
_LOOK_EVERY: Final = 1.0
"""Seconds between two tables, and ten times as long as one takes to be made."""


class Options(NamedTuple):
    """What was asked for."""

    broker: Mapping[str, Any]
    """Keys of `broker` in a configuration."""
    topic: str
    seconds: float
    model: Path | None
    output: Path | None
    timeout: float


class Learner:
    """Says what families there are, from what was heard so far."""

    def __init__(self, heard: Heard, wanted: Wanted | None) -> None:
        """Take what is heard, which grows, and the model that it is to fit."""
        self._heard = heard
        self._channels = None if wanted is None else wanted.wishes[0].channels
        self._known: dict[str, tuple[int, Signature | None]] = {}
        """What each topic looked like, and after how many messages: looked at again when they have doubled."""

    def proposals(self, *, final: bool = False) -> list[Proposal]:
        """Return what is known now; `final`: everything is looked at again."""
        topics = {topic.name: topic for topic in without_processors(self._heard.topics)}
        signatures: dict[str, Signature] = {}
        silent = []
        for name, topic in topics.items():
            count = topic.messages + topic.retained
            seen_at, found = self._known.get(name, (0, None))
            if final or not seen_at or count >= 2 * seen_at:
                found = signature(topic)
                self._known[name] = count, found
            if found is None:
                silent.append(name)
            else:
                signatures[name] = found
        return propose(group(signatures, silent), topics, self._channels)


def run(options: Options) -> int:
    """Run the command and return its exit code. Main thread only, because it takes the signals.

    Raises:
        ConfigurationError: an option is wrong, or the file cannot be written.
        ModelError: the model cannot be read, or takes nothing that mlade gives.
    """
    if problem := validate_filter(options.topic):
        raise ConfigurationError([Problem("--topic", problem)])
    wanted = None if options.model is None else look_at_model(options.model)
    broker, password = _broker(options.broker)
    console = Console(stderr=options.output is None, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    listener = Listener(
        options.topic,
        lambda sentence: console.print(one_line(sentence), markup=False, soft_wrap=True),
        url=broker.url,
        username=broker.username,
        password=password,
        tls=Tls(**broker.tls.model_dump()),
        protocol=broker.protocol,
        max_payload=broker.max_payload,
    )
    learner = Learner(listener.heard, wanted)
    try:
        _listen(listener, learner, options, console)
    except NoAnswer as error:
        typer.echo(str(error), err=True)
        return 2
    proposals = learner.proposals(final=True)
    return _conclude(proposals, wanted, listener, options, console)


def _broker(keys: Mapping[str, Any]) -> tuple[Broker, str | None]:
    try:
        broker = Broker.model_validate(dict(keys))
    except ValidationError as error:
        raise ConfigurationError(document.problems_of(error)) from error
    if broker.password_file is None:
        return broker, None
    return broker, Path(broker.password_file).read_text(encoding="utf-8").strip()


def _listen(listener: Listener, learner: Learner, options: Options, console: Console) -> None:
    clock = SystemClock()
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
    due = clock.monotonic() + _LOOK_EVERY

    def show() -> None:
        nonlocal due
        now = clock.monotonic()
        if live is not None and now >= due:
            live.update(table_of(learner.proposals()), refresh=True)
            due = now + max(_LOOK_EVERY, 10 * (clock.monotonic() - now))

    with ExitStack() as cleanup:
        for number in (signal.SIGINT, signal.SIGTERM):
            cleanup.callback(signal.signal, number, signal.signal(number, lambda *_: listener.stop()))
        if live is not None:
            cleanup.enter_context(live)
        listener.run(options.timeout, options.seconds, show)


def _conclude(
    proposals: list[Proposal], wanted: Wanted | None, listener: Listener, options: Options, console: Console
) -> int:
    """Print the table, and write the file where something was heard."""
    heard = listener.heard
    if not proposals:
        console.print(_silence(listener, options), markup=False, soft_wrap=True)
        return 1
    console.print(table_of(proposals))
    console.print()
    alternatives = joins(proposals)
    give_names((*proposals, *alternatives))
    choice = choose(proposals, wanted, alternatives)
    model = None if wanted is None or not choice.active or choice.complaint else _opened(wanted, choice)
    session = Session(
        _shown(options.broker),
        options.topic,
        datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        listener.seconds,
        heard.messages,
        len(heard.topics),
        None if options.model is None else _relative(options.model, options.output),
        model,
    )
    text = configuration(choice, session)
    if options.output is None:
        typer.echo(text, nl=False)
    else:
        try:
            with options.output.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise ConfigurationError([Problem(str(options.output), f"cannot be written: {error.strerror}")]) from error
    for line in _next(choice, options):
        console.print(line, markup=False, soft_wrap=True)
    return 0


def _opened(wanted: Wanted, choice: Choice) -> OnnxModel | None:
    """Return the model as `mlade run` would open it; None where it does not open so, which `mlade check` tells of."""
    first, wish = choice.active[0], choice.wish
    window = window_for(first.pace, None if wish is None else wish.size)
    with suppress(ModelError):
        return load_model(
            wanted.path,
            window_size=window.size,
            channels=len(first.channels),
            fields=first.channels,
            layout=None if wish is None else wish.layout,
        )
    return None


def _silence(listener: Listener, options: Options) -> str:
    """Return what to do where nothing came."""
    own = f", but {listener.heard.own:,} messages of processors" if listener.heard.own else ""
    return (
        f"Nothing came on {options.topic} in {listener.seconds:.0f} s{own}. Do sensors publish now? Longer: --seconds "
        "120. Other topics: --topic. Else the broker's access list may hide them from "
        f"{options.broker.get('username') or 'this user'}."
    )


def _shown(broker: Mapping[str, Any]) -> dict[str, Any]:
    """Return the broker's keys without the password that may stand in its URL."""
    parts = urlsplit(str(broker["url"]))
    shown = {**broker, "url": urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))}
    if parts.username:
        shown.setdefault("username", unquote(parts.username))
    return shown


def _relative(model: Path, output: Path | None) -> str:
    """Return a path to the model as the configuration in `output` names it."""
    return os.path.relpath(model, Path() if output is None else output.parent)


def _next(choice: Choice, options: Options) -> Iterator[str]:
    """Yield what to do next."""
    if choice.complaint:
        yield choice.complaint
    if not choice.active:
        yield "No format reads what came; docs/formats.md tells what mlade reads."
        return
    file = "plant.yaml" if options.output is None else str(options.output)
    names = ", ".join(str(one.source["name"]) for one in choice.active if one.source is not None)
    more = sum(one.source is not None for one, _ in choice.others)
    yield f"Active: {names}." + (f" As comments: {more} more." if more else "")
    if urlsplit(str(options.broker["url"])).password:
        yield "The password is not in the file: set MLADE_BROKER__PASSWORD, or broker.password_file."
    yield "Next"
    yield f"  # look at the lines marked CHECK, {'set model.path, ' if options.model is None else ''}then"
    yield f"  mlade check -c {file}"
    yield f"  mlade run -c {file}"

"""What `mlade discover` does, from listening to what to do next."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live

from processor import document
from processor.clock import SystemClock
from processor.discover.choice import choose
from processor.discover.families import group
from processor.discover.heard import Heard, without_processors
from processor.discover.listening import Listener
from processor.discover.looks import Signature, signature
from processor.discover.proposals import Proposal, propose
from processor.discover.table import table_of
from processor.discover.writing import Session, configuration
from processor.errors import ConfigurationError, Problem
from processor.logs import one_line
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
    output: Path | None
    timeout: float


class Learner:
    """Says what families there are, from what was heard so far."""

    def __init__(self, heard: Heard) -> None:
        """Take what is heard, which grows."""
        self._heard = heard
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
        return propose(group(signatures, silent), topics)


def run(options: Options) -> int:
    """Run the command and return its exit code. Main thread only, because it takes the signals.

    Raises:
        ConfigurationError: an option is wrong, or the file cannot be written.
    """
    if problem := validate_filter(options.topic):
        raise ConfigurationError([Problem("--topic", problem)])
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
    learner = Learner(listener.heard)
    try:
        _listen(listener, learner, options, console)
    except NoAnswer as error:
        typer.echo(str(error), err=True)
        return 2
    proposals = learner.proposals(final=True)
    return _conclude(proposals, listener, options, console)


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


def _conclude(proposals: list[Proposal], listener: Listener, options: Options, console: Console) -> int:
    heard = listener.heard
    if not proposals:
        console.print(f"Nothing came on {options.topic} in {listener.seconds:.0f} s.", markup=False)
        return 1
    console.print(table_of(proposals))
    url = urlsplit(str(options.broker["url"]))
    shown = {**options.broker, "url": urlunsplit(url._replace(netloc=url.netloc.rpartition("@")[2]))}
    if url.username and "username" not in shown:
        shown["username"] = url.username
    session = Session(
        shown,
        options.topic,
        datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        listener.seconds,
        heard.messages,
        len(heard.topics),
    )
    text = configuration(choose(proposals), session)
    if options.output is None:
        typer.echo(text, nl=False)
    else:
        with options.output.open("x", encoding="utf-8") as file:
            file.write(text)
    return 0

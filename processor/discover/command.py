"""What `mlade discover` does, from listening to what to do next."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import typer
from rich.console import Console
from rich.live import Live

from processor.clock import SystemClock
from processor.discover.asking import Asked
from processor.discover.choice import Choice, choose
from processor.discover.heard import MOST_TOPICS, Heard
from processor.discover.joins import joins
from processor.discover.learning import Learner
from processor.discover.listening import Listener
from processor.discover.model_part import ModelPart, model_part
from processor.discover.proposals import Proposal, give_names
from processor.discover.table import table_of
from processor.discover.writing import Session, configuration
from processor.errors import ConfigurationError, Problem
from processor.logs import one_line
from processor.remote import NoAnswer

_NOTHING: Final = 1
"""Exit code: nothing came."""
_NO_CONNECTION: Final = 2
"""Exit code: the broker was not reached, or does not let us listen."""
_WIDTH: Final = 140
"""Characters in a line where the output is no terminal."""
_LOOK_EVERY: Final = 1.0
"""Seconds between two tables, or ten times as long as one takes to be made."""
_SAY_EVERY: Final = 5.0
"""Seconds between two lines where the output is no terminal."""


def run(asked: Asked) -> int:
    """Run the command and return its exit code. Main thread only, because it takes the signals.

    Raises:
        ConfigurationError: a TLS file cannot be used, or the configuration cannot be written.
    """
    console = Console(stderr=asked.output is None, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    listener = Listener(
        asked.topic,
        lambda sentence: console.print(one_line(sentence), markup=False, soft_wrap=True),
        **asked.client,
    )
    learner = Learner(listener.heard, () if asked.wanted is None else asked.wanted.channels)
    try:
        _listen(listener, learner, asked, console)
    except NoAnswer as error:
        console.print(str(error), markup=False, soft_wrap=True)
        return _NO_CONNECTION
    proposals = learner.proposals(final=True)
    if not proposals:
        console.print(_silence(listener, asked), markup=False, soft_wrap=True)
        return _NOTHING
    _conclude(proposals, listener, asked, console)
    return 0


def _listen(listener: Listener, learner: Learner, asked: Asked, console: Console) -> None:
    """Listen, and show what is learned: as a table that grows on a terminal, in lines elsewhere."""
    clock = SystemClock()
    live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
    due: float | None = None  # a look holds up the reading, and the first messages are to arrive when they do

    def show() -> None:
        nonlocal due
        now = clock.monotonic()
        if due is not None and now >= due and live is None:
            console.print(f"{listener.seconds:6.1f} s  {heard.messages:,} messages, {len(heard.topics):,} topics")
        elif due is not None and now >= due and live is not None:
            live.update(table_of(learner.proposals()), refresh=True)
        if due is None or now >= due:
            every = _SAY_EVERY if live is None else _LOOK_EVERY
            due = now + max(every, 10 * (clock.monotonic() - now))

    heard = listener.heard
    with ExitStack() as cleanup:
        for number in (signal.SIGINT, signal.SIGTERM):
            cleanup.callback(signal.signal, number, signal.signal(number, lambda *_: listener.stop()))
        if live is not None:
            cleanup.enter_context(live)
        listener.run(asked.timeout, asked.seconds, show)


def _conclude(proposals: list[Proposal], listener: Listener, asked: Asked, console: Console) -> None:
    """Print the table and what to do next, and write the configuration."""
    console.print(table_of(proposals))
    console.print()
    alternatives = joins(proposals)
    give_names((*proposals, *alternatives))
    choice = choose(proposals, asked.wanted, alternatives)
    session = Session(
        broker=asked.broker,
        when=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        seconds=listener.seconds,
        messages=listener.heard.messages,
        topics=len(listener.heard.topics),
        has_model=asked.wanted is not None,
    )
    part = model_part(choice, asked.model_path, asked.directory)
    text = configuration(choice, part, session)
    if asked.output is None:
        typer.echo(text, nl=False)
    else:
        _write(asked.output, text)
    for line in (*_notes(choice, part, listener.heard, listener.gaps), *_next(choice, asked)):
        console.print(line, markup=False, soft_wrap=True)


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigurationError([Problem("--output", f"{path} cannot be written: {error.strerror}")]) from error


def _silence(listener: Listener, asked: Asked) -> str:
    """Return what to do where nothing came."""
    own = f", but {listener.heard.own:,} messages of processors" if listener.heard.own else ""
    return (
        f"Nothing came on {asked.topic} in {listener.seconds:.0f} s{own}. Do sensors publish now? Longer: --seconds "
        "120. Other topics: --topic. Else the broker's access list may hide them from "
        f"{asked.broker.get('username') or 'a user without a name'}."
    )


def _named(one: Proposal) -> str:
    name = "" if one.source is None else str(one.source["name"])
    return f"{name} (a guess: {one.guess})" if one.guess else name


def _notes(choice: Choice, part: ModelPart, heard: Heard, gaps: int) -> Iterator[str]:
    """Yield what was not looked at, and what is missing."""
    if gaps:
        yield f"NOTE: connections lost: {gaps}. What came meanwhile is not in it."
    if heard.not_looked_at:
        told = f"{heard.not_looked_at:,} messages on further ones are only counted; --topic narrows it"
        yield f"NOTE: {MOST_TOPICS:,} topics were looked at. {told}."
    if heard.too_large:
        yield f"NOTE: {heard.too_large:,} messages over 1 MiB were not looked at; mlade run needs broker.max_payload."
    if choice.complaint or part.problem:
        yield choice.complaint or part.problem


def _next(choice: Choice, asked: Asked) -> Iterator[str]:
    """Yield what is active, and what to do next."""
    if not choice.active:
        yield "No format reads what came; docs/formats.md tells what mlade reads."
        return
    names = ", ".join(_named(one) for one in choice.active)
    more = sum(one.source is not None for one, _ in choice.others)
    yield f"Active: {names}." + (f" As comments: {more} more." if more else "")
    file = "plant.yaml" if asked.output is None else str(asked.output)
    yield ""
    yield "Next"
    yield f"  # look at the lines marked CHECK{'' if asked.wanted else ', the path of your model among them'}, then"
    if asked.has_secret:
        yield "  # the password is not in the file: set broker.password_file, or MLADE_BROKER__PASSWORD"
    yield f"  mlade check -c {file}"
    yield f"  mlade run -c {file}"

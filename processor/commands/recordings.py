"""`mlade record`."""

from __future__ import annotations

import math
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from processor.commands.options import Config, answer


def record(
    config: Config,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="REC", help="The recording to write; .gz compresses it.")
    ],
    *,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="How long to record; left out: until Ctrl-C or SIGTERM.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the broker.")] = 5.0,
) -> None:
    """Write down what the sources receive, beside the processor or without one."""
    from processor import settings  # noqa: PLC0415 - a command loads what it needs, and --help nothing
    from processor.printing import one_line, size  # noqa: PLC0415
    from processor.record import Progress, Recorder  # noqa: PLC0415

    console = Console(stderr=True, highlight=False)
    recorder = Recorder(settings.load(config), output, lambda sentence: typer.echo(one_line(sentence), err=True))
    with ExitStack() as cleanup:
        for number in (signal.SIGINT, signal.SIGTERM):
            cleanup.callback(signal.signal, number, signal.signal(number, lambda *_: recorder.stop()))
        status = cleanup.enter_context(console.status("connecting …"))

        def show(now: Progress) -> None:
            topics = "1 topic" if now.topics == 1 else f"{now.topics:,} topics"
            until = "Ctrl-C ends it" if seconds is None else f"of {seconds:g} s"
            status.update(f"{now.messages:,} messages, {topics}, {size(now.size)}, {now.seconds:.0f} s; {until}")

        done = answer(lambda: recorder.run(timeout, math.inf if seconds is None else seconds, show))
    for text, reason in recorder.refused.items():
        typer.echo(f"NOTE: the broker does not let us subscribe to {one_line(text)}: {reason}.", err=True)
    if done.too_large:
        typer.echo(f"NOTE: {done.too_large} messages over broker.max_payload are not in it.", err=True)
    if done.gaps:
        typer.echo(f"NOTE: the connection was lost {done.gaps} times; what came meanwhile is not in it.", err=True)
    if not done.messages:
        typer.echo("Nothing came. Do sources[].topics name what the sensors publish on?", err=True)
    kept = f", {done.retained:,} of them retained from before" if done.retained else ""
    typer.echo(
        f"{output}: {done.messages:,} messages{kept}, {done.topics:,} topics, {size(done.size)}, {done.seconds:.1f} s"
    )

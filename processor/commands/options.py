"""What several commands take, and how they say that nobody answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

NO_ANSWER: Final = 3
"""Exit code: the broker or the processor does not answer."""

Config = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The processor's configuration file.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the broker, and for the answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

Answer = TypeVar("Answer")


def answer(ask: Callable[[], Answer]) -> Answer:
    """Return what was asked for; exit with 3 and a sentence when nobody answers."""
    from processor.remote import NoAnswer  # noqa: PLC0415

    try:
        return ask()
    except NoAnswer as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(NO_ANSWER) from None

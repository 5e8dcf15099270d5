"""`mlade model get` and `set`: the model of a running processor."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from processor.commands.options import Config, ModelName, Timeout, answer, chosen

_REJECTED: Final = 1
_DOCUMENTS: Final = (".yaml", ".yml", ".json")


def get_model(config: Config, name: ModelName = None, timeout: Timeout = 5.0) -> None:
    """Print the model in force, as YAML that `set` takes, with its revision and source."""
    from processor import printing, remote_model, settings  # noqa: PLC0415

    slot = chosen(settings.load(config), name)
    state = answer(lambda: remote_model.get_model(slot, timeout))
    typer.echo(printing.model_yaml(state), nl=False)


def set_model(
    config: Config,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="PATH|FILE",
            help="What model.path would be in the configuration; or a document, *.yaml or *.json, - for stdin.",
        ),
    ] = None,
    *,
    clear: Annotated[bool, typer.Option("--clear", help="Return to the model of the processor's file.")] = False,
    name: ModelName = None,
    timeout: Timeout = 60.0,
) -> None:
    """Publish which model is wanted, and wait until it is in force or rejected."""
    from processor import printing, remote_model, settings  # noqa: PLC0415
    from processor.filter import MAX_BYTES  # noqa: PLC0415

    if clear == (model is not None):
        raise typer.BadParameter("give either a PATH, a FILE or --clear")
    payload = b""
    if model == "-":
        payload = sys.stdin.buffer.read(MAX_BYTES + 1)
    elif model is not None and model.endswith(_DOCUMENTS):
        try:
            payload = Path(model).read_bytes()
        except OSError as error:
            raise typer.BadParameter(f"{model} cannot be read: {error.strerror}") from error
    elif model is not None:
        payload = json.dumps({"path": model}).encode()
    slot = chosen(settings.load(config), name)
    state = answer(lambda: remote_model.set_model(slot, payload, timeout))
    if state.status == "applied":
        typer.echo(printing.model_line(state))
        return
    typer.echo(f"{state.status}; revision {state.revision} stays in force")
    for line in printing.errors_of(state):
        typer.echo(line)
    raise typer.Exit(_REJECTED)

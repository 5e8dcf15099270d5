"""The commands: parse, call, print.

Exit codes: 0 done; 1 it went wrong, or a filter was rejected; 2 a usage error or a bad configuration, with every
problem; 3 the broker or the processor does not answer.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from processor import __version__
from processor.commands import live_model, recordings
from processor.commands.dashboard import dashboard
from processor.commands.discover import discover
from processor.commands.model import models
from processor.commands.options import NO_ANSWER, AsJson, Config, ModelName, Timeout, answer, chosen
from processor.errors import ConfigurationError, MladeError, ModelError, ModelUnavailable
from processor.logs import one_line, set_up
from processor.types import MODEL_SLOT

_REJECTED: Final = 1
_BAD_CONFIGURATION: Final = 2

log = logging.getLogger(__name__)

app = typer.Typer(
    help="Collect the right training data at the edge.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text, which a script can read and a narrow terminal does not break
    pretty_exceptions_enable=False,
)
filters = typer.Typer(
    help="Read, publish and follow the filter of a running processor.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(filters, name="filter")
letters = typer.Typer(help="Look at what could not be processed.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(letters, name="deadletters")
app.add_typer(models, name="model")


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """What a line of the log looks like."""

    TEXT = "text"
    JSON = "json"


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"mlade {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


@app.command()
def run(
    config: Config,
    log_level: Annotated[LogLevel, typer.Option(help="How much to log, to stderr.")] = LogLevel.INFO,
    log_format: Annotated[LogFormat, typer.Option(help="For people, or one JSON object a line.")] = LogFormat.TEXT,
) -> None:
    """Run the processor until SIGTERM or Ctrl-C."""
    from processor import app as processor  # noqa: PLC0415 - onnxruntime takes a while to load
    from processor import checking, settings  # noqa: PLC0415

    set_up(log_level, as_json=log_format is LogFormat.JSON)
    try:
        try:
            code = processor.run(settings.load(config))
        except ModelUnavailable:
            raise
        except (ConfigurationError, ModelError):
            checking.check(config)  # raises with all there is to mend, not only with what came first
            raise
    except MladeError as error:
        if log_format is LogFormat.TEXT:
            raise
        log.critical("%s", error)  # for whoever reads the log: its last line is JSON, too
        code = _exit_code(error)
    raise typer.Exit(code)


@app.command()
def check(config: Config) -> None:
    """Check configuration, model and filter against each other."""
    from processor import checking, printing  # noqa: PLC0415

    printing.print_rows(checking.report(checking.check(config)), sys.stdout)
    typer.echo("ok")


@app.command()
def status(
    config: Config,
    *,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """Print whether the processor is online, its filter, counters, outbox and bridges."""
    from processor import printing, remote, settings  # noqa: PLC0415

    loaded = settings.load(config)
    found = answer(lambda: remote.get_status(loaded, timeout))
    if as_json:
        body = {
            "id": loaded.id,
            "online": bool(found.online),
            "filter": msgspec.to_builtins(found.filters.get(MODEL_SLOT)),
            "metrics": found.raw_metrics,
        }
        if loaded.models:
            body |= {"filters": msgspec.to_builtins(found.filters), "models": msgspec.to_builtins(found.models)}
        typer.echo(json.dumps(body, ensure_ascii=False))
    else:
        rows = [("processor", f"{loaded.root}"), *printing.status_rows(found, datetime.now(UTC))]
        printing.print_rows(rows, sys.stdout)
    raise typer.Exit(0 if found.online else NO_ANSWER)


app.command()(discover)
app.command()(recordings.record)
app.command()(recordings.replay)
app.command()(recordings.suggest)
app.command()(dashboard)
models.command("get")(live_model.get_model)
models.command("set")(live_model.set_model)


@filters.command("get")
def get_filter(config: Config, model: ModelName = None, timeout: Timeout = 5.0) -> None:
    """Print the filter in force, as YAML that `set` takes, with its revision and source."""
    from processor import printing, remote, settings  # noqa: PLC0415

    slot = chosen(settings.load(config), model)
    state = answer(lambda: remote.get_filter(slot, timeout))
    typer.echo(printing.filter_yaml(state), nl=False)


@filters.command("set")
def set_filter(
    config: Config,
    file: Annotated[
        typer.FileBinaryRead | None, typer.Argument(metavar="FILE", help="The filter; - for stdin.")
    ] = None,
    *,
    clear: Annotated[bool, typer.Option("--clear", help="Return to the filter of the processor's file.")] = False,
    model: ModelName = None,
    timeout: Timeout = 5.0,
) -> None:
    """Publish a filter and wait for the processor's answer."""
    from processor import printing, remote, settings  # noqa: PLC0415
    from processor.filter import MAX_BYTES  # noqa: PLC0415

    if clear == (file is not None):
        raise typer.BadParameter("give either a FILE or --clear")
    payload = b"" if file is None else file.read(MAX_BYTES + 1)
    slot = chosen(settings.load(config), model)
    state = answer(lambda: remote.set_filter(slot, payload, timeout))
    if state.status == "applied":
        typer.echo(printing.filter_line(state))
        return
    typer.echo(f"{state.status}; revision {state.revision} stays in force")
    for error in printing.errors_of(state):
        typer.echo(error)
    raise typer.Exit(_REJECTED)


@filters.command("watch")
def watch_filter(config: Config, model: ModelName = None, timeout: Timeout = 5.0) -> None:
    """Print the filter's state and the processor's status at each change, until Ctrl-C."""
    from processor import printing, remote, settings  # noqa: PLC0415

    slot = chosen(settings.load(config), model)

    def tell(sentence: str) -> None:
        typer.echo(one_line(sentence), err=True)

    def print_changes() -> None:
        for change in remote.follow(slot, timeout, tell):
            time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line = one_line(change) if isinstance(change, str) else printing.filter_line(change)
            print(time, line, flush=True)  # noqa: T201 - a command's output, at once also into a pipe

    try:
        answer(print_changes)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@letters.command("list")
def list_letters(
    config: Config, newest: Annotated[int, typer.Option("--newest", "-n", min=1, help="Only the last so many.")] = 20
) -> None:
    """List the newest dead letters: number, arrival, topic, reason, detail."""
    from processor import deadletters, settings  # noqa: PLC0415

    found = list(deadletters.read(settings.load(config).state_path, newest=newest))
    for letter in found:
        typer.echo(one_line(deadletters.as_line(letter)))
    if not found:
        typer.echo("No dead letters.", err=True)


@letters.command("show")
def show_letter(config: Config, number: Annotated[int, typer.Argument(help="Its number in the list.")]) -> None:
    """Print one dead letter: why it is one, and its payload."""
    from processor import deadletters, printing, settings  # noqa: PLC0415

    found = list(deadletters.read(settings.load(config).state_path, number=number))
    if not found:
        typer.echo(f"There is no dead letter {number}; mlade deadletters list shows what there is.", err=True)
        raise typer.Exit(1)
    printing.print_rows(deadletters.as_rows(found[0]), sys.stdout)


@letters.command("export")
def export_letters(
    config: Config,
    output: Annotated[typer.FileTextWrite, typer.Option("--output", "-o", metavar="FILE", help="- for stdout.")] = "-",  # type: ignore[assignment]
) -> None:
    """Write all dead letters as a recording, a JSON object a line, each with its reason."""
    from processor import deadletters, settings  # noqa: PLC0415

    for letter in deadletters.read(settings.load(config).state_path):
        output.write(json.dumps(deadletters.as_recording(letter)) + "\n")


@app.command()
def demo(
    *,
    seconds: Annotated[float, typer.Option(help="How long it runs.")] = 20.0,
    speed: Annotated[float, typer.Option(help="How many times faster than it was recorded.")] = 10.0,
    out: Annotated[Path, typer.Option(help="Where the samples go.")] = Path("out/demo"),
    as_json: Annotated[bool, typer.Option("--json", help="End with one line: a JSON summary.")] = False,
) -> None:
    """Run the main job on recorded sensor data over a real MQTT broker."""
    from processor.demo.command import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(seconds=seconds, speed=speed, out=out, as_json=as_json))


def main() -> None:
    """Run the command in `sys.argv`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal in Latin-1 has no "…"
    try:
        app(prog_name="mlade")
    except MladeError as error:
        typer.echo(str(error), err=True)
        sys.exit(_exit_code(error))


def _exit_code(error: MladeError) -> int:
    return _BAD_CONFIGURATION if isinstance(error, ConfigurationError) else 1

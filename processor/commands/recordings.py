"""`mlade record`, `mlade replay` and `mlade suggest`."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from processor.commands.options import Config, ModelName, answer, chosen

if TYPE_CHECKING:
    from processor.computation import Outcome
    from processor.recording import Reader
    from processor.replay import Replay
    from processor.replay_run import Progress

Recording = Annotated[
    Path, typer.Argument(metavar="REC", exists=True, dir_okay=False, help="A recording; .gz is compressed.")
]
_WIDTH: Final = 140
"""Characters in a line where the output is no terminal."""


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
    from processor.logs import one_line  # noqa: PLC0415
    from processor.printing import size  # noqa: PLC0415
    from processor.record import Recorded, Recorder  # noqa: PLC0415

    console = Console(stderr=True, highlight=False)
    recorder = Recorder(settings.load(config), output, lambda sentence: typer.echo(one_line(sentence), err=True))
    with ExitStack() as cleanup:
        for number in (signal.SIGINT, signal.SIGTERM):
            cleanup.callback(signal.signal, number, signal.signal(number, lambda *_: recorder.stop()))
        status = cleanup.enter_context(console.status("connecting …"))

        def show(now: Recorded) -> None:
            topics = "1 topic" if now.topics == 1 else f"{now.topics:,} topics"
            until = "Ctrl-C ends it" if seconds is None else f"of {seconds:g} s"
            status.update(f"{now.messages:,} messages, {topics}, {size(now.size)}, {now.seconds:.0f} s; {until}")

        done = answer(lambda: recorder.run(timeout, math.inf if seconds is None else seconds, show))
    for text, reason in recorder.refused.items():
        typer.echo(f"NOTE: the broker does not let us subscribe to {one_line(text)}: {reason}.", err=True)
    if done.too_large:
        typer.echo(f"NOTE: {done.too_large} messages over broker.max_payload are not in it.", err=True)
    if done.gaps:
        typer.echo(f"NOTE: connections lost: {done.gaps}. What came meanwhile is not in it.", err=True)
    if not done.messages:
        typer.echo("Nothing came. Do sources[].topics name what the sensors publish on?", err=True)
    kept = f", {done.retained:,} of them retained from before" if done.retained else ""
    typer.echo(
        f"{output}: {done.messages:,} messages{kept}, {done.topics:,} topics, {size(done.size)}, {done.seconds:.1f} s"
    )


def replay(
    recording: Recording,
    config: Config,
    *,
    filters: Annotated[
        list[Path] | None,
        typer.Option("--filter", metavar="F", help="A filter instead of the configuration's; again: side by side."),
    ] = None,
    model_name: ModelName = None,
    out: Annotated[
        Path | None, typer.Option(metavar="EVENTS.jsonl", help="Write the kept samples, an event a line.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="R.html", help="Draw it all on a page that opens offline.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line: a JSON summary.")] = False,
) -> None:
    """Run the selection over a recording: what would be kept, and why the rest is not."""
    from processor import settings  # noqa: PLC0415
    from processor.replay_printing import show  # noqa: PLC0415
    from processor.replay_run import Trial, configured, read_candidates, replay_recording  # noqa: PLC0415
    from processor.shadow.opening import known_times, obtain_both  # noqa: PLC0415

    if out is not None and len(filters or ()) > 1:
        raise typer.BadParameter("--out takes the samples of one filter; give --filter once")
    loaded = settings.load(config)
    slots = [chosen(loaded, model_name)] if model_name or filters or report else loaded.slots
    trials = []
    for configured_slot in slots:
        slot, model, shadow = obtain_both(configured_slot, known_times(configured_slot))
        candidates = read_candidates(slot, model, filters) if filters else [configured(slot, model, config.name)]
        trials.append(Trial(slot, model, candidates, shadow))
    console = Console(stderr=as_json, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    with following() as progress:
        done = replay_recording(trials, recording, progress=progress, out=out, report=report)
    if done.cut_off:
        typer.echo(f"NOTE: {done.cut_off}", err=True)
    for number, one in enumerate(done.replays):
        if len(done.replays) > 1:
            console.print("\n" * (number > 0) + f"[b]Model {one.slot}[/b]")
        show(console, one)
    events = sum(one.sides[0].events for one in done.replays)
    for what, path in ((f"{events:,} events in", out), ("The report is", report)):
        if path is not None:
            console.print(f"\n{what} {path}", markup=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(done.as_json()))


def suggest(
    recording: Recording,
    config: Config,
    *,
    target: Annotated[
        str, typer.Option(metavar="N[/day|/hour]", help="How many samples: of the recording, a day, an hour.")
    ],
    filter_file: Annotated[
        Path | None, typer.Option("--filter", metavar="F", help="Change this filter instead of the configuration's.")
    ] = None,
    rule: Annotated[
        str | None, typer.Option(metavar="NAME", help="The rule to set; left out: the first with a measure.")
    ] = None,
    model_name: ModelName = None,
    share: Annotated[bool, typer.Option("--share", help="Set an adaptive share, keep, rather than a band.")] = False,
) -> None:
    """Print the filter whose band, or share, keeps about so many samples."""
    from processor import settings  # noqa: PLC0415
    from processor.recording import Reader  # noqa: PLC0415
    from processor.replay import Candidate, Replay  # noqa: PLC0415
    from processor.replay_printing import suggestion_lines  # noqa: PLC0415
    from processor.replay_run import configured, play, read_candidates  # noqa: PLC0415
    from processor.shadow.opening import known_times, obtain_both  # noqa: PLC0415
    from processor.suggest import parse_target  # noqa: PLC0415
    from processor.suggest import suggest as find  # noqa: PLC0415

    try:
        wanted = parse_target(target)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--target") from None
    configured_slot = chosen(settings.load(config), model_name)
    slot, model, shadow = obtain_both(configured_slot, known_times(configured_slot))
    if filter_file is None:
        (candidate,) = (configured(slot, model, config.name),)
    else:
        (candidate,) = read_candidates(slot, model, [filter_file])

    def run(candidates: Sequence[Candidate], take: Callable[[Sequence[Outcome]], None]) -> Replay:
        replayed = Replay(slot, model, candidates, shadow=shadow)
        with following() as progress:
            play(Reader(recording), [replayed], progress, take)
        return replayed

    found = find(run, candidate.document, model.kind, wanted, rule=rule, share=share)
    for line in suggestion_lines(found, wanted, recording):
        typer.echo(line)


@contextmanager
def following() -> Iterator[Progress]:
    """Yield what shows on a terminal how far a recording was read."""
    console = Console(stderr=True)
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[messages]:,} messages"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("replaying", total=None, messages=0)

        def show(reader: Reader, messages: int) -> None:
            bar.update(task, completed=reader.position, total=reader.size or None, messages=messages)

        yield show

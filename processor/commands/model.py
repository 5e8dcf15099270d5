"""`mlade model show` and `mlade model push`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from processor.commands.options import AsJson, ModelName, chosen, file_option

models = typer.Typer(
    help="Look at a model; put one into a registry; change a running processor's.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SECTION = "MLADE_MODEL__REGISTRY__"
ModelConfig = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="A processor's configuration: its section model."),
]
Username = Annotated[
    str | None, typer.Option(help="For the registry; absent: Docker's configuration.", envvar=f"{_SECTION}USERNAME")
]
PasswordFile = Annotated[Path | None, file_option("Holds the password.", f"{_SECTION}PASSWORD_FILE")]
Managed = Annotated[bool, typer.Option("--managed-identity", help="Be this machine's Azure identity.")]
Ca = Annotated[Path | None, file_option("Certificates to trust, PEM.", f"{_SECTION}CA")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Plain HTTP, to other machines, too.")]


def _registry(
    username: str | None, password_file: Path | None, ca: Path | None, *, managed: bool, insecure: bool
) -> dict[str, Any]:
    """Return the keys of `model.registry` that options stand for."""
    files = {"password_file": password_file, "ca": ca}
    keys: dict[str, Any] = {name: str(path.resolve()) for name, path in files.items() if path is not None}
    if username is not None:
        keys["username"] = username
    if managed:
        keys["identity"] = "managed"
    if insecure:
        keys["insecure"] = True
    return keys


@models.command("show")
def show_model(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file, https://… or oci://registry/repository:tag.")],
    *,
    config: ModelConfig = None,
    model_name: ModelName = None,
    window_size: Annotated[int | None, typer.Option(min=1, help="Readings in a window, where it is open.")] = None,
    channels: Annotated[int | None, typer.Option(min=1, help="Values in a reading, where it is open.")] = None,
    file: Annotated[str | None, typer.Option(help="Its path in an image that holds several.")] = None,
    username: Username = None,
    password_file: PasswordFile = None,
    managed: Managed = False,
    ca: Ca = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Print a model's inputs, outputs, labels, versions, size and digest, and how long it takes here.

    Exits with 0 also where it cannot be run with what is known of the sources; that is then said.
    """
    from processor import model_show, printing, settings  # noqa: PLC0415 - each loads what it needs, and --help nothing

    keys = _registry(username, password_file, ca, managed=managed, insecure=insecure)
    if file is not None:
        keys["file"] = file
    configured = None if config is None else chosen(settings.load(config), model_name)
    shown = model_show.look(path, configured=configured, window_size=window_size, channels=channels, registry=keys)
    if as_json:
        typer.echo(json.dumps(model_show.as_json(shown), ensure_ascii=False))
    else:
        printing.print_rows(model_show.rows(shown), sys.stdout)


@models.command("push")
def push_model(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="An ONNX file.")],
    to: Annotated[str, typer.Argument(metavar="oci://…", help="The registry, the repository and the tag.")],
    *,
    config: ModelConfig = None,
    model_name: ModelName = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="One of its labels, in order; again for each.")
    ] = None,
    annotation: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An annotation; again for more.")
    ] = None,
    username: Username = None,
    password_file: PasswordFile = None,
    managed: Managed = False,
    ca: Ca = None,
    insecure: Insecure = False,
    as_json: AsJson = False,
) -> None:
    """Put a model into a registry, with the files that hold its weights, and print its digest.

    With -c, what the section model says of labels, input, output, window and temperature goes along as annotations.
    """
    from processor import model_push, settings  # noqa: PLC0415
    from processor.printing import size  # noqa: PLC0415

    keys = _registry(username, password_file, ca, managed=managed, insecure=insecure)
    configured = None if config is None else chosen(settings.load(config), model_name)
    pushed = model_push.push_file(
        file, to, configured=configured, labels=label, annotations=annotation or [], registry=keys
    )
    if as_json:
        typer.echo(
            json.dumps({"reference": to, "digest": pushed.digest, "files": dict(pushed.files), "sent": pushed.sent})
        )
        return
    for name, length in pushed.files:
        typer.echo(f"{name}, {size(length)}")
    typer.echo(f"{to} is {pushed.digest}" + ("" if pushed.sent else "; its files were there already"))

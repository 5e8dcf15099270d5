"""`mlade discover`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def discover(
    broker: Annotated[str, typer.Option(metavar="URL", help="mqtt, mqtts, ws or wss: mqtt://127.0.0.1:1883")],
    *,
    topic: Annotated[str, typer.Option(metavar="F", help="Topic filter to listen to.")] = "#",
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to listen; Ctrl-C ends it earlier.")] = 20.0,
    model: Annotated[
        Path | None, typer.Option(metavar="M.onnx", help="The model to feed: fields and windows are matched to it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The configuration; left out: to stdout.")
    ] = None,
    username: Annotated[str | None, typer.Option(help="For the broker; left out: the URL's.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A file with the password.")
    ] = None,
    tls_ca: Annotated[Path | None, typer.Option(exists=True, help="Certificates to trust, PEM.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(exists=True, help="Our certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(exists=True, help="Its private key, PEM.")] = None,
    protocol: Annotated[str, typer.Option(metavar="5|3.1.1", help="Version of MQTT.")] = "5",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the broker.")] = 5.0,
) -> None:
    """Listen to a broker and write a configuration for what is there."""
    from processor.discover.command import Options, run  # noqa: PLC0415 - a command loads what it needs

    if output is not None and output.exists():
        raise typer.BadParameter(f"{output} exists already; give another name, or remove it", param_hint="--output")
    tls = {"ca": tls_ca, "cert": tls_cert, "key": tls_key}
    keys: dict[str, Any] = {"url": broker}
    if username is not None:
        keys["username"] = username
    if password_file is not None:
        keys["password_file"] = str(password_file.resolve())
    if any(tls.values()):
        keys["tls"] = {key: str(path.resolve()) for key, path in tls.items() if path is not None}
    if protocol != "5":
        keys["protocol"] = protocol
    options = Options(keys, topic, seconds, model, output, timeout)
    raise typer.Exit(run(options))

"""`mlade dashboard`: parse, put together, serve."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from processor.errors import MladeError


def _file(text: str, variable: str | None = None) -> Any:  # noqa: ANN401 - typer's
    return typer.Option(metavar="FILE", exists=True, dir_okay=False, readable=True, help=text, envvar=variable)


def dashboard(
    *,
    broker: Annotated[
        str, typer.Option(metavar="URL", help="mqtt, mqtts, ws or wss.", envvar="MLADE_BROKER__URL")
    ] = "mqtt://127.0.0.1:1883",
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the page is served.")] = "127.0.0.1:8321",
    prefix: Annotated[list[str], typer.Option(help="The processors' topic_prefix; again for more.")] = ["mlade"],  # noqa: B006
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="Change nothing; the default without a password where others can connect."),
    ] = False,
    password_file: Annotated[Path | None, _file("Holds the password that changes ask for.")] = None,
    cert: Annotated[Path | None, _file("The page's certificate, PEM: it is served by HTTPS.")] = None,
    key: Annotated[Path | None, _file("Its private key, PEM.")] = None,
    broker_username: Annotated[
        str | None, typer.Option(help="Our user name for the broker.", envvar="MLADE_BROKER__USERNAME")
    ] = None,
    broker_password_file: Annotated[
        Path | None, _file("Holds our password for the broker.", "MLADE_BROKER__PASSWORD_FILE")
    ] = None,
    broker_ca: Annotated[Path | None, _file("Certificates to trust, PEM.", "MLADE_BROKER__TLS__CA")] = None,
    broker_cert: Annotated[
        Path | None, _file("Our certificate for the broker, PEM.", "MLADE_BROKER__TLS__CERT")
    ] = None,
    broker_key: Annotated[Path | None, _file("Its private key, PEM.", "MLADE_BROKER__TLS__KEY")] = None,
    broker_insecure: Annotated[
        bool, typer.Option("--broker-insecure", help="Do not check the broker's certificate.")
    ] = False,
    broker_protocol: Annotated[
        str, typer.Option(metavar="VERSION", help="5 or 3.1.1.", envvar="MLADE_BROKER__PROTOCOL")
    ] = "5",
) -> None:
    """Serve a web page for every processor on a broker. Needs the extra mlade[dashboard].

    Passwords may also be in the environment: MLADE_DASHBOARD_PASSWORD, MLADE_BROKER__PASSWORD.
    """
    import os  # noqa: PLC0415

    if importlib.util.find_spec("nicegui") is None:
        raise MladeError("The dashboard is drawn by NiceGUI, which is not installed: pip install 'mlade[dashboard]'.")
    from processor.dashboard import options  # noqa: PLC0415 - a command loads what it needs, and --help nothing
    from processor.logs import LineFormatter  # noqa: PLC0415

    tls = {"ca": broker_ca, "cert": broker_cert, "key": broker_key}
    asked = options.read(
        broker={
            "url": broker,
            "username": broker_username,
            "protocol": broker_protocol,
            "tls": {
                **{name: str(path) for name, path in tls.items() if path is not None},
                "insecure_skip_verify": broker_insecure,
            },
        },
        broker_password=os.environ.get("MLADE_BROKER__PASSWORD"),
        broker_password_file=broker_password_file,
        prefixes=prefix,
        listen=listen,
        cert=cert,
        key=key,
        password=os.environ.get("MLADE_DASHBOARD_PASSWORD"),
        password_file=password_file,
        read_only=read_only,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    from processor.dashboard.serving import run  # noqa: PLC0415 - NiceGUI takes more than a second to load

    raise typer.Exit(run(asked))

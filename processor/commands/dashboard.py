"""`mlade dashboard`: parse, put together, serve."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Annotated

import typer

from processor.commands.options import (
    BrokerCa,
    BrokerCert,
    BrokerInsecure,
    BrokerKey,
    BrokerPasswordFile,
    BrokerProtocol,
    BrokerUrl,
    BrokerUsername,
    broker_keys,
    file_option,
)
from processor.errors import MladeError


def dashboard(
    *,
    broker: BrokerUrl = "mqtt://127.0.0.1:1883",
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the page is served.")] = "127.0.0.1:8321",
    prefix: Annotated[list[str], typer.Option(help="The processors' topic_prefix; again for more.")] = ["mlade"],  # noqa: B006
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="Change nothing; the default without a password where others can connect."),
    ] = False,
    password_file: Annotated[Path | None, file_option("Holds the password that changes ask for.")] = None,
    cert: Annotated[Path | None, file_option("The page's certificate, PEM: it is served by HTTPS.")] = None,
    key: Annotated[Path | None, file_option("Its private key, PEM.")] = None,
    broker_username: BrokerUsername = None,
    broker_password_file: BrokerPasswordFile = None,
    broker_ca: BrokerCa = None,
    broker_cert: BrokerCert = None,
    broker_key: BrokerKey = None,
    broker_insecure: BrokerInsecure = False,
    broker_protocol: BrokerProtocol = "5",
) -> None:
    """Serve a web page for every processor on a broker. Needs the extra mlade[dashboard].

    Passwords may also be in the environment: MLADE_DASHBOARD_PASSWORD, MLADE_BROKER__PASSWORD.
    """
    import os  # noqa: PLC0415

    if importlib.util.find_spec("nicegui") is None:
        raise MladeError("The dashboard is drawn by NiceGUI, which is not installed: pip install 'mlade[dashboard]'.")
    from processor.dashboard import options  # noqa: PLC0415 - a command loads what it needs, and --help nothing
    from processor.logs import LineFormatter  # noqa: PLC0415

    asked = options.read(
        broker=broker_keys(
            broker,
            username=broker_username,
            protocol=broker_protocol,
            ca=broker_ca,
            cert=broker_cert,
            key=broker_key,
            insecure=broker_insecure,
        ),
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

"""`mlade discover`."""

from __future__ import annotations

import os
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


def discover(
    broker: BrokerUrl,
    *,
    topic: Annotated[str, typer.Option(metavar="F", help="Topic filter to listen to.")] = "#",
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to listen; Ctrl-C ends it earlier.")] = 20.0,
    model: Annotated[Path | None, file_option("The ONNX model to feed: fields and windows are matched to it.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The configuration to write; absent: stdout.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the broker.")] = 5.0,
    broker_username: BrokerUsername = None,
    broker_password_file: BrokerPasswordFile = None,
    broker_ca: BrokerCa = None,
    broker_cert: BrokerCert = None,
    broker_key: BrokerKey = None,
    broker_insecure: BrokerInsecure = False,
    broker_protocol: BrokerProtocol = "5",
) -> None:
    """Listen to a broker and write a configuration for what is there.

    Exits with 0 where something came, 1 where nothing did, 2 where the broker was not reached. The password may also be
    in the environment: MLADE_BROKER__PASSWORD.
    """
    from processor.discover.asking import read  # noqa: PLC0415 - a command loads what it needs, and --help nothing
    from processor.discover.command import run  # noqa: PLC0415

    asked = read(
        broker=broker_keys(
            broker,
            username=broker_username,
            protocol=broker_protocol,
            ca=broker_ca,
            cert=broker_cert,
            key=broker_key,
            insecure=broker_insecure,
        ),
        password=os.environ.get("MLADE_BROKER__PASSWORD"),
        password_file=broker_password_file,
        topic=topic,
        seconds=seconds,
        model=model,
        output=output,
        timeout=timeout,
    )
    raise typer.Exit(run(asked))

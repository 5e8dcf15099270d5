"""What several commands take, and how they say that nobody answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from processor.types import MODEL_SLOT

if TYPE_CHECKING:
    from processor.settings import Settings, Slot

NO_ANSWER: Final = 3
"""Exit code: the broker or the processor does not answer."""

Config = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The processor's configuration file.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the broker, and for the answer.")]
ModelName = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Which of the models; left out: default, or the only one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def file_option(text: str, variable: str | None = None) -> Any:  # noqa: ANN401 - typer's
    """Return an option that is a file to read."""
    return typer.Option(metavar="FILE", exists=True, dir_okay=False, readable=True, help=text, envvar=variable)


# The broker, for commands that have no configuration file; a processor's variables count here, too.
BrokerUrl = Annotated[str, typer.Option(metavar="URL", help="mqtt, mqtts, ws or wss.", envvar="MLADE_BROKER__URL")]
BrokerUsername = Annotated[
    str | None, typer.Option(help="Our user name for the broker.", envvar="MLADE_BROKER__USERNAME")
]
BrokerPasswordFile = Annotated[
    Path | None, file_option("Holds our password for the broker.", "MLADE_BROKER__PASSWORD_FILE")
]
BrokerCa = Annotated[Path | None, file_option("Certificates to trust, PEM.", "MLADE_BROKER__TLS__CA")]
BrokerCert = Annotated[Path | None, file_option("Our certificate for the broker, PEM.", "MLADE_BROKER__TLS__CERT")]
BrokerKey = Annotated[Path | None, file_option("Its private key, PEM.", "MLADE_BROKER__TLS__KEY")]
BrokerInsecure = Annotated[bool, typer.Option("--broker-insecure", help="Do not check the broker's certificate.")]
BrokerProtocol = Annotated[str, typer.Option(metavar="VERSION", help="5 or 3.1.1.", envvar="MLADE_BROKER__PROTOCOL")]


def broker_keys(
    url: str,
    *,
    username: str | None,
    protocol: str,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    insecure: bool,
) -> dict[str, Any]:
    """Return the keys of `broker` that options stand for; not the password."""
    tls = {"ca": ca, "cert": cert, "key": key}
    return {
        "url": url,
        "username": username,
        "protocol": protocol,
        "tls": {
            **{name: str(path) for name, path in tls.items() if path is not None},
            "insecure_skip_verify": insecure,
        },
    }


def chosen(settings: Settings, name: str | None) -> Slot:
    """Return the model that an option names, the one called `default`, or the only one."""
    slots = {slot.name: slot for slot in settings.slots}
    if name is None and len(slots) > 1 and MODEL_SLOT not in slots:
        raise typer.BadParameter(f"there are several models; choose one of {', '.join(slots)}", param_hint="--model")
    found = next(iter(slots)) if name is None and len(slots) == 1 else name or MODEL_SLOT
    if found not in slots:
        raise typer.BadParameter(f"no model is called {found!r}; there is {', '.join(slots)}", param_hint="--model")
    return slots[found]


Answer = TypeVar("Answer")


def answer(ask: Callable[[], Answer]) -> Answer:
    """Return what was asked for; exit with 3 and a sentence when nobody answers."""
    from processor.remote import NoAnswer  # noqa: PLC0415

    try:
        return ask()
    except NoAnswer as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(NO_ANSWER) from None

"""How models are fetched: bounds and credentials, as `model.registry` says them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Options:
    """How models are fetched.

    Attributes:
        max_bytes: that one fetch may bring, and that it may become once unpacked.
        timeout: seconds that all of a fetch may take.
        stall: seconds without a byte after which the other side counts as away.
        username: for the reference's own host; None: from Docker's configuration, or anonymous.
        password: for it.
        docker_config: Docker's config.json; None: there is none.
        identity: `managed`: ask the machine's managed identity for a token of Azure Container Registry.
        client_id: of a managed identity that is assigned by the user; None: the system's.
        ca: certificates to trust, PEM; None: the system's.
        insecure: whether plain HTTP is allowed to hosts other than this machine.
        file: the model's path in a container image that holds several.
    """

    max_bytes: int = 1 << 30
    timeout: float = 1800.0
    stall: float = 30.0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    docker_config: Path | None = None
    identity: Literal["none", "managed"] = "none"
    client_id: str | None = None
    ca: Path | None = None
    insecure: bool = False
    file: str | None = None

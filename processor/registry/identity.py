"""The managed identity of an Azure machine. Imported where it is wanted only: msal takes memory and a while to load."""

from __future__ import annotations

from typing import Any, Final

import msal
import requests

from processor.errors import ModelUnavailable

_AZURE_RESOURCE: Final = "https://containerregistry.azure.net/"
"""A token for it is good for registries, and for nothing else of a subscription's."""
_IDENTITY_PATIENCE: Final = 10.0
"""Seconds that the machine's own identity endpoint may take."""


def managed_identity(client_id: str | None) -> str:
    """Return the machine's identity's token for Azure Container Registry.

    Args:
        client_id: of a user-assigned identity; None: the system's.

    Raises:
        ModelUnavailable: there is none, or it does not answer.
    """
    identity = (
        msal.UserAssignedManagedIdentity(client_id=client_id) if client_id else msal.SystemAssignedManagedIdentity()
    )
    with _Direct() as session:
        client = msal.ManagedIdentityClient(identity, http_client=session)
        try:
            found = client.acquire_token_for_client(resource=_AZURE_RESOURCE)
        except (requests.RequestException, ValueError, msal.ManagedIdentityError) as error:
            raise ModelUnavailable(
                f"this machine's managed identity does not answer ({type(error).__name__}): is it an Azure VM, an Arc "
                "machine or a service that has one?"
            ) from None
    token = found.get("access_token")
    if not isinstance(token, str):
        raise ModelUnavailable(f"this machine's managed identity gives no token: {found.get('error', 'no reason')}")
    return token


class _Direct(requests.Session):
    """Asks the machine's own endpoint: never through a proxy, never for long."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.max_redirects = 0

    def request(self, *arguments: Any, **keywords: Any) -> requests.Response:  # noqa: ANN401 - requests' own
        """Ask with a timeout."""
        return super().request(*arguments, **{"timeout": _IDENTITY_PATIENCE, **keywords})

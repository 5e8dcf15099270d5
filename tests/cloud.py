"""The hub's side of a `CloudLink`, for tests of what the cloud asks and is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from processor.cloud import CloudLink, Desired, Method, Notice


class Hub:
    """Asks, keeps what is answered and reported, merged as a hub merges it, and takes the notices."""

    def __init__(self, link: CloudLink) -> None:
        self.link = link
        self.version = 6
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self._reported: dict[str, Any] = {}

    def desire(self, *, complete: bool = True, **properties: Any) -> None:  # noqa: ANN401 - JSON
        """Say what the twin desires: all of it, as after a connect, or a patch."""
        self.version += 1
        assert self.link.ask(Desired(properties | {"$version": self.version}, complete))

    def call(self, name: str, payload: object = None) -> None:
        """Invoke a direct method."""
        assert self.link.ask(Method(name, payload, self._keep))

    def _keep(self, status: int, body: Mapping[str, Any]) -> None:
        self.answers.append((status, dict(body)))

    @property
    def reported(self) -> dict[str, Any]:
        """The twin's reported properties."""
        news = self.link.take_reported() or {}
        self._reported = {key: value for key, value in (self._reported | news).items() if value is not None}
        return self._reported

    def notices(self) -> list[Notice]:
        """Take the messages that are no samples."""
        taken = []
        while (notice := self.link.take_notice()) is not None:
            taken.append(notice)
        return taken

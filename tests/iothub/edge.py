"""The workload API of an IoT Edge device, over which a module gets the trust bundle and has its tokens signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.iothub.identity import Device
from tests.iothub.web import Request, Response

if TYPE_CHECKING:
    from tests.iothub.service import Service

API_VERSION = "2018-06-28"
_SIGN = re.compile(r"/modules/(?P<module>[^/]+)/genid/(?P<generation>[^/]+)/sign")


class Workload:
    """Answers a module's requests."""

    def __init__(self, service: Service, authority: Path) -> None:
        """Begin.

        Args:
            service: of the hub whose modules these are.
            authority: PEM file of the trust bundle.
        """
        self._service = service
        self._authority = authority

    def answer(self, request: Request) -> Response:
        """Answer a request."""
        if request.query.get("api-version") != API_VERSION:
            return Response.of(400, {"message": f"api-version has to be {API_VERSION}"})
        if request.method == "GET" and request.path == "/trust-bundle":
            return Response.of(200, {"certificate": self._authority.read_text()})
        match = _SIGN.fullmatch(request.path)
        if request.method != "POST" or match is None:
            return Response.of(404, {"message": f"there is no {request.path}"})
        for client in self._service.clients.values():
            if (client.device.module_id, client.device.generation) == (match["module"], match["generation"]):
                return _sign(client.device, json.loads(request.body))
        return Response.of(404, {"message": f"there is no module {match['module']!r} of that generation"})


def _sign(device: Device, asked: dict[str, str]) -> Response:
    if (asked.get("keyId"), asked.get("algo")) != ("primary", "HMACSHA256"):
        return Response.of(400, {"message": "only HMACSHA256 with the primary key is done"})
    digest = hmac.digest(base64.b64decode(device.key), base64.b64decode(asked["data"]), hashlib.sha256)
    return Response.of(200, {"digest": base64.b64encode(digest).decode()})

"""File upload and the storage account behind it (IoT Hub: "Upload files with IoT Hub"; Storage: "Put Blob")."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.iothub.identity import API_VERSIONS, Unauthorized, new_key, sign
from tests.iothub.web import Request, Response

if TYPE_CHECKING:
    from tests.iothub.service import Service

CONTAINER = "uploads"
_MOST_AT_ONCE = 10
_TOKEN_LASTS = timedelta(hours=1)
_FILES = re.compile(r"/devices/(?P<device>[^/]+)/files(?P<notify>/notifications)?")
_BLOCK = re.compile(rb"<(?:Latest|Uncommitted|Committed)>([^<]+)</")
_API_VERSIONS = API_VERSIONS | {"2020-03-13"}


@dataclass(slots=True)
class Upload:
    """A file upload that a device began; `success` is what it has said at the end, None: nothing yet."""

    device: str
    blob: str
    correlation_id: str
    success: bool | None = None
    status: int | None = None
    description: str = ""


class Uploads:
    """The hub's REST endpoints for files, and blobs.

    Attributes:
        files: the uploads, oldest first.
        blobs: complete blobs by name, `<device>/<name>`.
        configured: whether the hub has a storage account.
    """

    def __init__(self, service: Service, location: str) -> None:
        """Begin with nothing.

        Args:
            service: of the hub whose devices these are.
            location: host and port of the blobs.
        """
        self.files: list[Upload] = []
        self.blobs: dict[str, bytes] = {}
        self.configured = True
        self._service = service
        self._location = location
        self._key = new_key()
        self._blocks: dict[tuple[str, str], bytes] = {}

    def answer(self, request: Request) -> Response:
        """Answer a request to the hub or to the storage account."""
        faults = self._service.faults
        if faults.upload_status is not None or faults.throttling is not None:
            return Response.of(faults.upload_status or 429, {"Message": "as the test asked"})
        match = _FILES.fullmatch(request.path)
        if match is None:
            return self._answer_storage(request)
        try:
            return self._answer_hub(request, match["device"], notified=match["notify"] is not None)
        except Unauthorized as error:
            self._service.note("refused", match["device"], str(error))
            return Response.of(401, {"Message": f"ErrorCode:IotHubUnauthorizedAccess;{error}"})
        except (ValueError, KeyError) as error:
            return Response.of(400, {"Message": f"ErrorCode:ArgumentInvalid;{error!r}"})

    def _answer_hub(self, request: Request, device: str, *, notified: bool) -> Response:
        client = self._service.clients.get(device)
        if client is None:
            raise Unauthorized(f"there is no device {device!r}")
        if request.query.get("api-version") not in _API_VERSIONS:
            raise ValueError("api-version is missing or not known")
        resources = {f"{host}/{client.device.resource}" for host in self._service.hosts}
        token = request.headers.get("authorization", "")
        self._service.check(client.device, token, request.certificate, resources)
        if request.method != "POST":
            return Response.of(405, {"Message": "only POST is allowed"})
        document = json.loads(request.body)
        return self._finish(device, document) if notified else self._begin(device, document)

    def _begin(self, device: str, document: Mapping[str, object]) -> Response:
        name = document["blobName"]
        if not isinstance(name, str) or not name:
            raise ValueError("blobName is not a name")
        if not self.configured:
            return Response.of(400, {"Message": "ErrorCode:BlobContainerNotConfigured;no storage account"})
        if sum(file.device == device and file.success is None for file in self.files) >= _MOST_AT_ONCE:
            return Response.of(403, {"Message": "ErrorCode:TooManyFileUploads"})
        blob = f"{device}/{name}"
        upload = Upload(device, blob, base64.b64encode(f"{secrets.token_hex(8)}_{name}".encode()).decode())
        self.files.append(upload)
        self._service.observe()
        expiry = (datetime.now(UTC) + _TOKEN_LASTS).strftime("%Y-%m-%dT%H:%M:%SZ")
        signature = quote(sign(self._key, f"{blob}\n{expiry}"), safe="")
        answer = {
            "correlationId": upload.correlation_id,
            "hostName": self._location,
            "containerName": CONTAINER,
            "blobName": blob,
            "sasToken": f"?sv=2018-03-28&sr=b&sig={signature}&se={quote(expiry, safe='')}&sp=rw",
        }
        return Response.of(200, answer)

    def _finish(self, device: str, document: Mapping[str, object]) -> Response:
        for file in self.files:
            if file.device == device and file.correlation_id == document["correlationId"] and file.success is None:
                file.success = document["isSuccess"] is True
                file.status = int(str(document.get("statusCode", 0)))
                file.description = str(document.get("statusDescription", ""))
                self._service.observe()
                return Response(204)
        raise ValueError("the correlation id is not one of an upload that goes on")

    def _answer_storage(self, request: Request) -> Response:
        _, _, rest = request.path.partition("/")
        container, _, blob = rest.partition("/")
        expiry = request.query.get("se", "")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if request.query.get("sig") != sign(self._key, f"{blob}\n{expiry}") or expiry <= now:
            return _error(403, "AuthenticationFailed", "the signature is not the blob's, or is over")
        if container != CONTAINER:
            return _error(404, "ContainerNotFound", f"there is no container {container!r}")
        if request.method in {"GET", "HEAD"}:
            found = self.blobs.get(blob)
            return _error(404, "BlobNotFound", "there is no such blob") if found is None else Response(200, found)
        if request.method != "PUT":
            return _error(405, "UnsupportedHttpVerb", f"{request.method} is not done here")
        return self._put(blob, request)

    def _put(self, blob: str, request: Request) -> Response:
        digest = base64.b64encode(hashlib.md5(request.body, usedforsecurity=False).digest()).decode()
        if request.headers.get("content-md5", digest) != digest:
            return _error(400, "Md5Mismatch", "the body is not what its digest says")
        part = request.query.get("comp")
        if part == "block":
            self._blocks[blob, request.query["blockid"]] = request.body
            return _created(digest)
        if blob in self.blobs and request.headers.get("if-none-match") == "*":
            return _error(409, "BlobAlreadyExists", "there is such a blob")
        content = self._content(blob, request) if part == "blocklist" else request.body
        if content is None:
            return _error(400, "InvalidBlockList", "a block in the list was not put")
        if part is None and request.headers.get("x-ms-blob-type") != "BlockBlob":
            return _error(400, "MissingRequiredHeader", "x-ms-blob-type has to be BlockBlob")
        self.blobs[blob] = content
        self._service.observe()
        return _created(digest)

    def _content(self, blob: str, request: Request) -> bytes | None:
        """Return the blocks of a list joined, or None where one is missing."""
        blocks = [self._blocks.get((blob, name.decode())) for name in _BLOCK.findall(request.body)]
        return None if None in blocks else b"".join(block for block in blocks if block is not None)


def _created(digest: str) -> Response:
    now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    etag = f'"0x{secrets.token_hex(7).upper()}"'
    return Response(201, b"", {"ETag": etag, "Last-Modified": now, "Content-MD5": digest, "Date": now})


def _error(status: int, code: str, message: str) -> Response:
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Response(status, body.encode(), {"x-ms-error-code": code, "Content-Type": "application/xml"})

"""A registry's documents: which blobs a tag or a digest stands for. OCI's, and Docker's schema 2."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from processor.errors import ModelError
from processor.logs import one_line

TITLE: Final = "org.opencontainers.image.title"
_TITLES: Final = (TITLE, "org.cncf.model.filepath")
"""Annotations of a layer that name its file."""
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
ACCEPT: Final = (
    f"{OCI_MANIFEST}, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json"
)
MODEL_TYPE: Final = "application/vnd.mlade.model.v1"
"""The artifact type of what `mlade model push` makes."""
ONNX_TYPE: Final = "application/vnd.onnx.model"
DATA_TYPE: Final = "application/octet-stream"
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MOST_LAYERS: Final = 512
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob or a document in a registry.

    Attributes:
        digest: `sha256:…`.
        size: in bytes, as the registry says.
        media_type: what it is.
        title: its file's name; empty where there is none.
    """

    digest: str
    size: int
    media_type: str
    title: str = ""

    @property
    def is_archive(self) -> bool:
        """Whether it is a layer of an image."""
        return ".tar" in self.media_type

    @property
    def is_model(self) -> bool:
        """Whether it is an ONNX file by itself."""
        return not self.is_archive and (self.title.lower().endswith(".onnx") or "onnx" in self.media_type)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artifact or an image is made of.

    Attributes:
        layers: the lowest first.
        annotations: of the whole.
    """

    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @property
    def is_usable(self) -> bool:
        """Whether a model may be in it."""
        return any(layer.is_archive or layer.is_model for layer in self.layers)


def read(document: Mapping[str, Any], what: str) -> Manifest | tuple[Descriptor, ...]:
    """Return a manifest, or what an index lists, the best for this machine first.

    Args:
        document: from the registry.
        what: it is, for errors.

    Raises:
        ModelError: it is neither, or both.
    """
    layers, manifests = document.get("layers"), document.get("manifests")
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        raise ModelError(f"{what} has a manifest of Docker's schema 1, which says nothing reliable; push it anew")
    if isinstance(layers, list) and manifests is None:
        if len(layers) > _MOST_LAYERS:
            raise ModelError(f"{what} has {len(layers)} layers; refused: {_MOST_LAYERS} are the most")
        annotations = _texts(document.get("annotations"))
        return Manifest(tuple(_descriptor(layer, what) for layer in layers), annotations)
    if isinstance(manifests, list) and layers is None:
        listed = [one for one in manifests[:_MOST_LAYERS] if isinstance(one, dict)]
        return tuple(_descriptor(one, what) for one in sorted(listed, key=_strangeness))
    raise ModelError(f"{what} is neither a manifest with layers nor an index of them")


def _strangeness(listed: Mapping[str, Any]) -> int:
    """Rank what an index lists: for any machine, for this one, for others, for none (signatures, attestations)."""
    of = listed.get("platform")
    if not isinstance(of, dict):
        return 0
    if "unknown" in (of.get("os"), of.get("architecture")):
        return 3
    machine = platform.machine()
    return 1 if (of.get("os"), of.get("architecture")) == ("linux", _MACHINES.get(machine, machine)) else 2


def _descriptor(given: object, what: str) -> Descriptor:
    fields: Mapping[str, Any] = given if isinstance(given, dict) else {}
    digest, size = fields.get("digest"), fields.get("size")
    if not isinstance(digest, str) or DIGEST.fullmatch(digest) is None:
        raise ModelError(f"{what} names something without a digest of SHA-256; refused")
    if type(size) is not int or size < 0:
        raise ModelError(f"{what} names something without a size; refused")
    annotations = _texts(fields.get("annotations"))
    title = next((annotations[key] for key in _TITLES if annotations.get(key)), "")
    return Descriptor(digest, size, str(fields.get("mediaType", "")), title)


def _texts(given: object) -> dict[str, str]:
    return (
        {str(key): value for key, value in given.items() if isinstance(value, str)} if isinstance(given, dict) else {}
    )


def shown(names: Sequence[str]) -> str:
    """Return names for a message, whatever is in them."""
    return one_line(", ".join(sorted(names)[:8]))[:500] + (" …" if len(names) > 8 else "")  # noqa: PLR2004 - a line's worth

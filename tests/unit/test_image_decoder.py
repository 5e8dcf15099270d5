"""Images: what models see of JPEG and PNG, what is refused, and nothing that a payload can do to its neighbours."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from processor.decoders import decoder as decoder_of
from processor.decoders.image import ImageDecoder
from processor.errors import ConfigurationError
from processor.settings import build
from processor.source_sections import Source
from processor.types import Decoded, Failure, Pixels
from tests.images import chunk, encoded, noise, photograph, png, prepared

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # off in use; pytest turns warnings on again
NOW = 1_795_341_600_000_000_000
"""2026-11-22T10:00:00Z."""


def decoder(height: int = 6, width: int = 8, color: str = "rgb") -> ImageDecoder:
    """Return a decoder to images of a size."""
    keys = {"height": height, "width": width, "color": color}
    made = decoder_of(Source.model_validate({"name": "s", "topics": ["t"], "format": "image", "image": keys}))
    assert isinstance(made, ImageDecoder)
    return made


def run(subject: ImageDecoder, *payloads: bytes) -> Decoded:
    """Decode payloads that arrived a second apart from NOW on, and check what holds for any."""
    decoded = subject.decode(payloads, NOW + np.arange(len(payloads), dtype=np.int64) * 10**9, ["t"] * len(payloads))
    assert decoded.pixels is not None
    assert decoded.pixels.shape == (len(decoded.origin), *subject._shape)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.values.shape == (len(decoded.origin), 0)
    assert decoded.times.tolist() == [NOW + index * 10**9 for index in decoded.origin.tolist()]
    assert decoded.keys is None
    failed = [failure.position for failure in decoded.failures]
    assert sorted([*failed, *decoded.origin.tolist()]) == list(range(len(payloads)))  # an image, or a failure
    return decoded


def pixels(payload: bytes, height: int = 6, width: int = 8, color: str = "rgb") -> Pixels:
    """Return what becomes of an image."""
    decoded = run(decoder(height, width, color), payload)
    assert decoded.failures == []
    assert decoded.pixels is not None
    found: Pixels = decoded.pixels[0]
    return found


def same(left: Any, right: Any) -> bool:  # noqa: ANN401 - arrays, or what becomes one
    """Whether images are equal to the last bit."""
    return np.array_equal(left, right)


def failure(payload: bytes) -> Failure:
    """Return what is said of a payload between two good ones, which it must not affect."""
    good = noise(6, 8)
    decoded = run(decoder(), encoded(good), payload, encoded(good))
    assert decoded.pixels is not None
    assert same(decoded.pixels, [good, good])
    (alone,) = run(decoder(), payload).failures
    assert alone[1:] == decoded.failures[0][1:]
    assert len(alone.detail) < 200
    return alone


@pytest.mark.parametrize("name", ["china", "flower"])
@pytest.mark.parametrize(("height", "width"), [(224, 224), (427, 640), (32, 500), (1, 1), (450, 660)])
@pytest.mark.parametrize(("color", "mode"), [("rgb", "RGB"), ("grey", "L")])
def test_a_photograph_is_what_a_training_script_makes_of_it(
    name: str, height: int, width: int, color: str, mode: str
) -> None:
    """Decoded, converted and resized, smaller or larger, to the last bit."""
    payload = photograph(name)
    assert same(pixels(payload, height, width, color), prepared(payload, height, width, mode))


def test_resizing_takes_the_mean_of_what_it_leaves_out() -> None:
    """A quarter of the size is no quarter of the pixels: fine stripes become grey, not stripes of another width."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = pixels(encoded(stripes), 16, 16)
    assert small[:, 1:-1].min() > 120
    assert small[:, 1:-1].max() < 135


def test_an_image_of_the_right_size_is_untouched() -> None:
    """Pixel by pixel, in rows from the top, red first."""
    original = noise(6, 8)
    assert same(pixels(encoded(original)), original)
    grey = noise(6, 8, 1)
    assert same(pixels(encoded(grey), color="grey"), grey)
    assert same(pixels(encoded(grey)), np.repeat(grey, 3, axis=2))


UPRIGHT: Mapping[int, Any] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],  # the camera's picture is mirrored
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),  # held so that the picture has to be turned to the right
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""What a camera stores of an upright picture, by the EXIF orientation that it writes (TIFF 6.0, Orientation)."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_images_are_turned_as_their_camera_was(orientation: int, kind: str) -> None:
    """All eight orientations of EXIF."""
    original = noise(24, 32)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(UPRIGHT[orientation](original))
    payload = encoded(stored, kind, exif=exif, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    found = pixels(payload, 24, 32)
    assert np.abs(found.astype(int) - original).max() <= (0 if kind == "PNG" else 6)
    assert same(pixels(payload, 6, 8), prepared(payload, 6, 8))


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"\xff" * 40, b"x" * 9])
def test_metadata_that_cannot_be_read_does_not_matter(exif: bytes) -> None:
    """The image is as it is, as in viewers."""
    original = noise(6, 8)
    assert same(pixels(encoded(original, exif=exif)), original)
    assert run(decoder(), encoded(original, "JPEG", exif=exif)).failures == []


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA"])
def test_every_kind_of_png(mode: str) -> None:
    """Bilevel, grey, palette, colours, with transparency, which does not count."""
    image = Image.fromarray(noise(6, 8)).convert("RGB" if mode == "PA" else mode)
    if mode == "PA":
        image = image.convert("P")
        image.info["transparency"] = 0
    payload = encoded(image)
    assert same(pixels(payload), image.convert("RGB"))


@pytest.mark.parametrize(
    "options",
    [{"progressive": True}, {"optimize": True}, {"quality": 20}, {"subsampling": 2}, {"restart_marker_rows": 1}],
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_kind_of_jpeg(options: Mapping[str, Any], mode: str) -> None:
    """Baseline and progressive, grey and colours, those of printers too."""
    payload = encoded(Image.fromarray(noise(48, 64)).convert(mode), "JPEG", **options)
    assert same(pixels(payload, 12, 16), prepared(payload, 12, 16))


def test_sixteen_bits_become_eight() -> None:
    """The upper ones, in grey and in colours, as the specification writes them: most significant byte first."""
    grey = np.array([[0, 256], [32768, 65535]], np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in grey)
    assert pixels(png(2, 2, 16, 0, rows), 2, 2, "grey")[:, :, 0].tolist() == [[0, 1], [128, 255]]
    colours = np.array([[[0, 256, 65535], [512, 32768, 1]]], np.uint16)
    rows = b"\0" + colours.astype(">u2").tobytes()
    assert pixels(png(2, 1, 16, 2, rows), 1, 2).tolist() == [[[0, 1, 255], [2, 128, 0]]]


def test_a_png_by_the_letter_of_its_specification() -> None:
    """The filters Sub and Up, by hand: each byte is the difference from the pixel to the left, or above."""
    rows = b"\1" + bytes([10, 20, 30, 5, 5, 5]) + b"\2" + bytes([1, 1, 1, 250, 0, 6])
    assert pixels(png(2, 1 + 1, 8, 2, rows), 2, 2).tolist() == [
        [[10, 20, 30], [15, 25, 35]],
        [[11, 21, 31], [9, 25, 41]],
    ]


def test_a_file_from_a_phone_is_its_first_picture() -> None:
    """Phones append a second picture, for depth or brightness, to a JPEG (MPO)."""
    first, second = (Image.fromarray(noise(24, 32, seed=seed)) for seed in (1, 2))
    payload = encoded(first, "MPO", save_all=True, append_images=[second], quality=100, subsampling=0)
    assert np.abs(pixels(payload, 24, 32).astype(int) - np.asarray(first)).max() <= 6


FRAMES: Mapping[str, Any] = {"save_all": True, "append_images": [Image.fromarray(noise(6, 8, seed=1))]}


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (b"", "the payload is empty; expected a JPEG or a PNG"),
        (b"\xff\xd8", "the payload begins with the bytes ff d8; expected a JPEG or a PNG"),
        (b"hello, image", "the payload begins with the bytes 68 65 6c 6c 6f 2c 20 69; expected a JPEG or a PNG"),
        (b"/9j/4AAQSkZJRg", "the payload is Base64 text; expected a JPEG or a PNG"),
        (b'{"image": 1}', "the payload is JSON; expected a JPEG or a PNG"),
        (encoded(noise(6, 8), "GIF"), "the payload is a GIF; expected a JPEG or a PNG"),
        (encoded(noise(6, 8), "TIFF"), "the payload is a TIFF; expected a JPEG or a PNG"),
        (encoded(noise(6, 8), "BMP"), "the payload is a BMP; expected a JPEG or a PNG"),
        (b"RIFF\x1a\0\0\0WEBPVP8L", "the payload is a WebP; expected a JPEG or a PNG"),
        (encoded(noise(6, 8), **FRAMES), "the PNG is animated, with 2 pictures; expected one"),
        (b"\xff\xd8\xff\xd9", "the JPEG cannot be read: "),
        (b"\x89PNG\r\n\x1a\n", "the PNG cannot be read: "),
        (png(2, 2, 8, 2, b"\0"), "the PNG cannot be read: image file is truncated"),
        (png(2, 2, 8, 2, b"\7" * 14), "the PNG cannot be read: "),
        (png(0, 2, 8, 2, b"\0\0"), "the PNG cannot be read: "),
        (png(2, 2, 3, 2, b"\0" * 14), "the PNG cannot be read: "),
    ],
)
def test_what_is_no_jpeg_and_no_png(payload: bytes, sentence: str) -> None:
    """It is told by its beginning; nothing is guessed."""
    found = failure(payload)
    assert found.reason == "decode"
    assert sentence in found.detail


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_file_that_is_cut_off_is_refused(kind: str, options: Mapping[str, Any]) -> None:
    """Where any of its pixels are missing; of a JPEG's end mark alone nothing is said."""
    payload = encoded(noise(48, 64), kind, **options)
    for length in range(0, len(payload) - 64, 97):
        assert failure(payload[:length]).reason == "decode"
    assert "truncated" in failure(payload[: len(payload) * 3 // 4]).detail


def test_a_png_without_its_end_is_refused() -> None:
    """Also where all its pixels are there."""
    payload = encoded(noise(48, 64), "PNG")
    assert failure(payload[:-1]).detail == "the PNG is cut off: its last chunk, IEND, is missing"
    assert {failure(payload[:length]).reason for length in range(len(payload) - 64, len(payload))} == {"decode"}


def _jpeg_of(width: int, height: int) -> bytes:
    """Return a small JPEG that says it has another size."""
    payload = bytearray(encoded(noise(8, 8), "JPEG"))
    at = payload.index(b"\xff\xc0") + 5
    payload[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(payload)


def _jpeg_of_scans(count: int) -> bytes:
    """Return a JPEG whose last pass over the pixels comes again and again."""
    payload = encoded(Image.new("L", (1024, 1024)), "JPEG", progressive=True)
    last = payload.rindex(b"\xff\xda")
    scan = payload[last : payload.rindex(b"\xff\xd9")]
    return payload[:last] + scan * count + b"\xff\xd9"


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (
            png(60_000, 60_000, 8, 2, bytes(1 << 20)),
            "the PNG is 60000 wide and 60000 high; at most 33554432",
        ),
        (png(70_000, 1, 8, 0, bytes(70_001)), "the PNG is 70000 wide and 1 high; at most 33554432 pixels and 65535 a"),
        (png(1 << 30, 1 << 30, 1, 0, b""), "the PNG is 1073741824 wide and 1073741824 high; at most"),
        (_jpeg_of(65_500, 65_500), "the JPEG is 65500 wide and 65500 high; at most 33554432 pixels"),
        (_jpeg_of_scans(600), "the JPEG passes 605 times over its pixels; at most 512 times are read"),
    ],
)
def test_what_would_take_too_much_is_refused_before_it_is_decoded(payload: bytes, sentence: str) -> None:
    """A small file can hold gigabytes of pixels, or minutes of work."""
    tracemalloc.start()
    found = failure(payload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.reason == "too_large"
    assert sentence in found.detail
    assert peak < 16 << 20


def test_the_largest_that_are_read_take_about_a_second() -> None:
    """32 million pixels, and the longest sides."""
    largest = encoded(Image.new("L", (8192, 4096), 9), compress_level=1)
    longest = encoded(Image.new("L", (65_535, 60))), encoded(Image.new("L", (3, 65_535)))
    started = time.process_time()
    assert same(pixels(largest), np.full((6, 8, 3), 9))
    assert run(decoder(), *longest).failures == []
    assert time.process_time() - started < 20


VALID = [
    encoded(noise(9, 13)),
    encoded(noise(9, 13, 1)),
    encoded(Image.fromarray(noise(9, 13)).convert("P")),
    encoded(noise(24, 32), "JPEG"),
    encoded(
        noise(24, 32), "JPEG", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    ),
]


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Draw an image that is valid, or damaged by some bytes that changed, went, or came."""
    payload = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(payload)))
        match draw(st.sampled_from(["change", "cut", "insert", "repeat"])):
            case "change":
                payload[at : at + 1] = draw(st.binary(min_size=1, max_size=2))
            case "cut":
                del payload[at : at + draw(st.integers(1, 40))]
            case "insert":
                payload[at:at] = draw(
                    st.binary(max_size=4) | st.sampled_from([b"\xff\xda", b"\xff\xe1\xff\xff", b"\xff" * 9])
                )
            case _:
                payload[at:at] = payload[at : at + 60] * draw(st.integers(1, 9))
    return bytes(payload)


@given(st.lists(st.binary(max_size=40) | files(), max_size=4), st.sampled_from(["rgb", "grey"]))
@settings(max_examples=120, deadline=None)
def test_a_batch_is_its_payloads_one_by_one(batch: list[bytes], color: str) -> None:
    """Whatever arrives, nothing is raised, and no payload changes what comes of another."""
    together = run(decoder(color=color), *batch)
    assert together.pixels is not None
    images, failures = iter(together.pixels), iter(together.failures)
    for index, payload in enumerate(batch):
        alone = run(decoder(color=color), payload)
        assert alone.pixels is not None
        if len(alone.pixels):
            assert same(next(images), alone.pixels[0])
        else:
            assert next(failures) == (index, *alone.failures[0][1:])


@pytest.mark.parametrize(
    "payload",
    [
        VALID[0][:33] + chunk(b"zTXt", b"k\0\0" + bytes(9)) * 10_000 + VALID[0][33:],
        VALID[0][:33] + chunk(b"tEXt", b"k\0v") * 15_000 + VALID[0][33:],
        VALID[3][:2] + b"\xff\xe1\0\4ab" * 40_000 + VALID[3][2:],
        VALID[3][:2] + b"\xff" * 250_000 + VALID[3][2:],
        VALID[3][:2] + b"\0" * 250_000 + VALID[3][2:],
        VALID[3][:2] + b"\xff\xe1\xff\xffExif\0\0MM\0*\0\0\0\x08\x15\x55" + b"\1\0\0\3\0\0\xff\xff" * 8190,
        b"\xff\xd8\xff" + b"\xff\xdb\0\x43\0" * 50_000,
    ],
)
def test_much_metadata_takes_no_long_time(payload: bytes) -> None:
    """What is read before the pixels is bounded, too."""
    started = time.process_time()
    run(decoder(), payload)
    assert time.process_time() - started < 10  # a few tenths


def test_a_webp_is_told_as_one() -> None:
    """As Pillow writes it."""
    if features.check("webp"):
        assert failure(encoded(noise(6, 8), "WEBP")).detail == "the payload is a WebP; expected a JPEG or a PNG"


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"image": {"height": 0}}, "sources[0].image.height", "expected"),
        ({"image": {"width": 5000}}, "sources[0].image.width", "expected"),
        ({"image": {"color": "bgr"}}, "sources[0].image.color", 'found "bgr", expected rgb or grey'),
        ({"fields": ["a"]}, "sources[0].fields", "an image has no fields; leave this key out"),
        ({"time": "t"}, "sources[0].time", "format image has no such key"),
        ({"stream": "{field:d}"}, "sources[0].stream", "a payload of format image has no field with a name"),
    ],
)
def test_what_does_not_fit_is_told_at_load(keys: Mapping[str, Any], path: str, message: str) -> None:
    """With its path, and what was expected."""
    source = {"name": "s", "topics": ["t"], "format": "image", **keys}
    with pytest.raises(ConfigurationError) as refusal:
        build({"id": "x", "sources": [source], "model": {"path": "m.onnx"}, "filter": {}}, Path("/"))
    (problem,) = refusal.value.problems
    assert problem.path == path
    assert message in problem.message

"""Documents: YAML 1.2 core scalars within bounds, and errors a plant operator can act on."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from processor.document import MAX_DEPTH, Flaw, Name, Section, parse, problems_of
from processor.errors import ConfigurationError
from processor.types import NS
from processor.units import ByteSize, Duration, PositiveDuration, duration_text, size_text


def message_of(text: bytes | str, max_bytes: int | None = None) -> str:
    """Return the one problem that `parse` raises."""
    with pytest.raises(ConfigurationError) as caught:
        parse(text, max_bytes=max_bytes)
    (problem,) = caught.value.problems
    assert problem.path == ""
    return problem.message


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("22:00", "22:00"),
        ("off", "off"),
        ("yes", "yes"),
        ("NO", "NO"),
        ("2026-11-01", "2026-11-01"),
        ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("1.2.3", "1.2.3"),
        ("<<", "<<"),
        ("=", "="),
        ('"12"', "12"),
        ("'true'", "true"),
        ("|\n  12\n", "12\n"),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("''", ""),
        ("true", True),
        ("FALSE", False),
        ("tRUE", "tRUE"),
        ("017", 17),
        ("0o17", 15),
        ("0xFf", 255),
        ("-0x1", "-0x1"),
        ("+12", 12),
        ("-0", 0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5E-2", -0.015),
        (".", "."),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("inf", "inf"),
        ("\u0661\u0662", "\u0661\u0662"),
    ],
)
def test_scalars_are_those_of_the_core_schema(written: str, read: object) -> None:
    """A plain scalar is what YAML 1.2 core says, whatever YAML 1.1 made of it."""
    value = parse(f"[{written}]" if "\n" not in written else f"- {written}")
    assert value == [read]
    assert isinstance(value, list)
    assert type(value[0]) is type(read)


def test_nan_is_a_number() -> None:
    """`.nan` is the float, `nan` is text."""
    value = parse("[.nan, nan]")
    assert isinstance(value, list)
    assert math.isnan(value[0])
    assert value[1] == "nan"


def test_an_empty_document_is_none() -> None:
    """Nothing, blanks and comments alone hold no value."""
    assert [parse(text) for text in ("", " \n", "# off\n", "---\n", b"\xef\xbb\xbf")] == [None] * 5


def test_yaml_and_json_of_one_document_are_equal() -> None:
    """Both syntaxes give the same objects, with or without a byte order mark."""
    expected = {"a": [1, {"b": None}], "c": "x"}
    assert parse("a:\n- 1\n- b: ~\nc: x\n") == expected
    assert parse('\ufeff {"a": [1, {"b": null}], "c": "x"}') == expected
    assert parse(b'{"a": [1, {b: }], c: x}') == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", 'line 3, column 1: the key "a" is given twice'),
        ('{"a": 1,\n "a": 2}', 'line 2, column 2: the key "a" is given twice'),
        ('[{"a": {"b": 1, "b": 1}}]', 'line 1, column 17: the key "b" is given twice'),
        ("a: &x 1", "line 1, column 4: the anchor &x is not allowed; write the value out where it is used"),
        ("a: *x", "line 1, column 4: the alias *x is not allowed; write its value out"),
        ("a: !!str 1", "line 1, column 4: the tag tag:yaml.org,2002:str is not allowed"),
        ("a: !x {}", "line 1, column 4: the tag !x is not allowed"),
        ("a: 1\n---\nb: 2", "line 2, column 1: a second document begins; only one is allowed"),
        ("1: a", "line 1, column 1: a key must be text, found 1; put it in quotes"),
        ("true: a", "line 1, column 1: a key must be text, found true; put it in quotes"),
        ("? [x]\n: a", "line 1, column 3: a key must be text, found a list; put it in quotes"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed in this context"),
        ("a:\n\t- b", "line 2, column 1: found character that cannot start any token"),
        (b"ok: 1\nb: \xff", "line 2, column 4: byte 0xff is not UTF-8"),
        ("a: 1\nb: \0", "line 2, column 4: the character U+0000 is not allowed"),
        ("a: \ud800", "line 1, column 4: the character U+D800 is not allowed"),
        ('a: "\\0"', "line 1, column 4: the text holds a NUL or half a character"),
        ('{"a": "\\u0000"}', "line 1, column 7: the text holds a NUL or half a character"),
        ("a: " + "9" * 5000, "line 1, column 4: a number of 5000 characters; at most 100 are allowed"),
        ("[" * 65_536, "line 1, column 33: more than 32 lists and mappings inside one another"),
    ],
)
def test_what_is_refused_is_shown_with_its_place(text: bytes | str, message: str) -> None:
    """Every refusal names line and column and says what was found."""
    assert message_of(text) == message


def test_half_a_character_escaped_is_refused() -> None:
    r"""JSON's `\ud800` alone would fail later, where it is written to disk."""
    assert "line 1" in message_of('{"a": "\\ud800"}')
    assert parse('{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


def test_a_text_over_its_limit_is_refused() -> None:
    """The limit counts bytes of UTF-8, however the text was given."""
    assert parse("é" * 5, max_bytes=10) == "é" * 5
    assert message_of("é" * 5, max_bytes=9) == "the document has 10 bytes; at most 9 are allowed"
    assert message_of(b"12345", max_bytes=4) == "the document has 5 bytes; at most 4 are allowed"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_bounded_in_json_as_in_yaml(opening: str, closing: str) -> None:
    """The deepest document allowed is read, one level more is not."""
    filling = "1" if closing == "}" else ""
    parse(opening * MAX_DEPTH + filling + closing * MAX_DEPTH)
    deeper = opening * (MAX_DEPTH + 1) + filling + closing * (MAX_DEPTH + 1)
    assert "more than 32" in message_of(deeper)
    assert "more than 32" in message_of("# YAML\n" + deeper)


@pytest.mark.parametrize(
    "piece",
    ["[", "{", "- ", "? ", "-\n", "a: b\n", "[],", "[a,", "{a: [], ", '"a" ', "'", "#", "!", "&", ":", "é", "|"],
)
def test_no_text_of_the_allowed_length_takes_long(piece: str) -> None:
    """64 KiB of anything are read or refused in a fraction of a second."""
    begin = time.process_time()
    with contextlib.suppress(ConfigurationError):
        parse("# YAML\n" + piece * (65_000 // len(piece.encode())))
    assert time.process_time() - begin < 1


@given(st.text() | st.binary() | st.text(alphabet="[]{}:,-?&*!|>'\"%@`# \n\tab1\\u0"))
def test_no_text_gives_another_error(text: bytes | str) -> None:
    """Whatever arrives is a document or one problem."""
    try:
        parse(text, max_bytes=65_536)
    except ConfigurationError as error:
        assert len(error.problems) == 1  # noqa: PT017


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")), inner)
    ),
    max_leaves=20,
)


@given(plain)
def test_every_json_document_is_read_as_it_is(value: object) -> None:
    """JSON is YAML, with its characters escaped or not."""
    assert parse(json.dumps([value])) == [value]
    assert parse(json.dumps({"a": value}, ensure_ascii=False).encode()) == {"a": value}


class Tls(Section):
    """A section inside another."""

    ca: str | None = None


class Files(Section):
    """One kind of bridge."""

    type: Literal["files"]
    path: str
    tls: Tls = Tls()


class Mqtt(Section):
    """Another kind of bridge."""

    type: Literal["mqtt"]
    qos: Annotated[int, Field(ge=0, le=1)] = 1


class Settings(Section):
    """The kinds of thing a configuration holds."""

    id: Name = "a"
    window: Annotated[int, Field(alias="step", gt=0)] = 1
    password: str | None = None
    missing: Literal["reject", "hold"] | float = "reject"
    low: float = 0.0
    high: float = 1.0
    fields: Mapping[str, Tls] = {}
    bridges: Annotated[
        tuple[Annotated[Files | Mqtt, Field(discriminator="type")], ...], Field(strict=False, max_length=4)
    ] = ()

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterable[Flaw]:
        """Refuse an empty interval."""
        if data.get("low") == data.get("high", 1.0):
            return [Flaw(("low",), "low and high are equal")]
        return []


def problems(data: object) -> list[str]:
    """Return every problem of `data` as a line."""
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(data)
    return [str(problem) for problem in problems_of(caught.value)]


def test_all_problems_are_reported_at_once_in_the_order_of_the_document() -> None:
    """Errors of keys, of inner sections and between keys do not hide one another."""
    assert problems({"low": 1.0, "stpe": 2, "id": "a b", "fields": {"x": {"ac": 1}}, "step": 0}) == [
        "low: low and high are equal",
        'stpe: unknown key; did you mean "step"? known keys: id, step, password, missing, low, high, fields, bridges',
        'id: found "a b", expected 1 to 64 of the letters A-Z and a-z, digits, _ and -',
        "fields.x.ac: unknown key; known keys: ca",
        "step: found 0, expected a number greater than 0",
    ]


def test_paths_do_not_show_a_unions_tags() -> None:
    """The tag that chose a bridge's model is not part of the path, even where a key has the same name."""
    bridges = [
        {"type": "files", "paht": "x"},
        {"type": "mqtt", "qos": 2},
        {"type": "fiels"},
        {"path": "x"},
    ]
    assert problems({"bridges": bridges}) == [
        'bridges[0].paht: unknown key; did you mean "path"? known keys: type, path, tls',
        "bridges[0].path: this key is required",
        "bridges[1].qos: found 2, expected a number of at most 1",
        'bridges[2]: found "fiels", expected type to be one of files, mqtt',
        "bridges[3]: the key type is required",
    ]
    assert problems({"bridges": [{"type": "files", "path": "x", "tls": {"ca": 1}}]}) == [
        "bridges[0].tls.ca: found 1, expected text (put it in quotes)"
    ]
    assert problems({"bridges": [{"type": "mqtt"}] * 5}) == ["bridges: found 5, expected 4 or fewer entries"]


def test_a_choice_of_types_is_one_problem() -> None:
    """A value that fits no branch of a union is reported once, with all that would do."""
    assert problems({"missing": "drop"}) == ['missing: found "drop", expected reject or hold or a number']


def test_values_are_shown_as_written_and_short() -> None:
    """What was found is shown in the document's words; what may be secret is not shown."""
    assert problems(None) == ["found null, expected a mapping"]
    assert problems({"low": float("nan")}) == ["low: found nan, expected a finite number"]
    assert problems({"low": [1]}) == ["low: found a list, expected a number"]
    assert problems({"low": "x" * 100}) == [f'low: found "{"x" * 55} …, expected a number']
    assert problems({"password": 12345678}) == ["password: found another value, expected text (put it in quotes)"]


def test_errors_of_other_models_are_told_too() -> None:
    """A model that is no Section still gives paths and sentences."""

    class Other(BaseModel):
        numbers: list[int]

    with pytest.raises(ValidationError) as caught:
        Other.model_validate({"numbers": [1, "a"]})
    (problem,) = problems_of(caught.value)
    assert problem.path == "numbers[1]"
    assert "integer" in problem.message


durations: TypeAdapter[int] = TypeAdapter(Duration)
positives: TypeAdapter[int] = TypeAdapter(PositiveDuration)
sizes: TypeAdapter[int] = TypeAdapter(ByteSize)


@pytest.mark.parametrize(
    ("written", "nanoseconds"),
    [
        ("500ms", NS // 2),
        ("10s", 10 * NS),
        ("5m", 300 * NS),
        ("2h", 7200 * NS),
        ("7d", 604_800 * NS),
        ("0ms", 0),
        ("0s", 0),
        (0, 0),
        ("0", 0),
    ],
)
def test_durations_become_nanoseconds(written: object, nanoseconds: int) -> None:
    """A number with its unit, or a bare 0."""
    assert durations.validate_python(written) == nanoseconds


@pytest.mark.parametrize(
    "written", ["10", 10, 1.5, "1.5h", "-1s", "1 s", "1S", "1s\n", "s", "", None, True, False, "1w"]
)
def test_other_durations_are_refused(written: object) -> None:
    """A number without unit could mean anything."""
    with pytest.raises(ValidationError, match="expected a duration with its unit"):
        durations.validate_python(written)


def test_durations_are_bounded() -> None:
    """Nothing overflows 64 bits; where a duration must not be 0, it says so."""
    assert durations.validate_python("36500d") < 2**63
    with pytest.raises(ValidationError, match="at most 36500d"):
        durations.validate_python("36501d")
    with pytest.raises(ValidationError, match="duration of 0"):
        positives.validate_python("0s")


@given(st.integers(0, 36_500 * 86_400_000))
def test_durations_are_written_as_they_are_read(milliseconds: int) -> None:
    """The written form of a duration reads back as itself."""
    assert durations.validate_python(duration_text(milliseconds * 1_000_000)) == milliseconds * 1_000_000


@pytest.mark.parametrize(
    ("written", "size"), [("64KiB", 65_536), ("1MiB", 2**20), ("1GiB", 2**30), ("7B", 7), (123, 123), (0, 0)]
)
def test_sizes_become_bytes(written: object, size: int) -> None:
    """A number with a binary unit, or bytes."""
    assert sizes.validate_python(written) == size


@pytest.mark.parametrize("written", ["64KB", "64k", "1.5MiB", -1, True, None, "1 MiB", 1.0])
def test_other_sizes_are_refused(written: object) -> None:
    """A unit that is read in two ways is not guessed."""
    with pytest.raises(ValidationError, match="expected a size in bytes"):
        sizes.validate_python(written)


def test_sizes_are_bounded() -> None:
    """Every size fits 64 bits with room for sums."""
    assert sizes.validate_python("1048576TiB") == 2**60
    for written in ("1048577TiB", 2**60 + 1):
        with pytest.raises(ValidationError, match="at most 1048576TiB"):
            sizes.validate_python(written)


@settings(max_examples=50)
@given(st.integers(0, 2**60))
def test_sizes_are_written_as_they_are_read(size: int) -> None:
    """The written form of a size reads back as itself."""
    assert sizes.validate_python(size_text(size)) == size

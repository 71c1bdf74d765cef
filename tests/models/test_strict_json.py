"""Files from outside, key by key and type by type: whatever is in them, an error names the place."""

import json
import math
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import strict_json
from models.strict_json import SchemaError, Version


@dataclass(frozen=True)
class Circle:
    radius: float
    kind: Literal["circle"] = "circle"


@dataclass(frozen=True)
class Square:
    side: int
    kind: Literal["square"] = "square"

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"side {self.side} must be positive")


@dataclass(frozen=True)
class Drawing:
    title: str
    shapes: tuple[Circle | Square, ...]
    sizes: dict[str, int]
    scale: float | None = None
    framed: bool = False


DRAWING = Drawing("two", (Circle(0.5), Square(2)), {"a": 1}, None, True)

drawings = st.builds(
    Drawing,
    st.text(),
    st.lists(
        st.builds(Circle, st.floats(allow_nan=False, allow_infinity=False)) | st.builds(Square, st.integers(1))
    ).map(tuple),
    st.dictionaries(st.text(), st.integers()),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["kind", "title", "shapes"]), inner),
    max_leaves=10,
)


def read(**changed: object) -> Drawing:
    """The drawing with some of its keys changed; `...` leaves one out."""
    data = {**strict_json.encode(DRAWING), **changed}
    text = json.dumps({key: value for key, value in data.items() if value is not ...})
    return strict_json.loads(Drawing, text, "drawing.json")


@given(drawings)
def test_what_is_written_is_read_back(drawing: Drawing) -> None:
    assert strict_json.loads(Drawing, strict_json.dumps(drawing), "drawing.json") == drawing


def test_what_has_a_default_may_be_left_out() -> None:
    assert read(scale=..., framed=...) == Drawing("two", DRAWING.shapes, {"a": 1}, None, False)


def test_a_whole_number_stands_for_a_float() -> None:
    scale = read(scale=3).scale
    assert scale == 3.0 and isinstance(scale, float)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"colour": 1, "age": 2}, "drawing.json has unknown keys age, colour; known are title, shapes, sizes"),
        ({"title": ..., "sizes": ...}, "drawing.json lacks title, sizes"),
        ({"title": 5}, r"drawing.json.title is 5, expected str"),
        ({"title": None}, r"drawing.json.title is None, expected str"),
        ({"framed": 1}, r"drawing.json.framed is 1, expected bool"),
        ({"scale": "1"}, r"drawing.json.scale is '1', expected float"),
        ({"scale": True}, r"drawing.json.scale is True, expected float"),
        ({"scale": 10**400}, r"drawing.json.scale is an integer of 401 digits"),
        ({"sizes": {"a": 1.5}}, r"drawing.json.sizes.a is 1.5, expected int"),
        ({"sizes": {"a": True}}, r"drawing.json.sizes.a is True, expected int"),
        ({"sizes": [1]}, r"drawing.json.sizes is \[1\], expected an object"),
        ({"shapes": {}}, r"drawing.json.shapes is \{\}, expected a list"),
        ({"shapes": [5]}, r"drawing.json.shapes\[0\] is 5, expected an object"),
        ({"shapes": [{"side": 1}]}, r"shapes\[0\].kind is None, expected one of 'circle', 'square'"),
        ({"shapes": [{"kind": []}]}, r"shapes\[0\].kind is \[\], expected one of"),
        ({"shapes": [{"kind": "square", "side": 0}]}, r"drawing.json.shapes\[0\]: side 0 must be positive"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(changed: dict[str, object], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        read(**changed)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    with pytest.raises(SchemaError, match=r"circle.json.radius is .*, expected a finite number"):
        strict_json.loads(Circle, f'{{"radius": {number}}}', "circle.json")


@pytest.mark.parametrize("radius", [math.nan, math.inf])
def test_numbers_that_are_none_are_not_written(radius: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json.dumps(Circle(radius))


@pytest.mark.parametrize("text", ["", "{", "{'radius': 1}", "[" * 100_000, "9" * 5000])
def test_what_is_no_json_is_said_to_be_none(text: str) -> None:
    with pytest.raises(SchemaError, match=r"circle.json is not JSON"):
        strict_json.loads(Circle, text, "circle.json")


@given(anything)
def test_whatever_a_file_holds_it_fits_or_is_a_schema_error(data: object) -> None:
    text = json.dumps(data)
    try:
        strict_json.loads(Drawing, text, "drawing.json")
    except SchemaError as error:
        assert "drawing.json" in str(error)


def test_another_version_is_told_the_way_out_before_its_new_keys_are_blamed() -> None:
    version = Version(1, "run `upgrade`")
    later = '{"schema_version": 2, "invented": true}'
    with pytest.raises(SchemaError, match=r"circle.json: schema_version 2 is not 1, .*; run `upgrade`"):
        strict_json.loads(Circle, later, "circle.json", version=version)

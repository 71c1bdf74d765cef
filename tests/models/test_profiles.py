"""profiles.json: what is known about leaving early, and nothing that cannot be."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.policy import MEASURES
from models.profiles import PROFILE_NAMES, ExitProfile, OperatingPoint, Profiles, Split, check_thresholds
from models.strict_json import SchemaError

shares = st.floats(0, 1)
costs = st.floats(0, 100)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)


@st.composite
def profiles(draw: st.DrawFn) -> Profiles:
    exits = draw(st.integers(1, 5))
    points = st.builds(
        OperatingPoint,
        thresholds=st.tuples(*[st.none() | shares] * (exits - 1)),
        top1=shares,
        mean_gmacs=costs,
        exit_shares=st.none() | st.tuples(*[shares] * exits),
    )
    return Profiles(
        weights_sha256=draw(hashes),
        config_sha256=draw(hashes),
        confidence=draw(st.sampled_from(MEASURES)),
        exits=draw(st.tuples(*[st.builds(ExitProfile, st.integers(1, 20), costs, shares, st.floats(0.1, 5))] * exits)),
        splits=tuple(draw(st.lists(st.builds(Split, st.text(), st.integers(0), hashes), max_size=3))),
        frontier=tuple(draw(st.lists(points, max_size=5))),
        named={name: draw(points) for name in (*PROFILE_NAMES, *draw(st.lists(st.text(), max_size=2)))},
        static_gmacs=draw(st.none() | costs),
    )


def two_exits(point: OperatingPoint | None = None) -> Profiles:
    point = point or OperatingPoint((0.5,), 0.9, 0.2, (0.7, 0.3))
    named = dict.fromkeys(PROFILE_NAMES, point)
    exits = (ExitProfile(7, 0.1, 0.8), ExitProfile(14, 0.4, 0.9))
    return Profiles("a" * 64, "b" * 64, "max_softmax", exits, (), (point,), named)


@given(profiles())
def test_what_is_written_is_read_back(value: Profiles) -> None:
    assert Profiles.from_json(value.to_json()) == value


def test_never_is_null() -> None:
    text = two_exits(OperatingPoint((None,), 0.9, 0.4, None)).to_json()
    assert json.loads(text)["frontier"][0]["thresholds"] == [None]


@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_a_missing_named_profile_is_named(name: str) -> None:
    named = {other: point for other, point in two_exits().named.items() if other != name}
    with pytest.raises(ValueError, match=f"named lacks {name}"):
        replace(two_exits(), named=named)


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="thresholds has 2 entries, this cascade of 2 exits needs 1"):
        two_exits(OperatingPoint((0.5, 0.5), 0.9, 0.2, None))
    with pytest.raises(ValueError, match="thresholds has 0 entries, this cascade of 2 exits needs 1"):
        two_exits(OperatingPoint((), 0.9, 0.2, None))
    with pytest.raises(ValueError, match="exit_shares has 3 entries for 2 exits"):
        two_exits(OperatingPoint((0.5,), 0.9, 0.2, (0.5, 0.3, 0.2)))


@pytest.mark.parametrize("threshold", [-0.1, 1.1, 1e8, float("nan"), float("inf")])
def test_thresholds_outside_0_to_1_are_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"the threshold of exit 2 is .*, it must lie in 0..1, or be null for never"):
        check_thresholds((None, threshold), exits=3)


@given(st.lists(st.none() | shares, max_size=6))
def test_thresholds_in_0_to_1_or_never_are_taken(thresholds: list[float | None]) -> None:
    check_thresholds(tuple(thresholds), exits=len(thresholds) + 1)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (lambda: OperatingPoint((0.5,), 94.6, 0.2, None), "top1 is 94.6, it must lie in 0..1"),
        (lambda: OperatingPoint((0.5,), 0.9, -0.2, None), "mean_gmacs is -0.2"),
        (lambda: OperatingPoint((0.5,), 0.9, 0.2, (1.5, -0.5)), "an exit share is 1.5"),
        (lambda: ExitProfile(7, 0.1, -0.01), "top1 is -0.01"),
        (lambda: ExitProfile(7, -0.1, 0.9), "gmacs -0.1 must not be below 0"),
        (lambda: ExitProfile(7, 0.1, 0.9, temperature=0.0), "temperature 0.0 must be above 0"),
    ],
)
def test_numbers_outside_their_range_are_refused(point: object, message: str) -> None:
    assert callable(point)
    with pytest.raises(ValueError, match=message):
        point()


def test_another_schema_version_names_the_command_that_helps() -> None:
    later = {**json.loads(two_exits().to_json()), "schema_version": 7, "invented": 1}
    with pytest.raises(SchemaError, match=r"profiles.json: schema_version 7 is not 1, .*`dvt profile`"):
        Profiles.from_json(json.dumps(later))


def test_an_unknown_confidence_measure_is_refused() -> None:
    data = {**json.loads(two_exits().to_json()), "confidence": "vibes"}
    with pytest.raises(SchemaError, match=r"profiles.json.confidence is 'vibes', expected one of 'max_softmax'"):
        Profiles.from_json(json.dumps(data))

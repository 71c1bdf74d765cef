"""Costs for a plan are read strictly: what no device can have is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.result_files import RESULTS
from service.planner.costs import DeviceCosts, read_costs

GOOD = {"batch_s": [{"1": 0.01, "4": 0.03}], "lanes": 1, "max_batch": 4}


def written(tmp_path: Path, document: object) -> Path:
    file = tmp_path / "costs.json"
    file.write_text(json.dumps(document))
    return file


def test_any_file_that_has_the_keys_will_do(tmp_path: Path) -> None:
    expected = DeviceCosts(({"1": 0.01, "4": 0.03},), 1, 4)
    assert read_costs(written(tmp_path, GOOD)) == expected
    assert read_costs(written(tmp_path, {**GOOD, "runs": [1, 2]})) == expected


def test_the_kept_result_of_the_simulated_load_is_such_a_file() -> None:
    costs = read_costs(RESULTS / "auto-simulation-imagenette-hybrid.json")
    assert costs.stages == 3


def test_between_two_sizes_costs_lie_on_a_line(tmp_path: Path) -> None:
    costs = read_costs(written(tmp_path, GOOD)).stage_costs(1, 1)
    assert costs.seconds(1, 2) == pytest.approx(0.01 + 0.02 / 3)


def test_what_an_image_costs_beyond_the_stages_is_the_first_ones() -> None:
    costs = DeviceCosts(({"1": 0.01, "4": 0.03}, {"1": 0.02}), 1, 4).with_front(0.001)
    assert costs.batch_s[0] == pytest.approx({"1": 0.011, "4": 0.034})
    assert costs.batch_s[1] == {"1": 0.02}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batch_s": []}, "at least one stage"),
        ({"batch_s": [{}]}, "stage 1 holds nothing"),
        ({"batch_s": [{"1": 0.0}]}, "above 0"),
        ({"batch_s": [{"1": -1.0}]}, "above 0"),
        ({"batch_s": [{"zero": 1.0}]}, "batch sizes of 1 or more"),
        ({"batch_s": [{"0": 1.0}]}, "batch sizes of 1 or more"),
        ({"batch_s": [{"²": 1.0}]}, "batch sizes of 1 or more"),
        ({"batch_s": [{"1": "fast"}]}, "expected float"),
        ({"lanes": 0}, "must be 1 or more"),
        ({"max_batch": True}, "expected int"),
    ],
)
def test_what_no_device_can_have_is_refused(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        read_costs(written(tmp_path, GOOD | change))


@pytest.mark.parametrize("text", ["", "[1]", '{"lanes": 1}', "nonsense"])
def test_a_file_of_something_else_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json"):
        read_costs(file)

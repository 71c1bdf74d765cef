"""`dvt bench cache`: popularity by Zipf's law, and a whole small run against servers of our own."""

import json
from collections import Counter
from pathlib import Path

import pytest

import dvt
from benchmarks.command_cache import zipf


def test_popularity_follows_zipfs_law_and_is_the_same_for_the_same_seed() -> None:
    asked = Counter(zipf(100, 100_000, seed=0))
    assert asked[0] / asked[1] == pytest.approx(2, rel=0.05)
    assert asked[0] / asked[9] == pytest.approx(10, rel=0.1)
    assert zipf(100, 50, seed=1) == zipf(100, 50, seed=1) != zipf(100, 50, seed=2)


@pytest.mark.slow
def test_a_small_run_answers_everybody_at_the_same_exits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--images", "5", "--requests", "60", "--clients", "2", "--results", str(tmp_path), "--json")
    assert dvt.main(["bench", "cache", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["repeats"] == pytest.approx(1 - 5 / 60)
    for name in ("computed", "cached"):
        assert (document[name]["requests"], document[name]["errors"]) == (60, {})
    assert document["computed"]["exit_shares"] == document["cached"]["exit_shares"]

"""`python -m deploy.ray_serve`: what its words mean, and what is told of those that mean nothing. No Ray."""

import pytest

from benchmarks import ray_scripted
from deploy.ray_serve.__main__ import main, read
from deploy.ray_serve.options import Scale, StagesOptions


def test_words_are_the_options_of_the_builder() -> None:
    builder, options = read("benchmarks.ray_scripted:stages", ["stages=1,2-4", "cpus=0.5"])
    assert builder is ray_scripted.stages
    assert options == StagesOptions(stages=(Scale(1, 1), Scale(2, 4)), cpus=0.5)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["benchmarks.ray_scripted:stages", "stages=4-2"], "stages: '4-2' replicas: the first number"),
        (["benchmarks.ray_scripted:stages", "stage=1"], "stage: Extra inputs are not permitted"),
        (["benchmarks.ray_scripted:stages", "cpus"], "cpus: Input should be a valid number"),
        (["benchmarks.ray_scripted:nothing"], "has no attribute 'nothing'"),
        (["benchmarks.nothing:stages"], "No module named 'benchmarks.nothing'"),
        (["benchmarks.ray_scripted"], "write MODULE:FUNCTION"),
        (["benchmarks.ray_scripted:picture"], "benchmarks.ray_scripted:picture builds no application"),
    ],
)
def test_what_means_nothing_is_told_in_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1

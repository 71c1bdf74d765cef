"""How many replicas: numbers that mean something, and what is told of those that do not."""

import pytest
from pydantic import ValidationError

from deploy.ray_serve.options import ReplicasOptions, Scale, StagesOptions, parse_scale


@pytest.mark.parametrize(("text", "scale"), [("2", Scale(2, 2)), (3, Scale(3, 3)), (" 1-8 ", Scale(1, 8))])
def test_one_number_is_fixed_and_two_are_bounds(text: object, scale: Scale) -> None:
    assert parse_scale(text) == scale
    assert scale.is_fixed == (scale.least == scale.most)


@pytest.mark.parametrize("text", ["0", "4-2", "two", "", "1-2-3", "-1", "99999", None])
def test_what_is_no_number_of_replicas_is_refused_with_what_would_be_one(text: object) -> None:
    with pytest.raises(ValidationError, match="replicas"):
        ReplicasOptions.model_validate({"replicas": text})


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        ReplicasOptions.model_validate({"replica": "2"})


def test_stages_have_a_number_each_or_one_for_all() -> None:
    assert StagesOptions.model_validate({"stages": "1,2,1-4"}).scales(3) == (Scale(1, 1), Scale(2, 2), Scale(1, 4))
    assert StagesOptions.model_validate({"stages": ["1", 2]}).scales(2) == (Scale(1, 1), Scale(2, 2))
    assert StagesOptions.model_validate({"stages": "2"}).scales(3) == (Scale(2, 2),) * 3
    with pytest.raises(ValueError, match="2 numbers of replicas, the bundle has 3 stages"):
        StagesOptions.model_validate({"stages": "1,2"}).scales(3)

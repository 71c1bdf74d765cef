"""Numbers on the command line are checked before anything is read or computed."""

import pytest

import dvt


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("train", "--recipe", "cifar10_micro", "--batch", "0"), "0 is too small, it must be 1 or more"),
        (("train", "--recipe", "cifar10_micro", "--epochs", "-3"), "-3 is too small, it must be 1 or more"),
        (("train", "--recipe", "cifar10_micro", "--seed", "-1"), "-1 is too small, it must be 0 or more"),
        (("eval", "bundle", "--data", "images", "--limit", "many"), "'many' is not a whole number"),
        (("profile", "bundle", "--data", "images", "--batch", "0"), "0 is too small, it must be 1 or more"),
    ],
)
def test_a_number_that_cannot_be_meant_is_named(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        dvt.main(arguments)
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err

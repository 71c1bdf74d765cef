"""Numbers on the command line are checked before anything is read or computed."""

import pytest

import dvt


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--batch", "0"), "0 is too small, it must be 1 or more"),
        (("--epochs", "-3"), "-3 is too small, it must be 1 or more"),
        (("--seed", "-1"), "-1 is too small, it must be 0 or more"),
        (("--limit", "many"), "'many' is not a whole number"),
    ],
)
def test_a_number_that_cannot_be_meant_is_named(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        dvt.main(["train", "--recipe", "cifar10_micro", *arguments])
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err

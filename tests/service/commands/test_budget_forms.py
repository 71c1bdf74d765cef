import argparse
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvt_client import BudgetForm
from service.commands.budget import add_budget
from service.commands.budget_run import flags_of, form_of
from tests.service.cascades import small_profiles


def typed(words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_budget(parser)
    return parser.parse_args(["set", *shlex.split(words)])


@pytest.mark.parametrize(
    ("words", "form"),
    [
        ("--profile fast", {"profile": "fast"}),
        ("--thresholds 0.9,null", {"thresholds": (0.9, None)}),
        ("--gmacs 0.2 --ceiling accurate", {"gmacs": 0.2, "ceiling": "accurate"}),
        ("--latency-ms 8 --quantile .95", {"latency_ms": 8.0, "quantile": 0.95}),
        ("--max-disagreement 0.01", {"max_risk": {"disagreement": 0.01}}),
        ("--max-accuracy-drop 0.02", {"max_risk": {"accuracy_drop": 0.02}}),
        (
            "--auto-p99-ms 50 --floor fast --ceiling accurate",
            {"auto": {"p99_ms": 50.0, "floor": "fast", "ceiling": "accurate"}},
        ),
    ],
)
def test_every_form_of_a_budget_can_be_typed(words: str, form: BudgetForm) -> None:
    assert form_of(typed(words)) == form


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--gmacs 1 --quantile 0.5", "--quantile goes with --latency-ms"),
        ("--gmacs 1 --floor fast", "--floor goes with --auto-p99-ms"),
        ("--auto-p99-ms 50 --floor fast", "needs --floor and --ceiling"),
    ],
)
def test_what_does_not_go_together_is_told(words: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        form_of(typed(words))


@pytest.mark.parametrize("words", ["", "--gmacs 1 --profile fast", "--gmacs -1", "--thresholds 2", "--thresholds a,b"])
def test_misuse_is_argparses_to_tell(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        typed(words)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


NUMBERS = st.floats(1e-6, 1e6)
SHARES = st.floats(0, 1)
NAMES = st.sampled_from(sorted(small_profiles().named))
FORMS = st.one_of(
    st.fixed_dictionaries({"profile": NAMES}, optional={"ceiling": NAMES}),
    st.fixed_dictionaries({"thresholds": st.lists(st.none() | SHARES, min_size=1).map(tuple)}),
    st.fixed_dictionaries({"gmacs": NUMBERS}, optional={"ceiling": NAMES}),
    st.fixed_dictionaries({"latency_ms": NUMBERS}, optional={"quantile": SHARES}),
    st.fixed_dictionaries({"max_risk": st.fixed_dictionaries({"disagreement": SHARES})}),
    st.fixed_dictionaries({"max_risk": st.fixed_dictionaries({"accuracy_drop": SHARES})}),
    st.fixed_dictionaries({"auto": st.fixed_dictionaries({"p99_ms": NUMBERS, "floor": NAMES, "ceiling": NAMES})}),
)


@given(form=FORMS)
def test_a_budget_is_told_as_it_can_be_typed_to_the_last_digit(form: dict[str, object]) -> None:
    words = flags_of(form)
    assert words is not None
    assert form_of(typed(words)) == form

"""What an operator can ask for, and what it means: the best that was measured within it, or the nearest there is."""

import pytest

from models.profiles import Claim, Profiles
from service.engine.catalogue import BudgetRequest, Catalogue
from service.errors import BudgetNotMetError, InvalidParameterError
from tests.service.cascades import FakeBackend, certified_profiles, small_profiles

STAGE_SECONDS = (0.002, 0.003, 0.005)


def catalogue(profiles: Profiles | None = None, **options: object) -> Catalogue:
    options = {"backend": FakeBackend.name, **options}
    return Catalogue(3, profiles or certified_profiles(), stage_seconds=lambda: STAGE_SECONDS, **options)  # type: ignore[arg-type]  # passed on


@pytest.mark.parametrize(
    ("request_", "thresholds"),
    [
        (BudgetRequest(gmacs=0.15), (0.4, 0.4)),
        (BudgetRequest(gmacs=0.59), (0.8, 0.6)),
        (BudgetRequest(gmacs=100), (None, None)),
        # Half of the images leave at the first exit of every point, three quarters at the second.
        (BudgetRequest(latency_ms=2, quantile=0.5), (0.95, 0.9)),
        (BudgetRequest(latency_ms=5, quantile=0.75), (0.95, 0.9)),
        (BudgetRequest(latency_ms=10), (None, None)),
        (BudgetRequest(max_risk={"disagreement": 0.01}), (0.9, 0.8)),
        (BudgetRequest(max_risk={"disagreement": 0.04}), (0.9, 0.8)),
        (BudgetRequest(max_risk={"disagreement": 0.2}), (0.6, 0.5)),
        (BudgetRequest(max_risk={"accuracy_drop": 0.05}), (0.4, 0.4)),
    ],
    ids=str,
)
def test_the_best_point_within_what_is_asked_is_taken(
    request_: BudgetRequest, thresholds: tuple[float | None, ...]
) -> None:
    assert catalogue().resolve(request_).thresholds == thresholds


@pytest.mark.parametrize(
    ("request_", "nearest"),
    [
        (BudgetRequest(gmacs=0.14), {"gmacs": 0.15}),
        (BudgetRequest(latency_ms=1.9, quantile=0.5), {"latency_ms": 2.0, "quantile": 0.5}),
        (BudgetRequest(latency_ms=9.9), {"latency_ms": pytest.approx(10.0), "quantile": 0.95}),
        (BudgetRequest(max_risk={"disagreement": 0.005}), {"max_risk": {"disagreement": 0.01}}),
    ],
    ids=str,
)
def test_what_cannot_be_met_names_the_nearest_that_can(request_: BudgetRequest, nearest: dict[str, object]) -> None:
    with pytest.raises(BudgetNotMetError) as caught:
        catalogue().resolve(request_)
    assert caught.value.more == {"nearest": nearest}


@pytest.mark.parametrize(
    "request_",
    [
        BudgetRequest(),
        BudgetRequest(profile="fast", gmacs=1.0),
        BudgetRequest(gmacs=1.0, quantile=0.5),
        BudgetRequest(quantile=0.5),
        BudgetRequest(max_risk={}),
        BudgetRequest(max_risk={"disagreement": 0.1, "accuracy_drop": 0.1}),
        BudgetRequest(max_risk={"harm": 0.1}),
    ],
    ids=str,
)
def test_one_form_and_one_only(request_: BudgetRequest) -> None:
    with pytest.raises(InvalidParameterError):
        catalogue().resolve(request_)


def test_a_certificate_is_told_wherever_its_vector_is_used() -> None:
    by_profile = catalogue().resolve(BudgetRequest(profile="fast"))
    assert by_profile.certificate is not None
    assert by_profile.certificate.claim == Claim("accuracy_drop", 0.05)
    by_risk = catalogue().resolve(BudgetRequest(max_risk={"disagreement": 0.01}))
    by_vector = catalogue().resolve(BudgetRequest(thresholds=(0.9, 0.8)))
    assert by_risk.certificate == by_vector.certificate
    assert by_vector.measured == by_risk.measured
    assert by_vector.uncertified is None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"backend": "eager"}, "are for fake in float32"),
        ({"precision": "bfloat16"}, "are for fake in float32"),
        ({"profiles": small_profiles()}, "run `dvt certify`"),
    ],
    ids=str,
)
def test_without_a_certificate_of_its_own_a_service_has_none(options: dict[str, object], why: str) -> None:
    made = catalogue(**options)  # type: ignore[arg-type]  # passed on as they came
    resolved = made.resolve(BudgetRequest(profile="fast"))
    assert resolved.certificate is None
    assert resolved.uncertified is not None
    assert why in resolved.uncertified
    with pytest.raises(BudgetNotMetError, match="is not certified"):
        made.resolve(BudgetRequest(max_risk={"disagreement": 0.5}))


def test_other_vectors_say_that_nothing_is_certified_of_them() -> None:
    assert catalogue().resolve(BudgetRequest(thresholds=(0.1, 0.1))).uncertified is not None


@pytest.mark.parametrize("request_", [BudgetRequest(gmacs=1.0), BudgetRequest(latency_ms=100)], ids=str)
def test_a_bundle_that_was_never_profiled_has_no_frontier_to_choose_from(request_: BudgetRequest) -> None:
    bare = Catalogue(3, None, stage_seconds=lambda: STAGE_SECONDS)
    with pytest.raises(BudgetNotMetError, match="dvt profile"):
        bare.resolve(request_)

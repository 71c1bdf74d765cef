"""What an operator can ask for, and what it means: the best that was measured within it, or the nearest there is."""

from dataclasses import replace

import pytest

from models.profiles import Claim, Profiles
from service.engine.catalogue import AutoGoal, BudgetRequest, Catalogue
from service.errors import BudgetNotMetError, InvalidParameterError, UnknownProfileError
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
        (BudgetRequest(auto=AutoGoal(50, "fast", "accurate")), (0.95, 0.9)),
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
        # 99 % of images need all three stages, 10 ms; as much again is left to wait.
        (BudgetRequest(auto=AutoGoal(9, "fast", "full")), {"auto": {"p99_ms": 20, "floor": "fast", "ceiling": "full"}}),
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
        BudgetRequest(profile="fast", auto=AutoGoal(50, "fast", "full")),
        BudgetRequest(auto=AutoGoal(50, "fast", "full"), quantile=0.5),
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


def test_a_range_holds_the_frontier_from_floor_to_ceiling() -> None:
    points = catalogue().range_of(AutoGoal(50, "fast", "full"))
    assert [(point.profile, point.number) for point in points] == [
        ("fast", 0),
        ("balanced", 1),
        ("accurate", 2),
        ("full", 3),
    ]
    assert points[0].certificate is not None, "what is certified of a point is told with it"


def test_a_range_may_be_a_single_point() -> None:
    (point,) = catalogue().range_of(AutoGoal(50, "balanced", "balanced"))
    assert point.profile == "balanced"


def test_a_point_of_the_range_without_exit_shares_is_left_out_and_an_end_without_them_refused() -> None:
    profiles = small_profiles()
    unknown = replace(profiles.frontier[1], exit_shares=None)
    inner = replace(profiles, frontier=(profiles.frontier[0], unknown, *profiles.frontier[2:]))
    points = catalogue(inner).range_of(AutoGoal(50, "fast", "full"))
    assert [point.profile for point in points] == ["fast", "accurate", "full"]
    end = replace(profiles, named={**profiles.named, "fast": replace(profiles.named["fast"], exit_shares=None)})
    with pytest.raises(BudgetNotMetError, match="run `dvt profile`"):
        catalogue(end).range_of(AutoGoal(50, "fast", "full"))


@pytest.mark.parametrize(
    ("goal", "error", "says"),
    [
        (AutoGoal(50, "full", "fast"), InvalidParameterError, "swap them"),
        (AutoGoal(0, "fast", "full"), InvalidParameterError, "above 0"),
        (AutoGoal(float("nan"), "fast", "full"), InvalidParameterError, "above 0"),
        (AutoGoal(50, "turbo", "full"), UnknownProfileError, "this bundle has fast, balanced"),
        (AutoGoal(50, "fast", "turbo"), UnknownProfileError, "this bundle has fast, balanced"),
        (AutoGoal(9, "full", "full"), BudgetNotMetError, "cannot be held"),
    ],
    ids=str,
)
def test_a_range_that_makes_no_sense_says_why(goal: AutoGoal, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        catalogue().range_of(goal)

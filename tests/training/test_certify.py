"""Certificates: proved on images of their own, as cheap as can be proved, and saying what they are about."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dvt
from models.bundle import read_bundle, write_graphs, write_profiles
from models.dvt import load_bundle
from models.export import export_graphs
from models.profiles import DEFAULT_CLAIMS, RISKS, Claim, ClaimGrid, Profiles, Risk
from tests.training.synthetic_exits import CUMULATIVE_GMACS, logits_of_exits
from tests.training.tiny_bundle import TinyBundle, write_tiny_bundle
from training.certify import CertifyRun, ClaimOutcome, candidates, certify_bundle, check_claims, count_harmed, why_not
from training.probabilities import ExitProbabilities
from training.profile import profile_bundle
from training.risk import samples_needed
from training.splits import read_record
from training.thresholds import exhaustive_rule

COSTS = CUMULATIVE_GMACS[:3]
EPSILONS = (0.01, 0.05, 0.1)
CLAIMS = ClaimGrid(0.1, tuple(Claim(risk, epsilon) for risk in RISKS for epsilon in EPSILONS))


def drawn(seed: int, samples: int) -> ExitProbabilities:
    return ExitProbabilities.of(logits_of_exits(seed, samples), (2.0, 2.0, 2.0))


def true_risk(test: ClaimOutcome) -> float:
    """On images enough that chance plays no part."""
    assert test.thresholds is not None
    many = drawn(99, 40_000)
    unharmed = many.calibration_by_harm(COSTS, "max_softmax", test.claim.risk)
    return float(count_harmed(unharmed, test.thresholds[None])[0]) / len(many.targets)


@pytest.fixture(scope="module")
def tested() -> tuple[ClaimOutcome, ...]:
    return check_claims(drawn(0, 1_000), drawn(1, 3_000), COSTS, "max_softmax", CLAIMS, exhaustive_rule)


def test_each_claim_is_tested_and_what_is_certified_holds(tested: tuple[ClaimOutcome, ...]) -> None:
    assert [test.claim for test in tested] == list(CLAIMS.claims)
    for test in tested:
        assert 1 <= test.certified <= test.candidates
        assert true_risk(test) <= test.claim.epsilon


def test_who_allows_more_harm_gets_a_cheaper_vector(tested: tuple[ClaimOutcome, ...]) -> None:
    for risk in RISKS:
        certified = [test.certified for test in tested if test.claim.risk == risk]
        assert certified == sorted(certified)
        assert certified[-1] > max(1, certified[0])


def test_harm_to_the_label_is_disagreement_too(tested: tuple[ClaimOutcome, ...]) -> None:
    """Every lost label is a changed one, so that as much of it is found at the same vectors or more."""
    split = drawn(1, 3_000)
    by_risk = {
        risk: count_harmed(
            split.calibration_by_harm(COSTS, "max_softmax", risk),
            np.array([[0.5, 0.5], [0.9, 0.9], [np.inf, np.inf]]),
        )
        for risk in RISKS
    }
    assert (by_risk["disagreement"] >= by_risk["accuracy_drop"]).all()
    assert by_risk["disagreement"][-1] == by_risk["accuracy_drop"][-1] == 0


@pytest.mark.parametrize("risk", RISKS)
def test_candidates_go_from_never_leaving_to_the_cheapest(risk: Risk) -> None:
    split = drawn(0, 500)
    search = split.calibration_by_harm(COSTS, "max_softmax", risk)
    vectors = candidates(search, exhaustive_rule)
    assert np.isinf(vectors[0]).all()
    harmed = count_harmed(search, vectors)
    assert harmed[0] == 0
    assert (np.diff(harmed) >= 0).all()


def test_the_proof_does_not_see_what_chose_the_candidates() -> None:
    one, other = (
        check_claims(drawn(0, 500), drawn(seed, 300), COSTS, "max_softmax", CLAIMS, exhaustive_rule) for seed in (5, 6)
    )
    assert [test.candidates for test in one] == [test.candidates for test in other]
    assert [test.certified for test in one] != [test.certified for test in other]


def test_too_few_images_prove_nothing_and_say_how_many_would() -> None:
    claims = ClaimGrid(0.1, (Claim("disagreement", 0.01),))
    (test,) = check_claims(drawn(0, 500), drawn(1, 229), COSTS, "max_softmax", claims, exhaustive_rule)
    assert (test.certified, test.thresholds) == (0, None)
    assert why_not(test, claims, 229).startswith("230 images")


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    """With graphs, and claims so weak that six images can prove them."""
    tiny = write_tiny_bundle(tmp_path_factory.mktemp("tiny"))
    write_graphs(read_bundle(tiny.path), export_graphs(load_bundle(tiny.path)))
    profiles = profile_bundle(tiny.path, tiny.data).profiles
    assert profiles.claims == DEFAULT_CLAIMS
    claims = ClaimGrid(0.5, (Claim("disagreement", 0.3), Claim("accuracy_drop", 0.001)))
    write_profiles(read_bundle(tiny.path), replace(profiles, claims=claims))
    return tiny


@pytest.fixture(scope="module")
def run(profiled: TinyBundle) -> CertifyRun:
    return certify_bundle(profiled.path, profiled.data)


def written(tiny: TinyBundle) -> Profiles:
    profiles = read_bundle(tiny.path).profiles
    assert profiles is not None
    return profiles


def test_a_certificate_names_all_that_it_depends_on(run: CertifyRun, profiled: TinyBundle) -> None:
    record = read_record(profiled.path).certify
    (certificate,) = written(profiled).certificates
    assert written(profiled) == run.profiles
    assert certificate.claim == Claim("disagreement", 0.3)
    assert certificate.delta == 0.25
    assert (certificate.split.name, certificate.split.size) == ("certify", record.size)
    assert certificate.split.sha256 == record.sha256
    assert (certificate.backend, certificate.precision) == ("onnx", "float32")
    assert samples_needed(0.3, 0.25) <= record.size < samples_needed(0.001, 0.25)


def test_the_model_itself_is_certified_when_it_is_asked_for(profiled: TinyBundle, tmp_path: Path) -> None:
    shutil.copytree(profiled.path, tmp_path / "bundle")
    found = certify_bundle(tmp_path / "bundle", profiled.data, backend="eager")
    assert [each.backend for each in found.profiles.certificates] == ["eager"]


def test_the_model_card_tells_what_is_promised_once_and_until_thresholds_change(
    run: CertifyRun, profiled: TinyBundle, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(profiled.path, bundle)
    certify_bundle(bundle, profiled.data)
    card = (bundle / "README.md").read_text()
    assert card.startswith("Random weights, for tests.")
    assert card.count("## What is promised") == 1
    assert "| disagreement | 30.0% |" in card
    assert "accuracy drop |" not in card
    profile_bundle(bundle, profiled.data)
    assert (bundle / "README.md").read_text() == "Random weights, for tests.\n"
    profiles = read_bundle(bundle).profiles
    assert profiles is not None
    assert profiles.certificates == ()


def test_bounds_of_named_profiles_are_there_for_each_risk(run: CertifyRun) -> None:
    assert {(bound.profile, bound.risk) for bound in run.bounds} == {
        (name, risk) for name in run.profiles.named for risk in RISKS
    }
    full = {bound.harmed for bound in run.bounds if bound.profile == "full"}
    assert full == {0}
    assert all(bound.harmed / run.samples <= bound.upper <= 1 for bound in run.bounds)


def test_the_command_tells_what_was_proved_and_what_was_not(
    profiled: TinyBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(profiled.path, tmp_path / "bundle")
    assert dvt.main(["certify", str(tmp_path / "bundle"), "--data", str(profiled.data)]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "disagreement" in shown
    assert "images without one harmed" in shown
    assert "pointwise" in shown


def test_a_bundle_that_was_never_profiled_is_told_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = write_tiny_bundle(tmp_path)
    assert dvt.main(["certify", str(tiny.path), "--data", str(tiny.data)]) == 2
    assert "run `dvt profile` on it first" in capsys.readouterr().err

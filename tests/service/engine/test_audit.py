"""The audit: evidence that outlives restarts and other processes, and what follows when a certificate breaks."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice, repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.profiles import Certificate, Profiles
from service.engine.audit import Audit, audit_places, places_within
from service.engine.audit_file import FILE, AuditRecord, Evidence
from service.engine.budget import AUDIT, Budget
from service.engine.catalogue import BudgetRequest, Catalogue
from service.engine.draws import Found, Lottery
from service.engine.evidence import ALPHA
from service.errors import BudgetNotMetError
from service.metrics import Metrics
from service.types import Thresholds
from tests.service.cascades import FakeBackend, certified_profiles, quiet_log

ONE_PERCENT, FIVE_PERCENT, DROP = certified_profiles().certificates
ROOT = Path(__file__).parents[3]
# A process that audits as fast as it can, and writes what it has kept to a file of its own.
AUDITS = """
import os, sys
from pathlib import Path
from tests.service.engine.test_audit import FIVE_PERCENT, Bench
folder = Path(sys.argv[1])
made = Bench(folder)
told = os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while True:
    made.images("agreed")
    os.write(told, f"{made.of(FIVE_PERCENT).samples}\\n".encode())
"""
AT_5 = BudgetRequest(max_risk={"disagreement": 0.05})
AT_1 = BudgetRequest(max_risk={"disagreement": 0.01})


class Bench:
    """An audit of a budget in a folder; every image that is offered is drawn."""

    def __init__(
        self, folder: Path, *, fall_back: bool = True, bundle: str = "bundle", profiles: Profiles | None = None
    ) -> None:
        catalogue = Catalogue(3, profiles or certified_profiles(), backend=FakeBackend.name)
        self.record = AuditRecord(folder, bundle, catalogue.made_here, quiet_log())
        self.budget = Budget(
            replace(catalogue, withdrawn=self.record.broken),
            bundle=bundle,
            first_profile="balanced",
            ceiling="",
            folder=folder,
            log=quiet_log(),
        )
        self.metrics = Metrics("fake", "0", 3)
        self.lottery = Lottery(1.0, 1_000, lambda: None)
        self.audit = Audit(
            self.lottery, self.record, self.budget, fall_back=fall_back, metrics=self.metrics, log=quiet_log()
        )

    def images(self, *found: Found | None, by: Thresholds = FIVE_PERCENT.point.thresholds) -> None:
        """Images that left by these thresholds, and what was found of them."""
        for each in found:
            draw = self.audit.draw(by)
            assert draw is not None
            if each in ("agreed", "disagreed"):
                draw.left(0)
                draw.reached_last(0 if each == "agreed" else 1)
            draw.end(looked_at=each is not None)
        self.audit.settle()

    def of(self, certificate: Certificate) -> Evidence:
        return next(each for each in self.audit.evidence if each.certificate == certificate)


def half_wrong(images: int) -> Iterator[Found]:
    outcomes: tuple[Found, Found] = ("agreed", "disagreed")
    return islice(cycle(outcomes), images)


def test_only_disagreement_is_tested_and_only_by_images_that_left_by_those_thresholds(tmp_path: Path) -> None:
    made = Bench(tmp_path)
    made.images("agreed", "disagreed", "left_out", None)
    made.images("disagreed", by=(0.1, 0.2))
    made.images("disagreed", by=DROP.point.thresholds)
    assert [each.certificate for each in made.audit.evidence] == [ONE_PERCENT, FIVE_PERCENT]
    evidence = made.of(FIVE_PERCENT)
    assert (evidence.samples, evidence.seen, evidence.disagreed, evidence.left_out) == (3, 2, 1, 1)
    assert made.of(ONE_PERCENT).samples == 0
    text = made.metrics.render().decode()
    for found, times in (("agreed", 1), ("disagreed", 3), ("left_out", 1), ("skipped", 0)):
        assert f'dvt_audits_total{{found="{found}"}} {times}.0' in text


def test_one_that_is_left_out_never_counts_against_a_certificate(tmp_path: Path) -> None:
    made = Bench(tmp_path)
    made.images("disagreed")
    before = made.of(FIVE_PERCENT).wealth
    made.images("left_out")
    assert made.of(FIVE_PERCENT).wealth < before


@settings(max_examples=20)
@given(st.lists(st.sampled_from(("agreed", "disagreed", "left_out")), max_size=40), st.data())
def test_a_restart_at_any_moment_changes_nothing(found: list[Found], data: st.DataObject) -> None:
    with TemporaryDirectory() as whole, TemporaryDirectory() as cut:
        Bench(Path(whole)).images(*found)
        place = data.draw(st.integers(0, len(found)))
        Bench(Path(cut)).images(*found[:place])
        Bench(Path(cut)).images(*found[place:])
        again, straight = Bench(Path(cut)).of(FIVE_PERCENT), Bench(Path(whole)).of(FIVE_PERCENT)
        assert (again.stakes, again.wealth, again.samples) == (straight.stakes, straight.wealth, straight.samples)


def test_evidence_is_kept_while_another_budget_is_in_force(tmp_path: Path) -> None:
    made = Bench(tmp_path)
    made.budget.put(AT_5, by="me")
    made.images("disagreed")
    before = made.of(FIVE_PERCENT)
    made.budget.put(BudgetRequest(profile="full"), by="me")
    made.images("agreed", by=(None, None))
    made.budget.put(AT_5, by="me")
    assert made.of(FIVE_PERCENT) == before


def test_processes_that_share_a_folder_add_to_one_evidence(tmp_path: Path) -> None:
    one, other = Bench(tmp_path), Bench(tmp_path)
    one.images("disagreed", "agreed")
    other.images("disagreed")
    one.images("agreed")
    assert (one.of(FIVE_PERCENT).samples, one.of(FIVE_PERCENT).disagreed) == (4, 2)


def test_the_wealth_that_is_a_proof_breaks_the_certificate_for_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Bench(tmp_path)
    revision = made.budget.put(AT_5, by="me").revision
    with caplog.at_level(logging.WARNING, "dvt"):
        made.images(*half_wrong(40))
    evidence = made.of(FIVE_PERCENT)
    assert evidence.is_broken
    assert evidence.wealth >= 1 / ALPHA
    assert evidence.samples < 40, "once it is broken nothing is bet"
    assert "certificate broken: disagreement of at most 0.05" in caplog.text
    assert 'dvt_certificate_broken{epsilon="0.05",risk="disagreement"} 1.0' in made.metrics.render().decode()
    assert 'dvt_certificate_broken{epsilon="0.01",risk="disagreement"} 0.0' in made.metrics.render().decode()

    in_force = made.budget.in_force
    assert (in_force.revision, in_force.request) == (revision, AT_5)
    assert (in_force.point.profile, in_force.point.number) == ("balanced", 1)
    assert in_force.resolved.certificate is None
    assert "0.05" in (in_force.resolved.uncertified or "")
    last = made.budget.stored.history[-1]
    assert (last.revision, last.by, last.request) == (revision, AUDIT, AT_5)
    assert last.note is not None
    assert last.note.endswith("fell back to the profile 'balanced'")

    made.images(*half_wrong(40))
    assert len(made.budget.stored.history) == 3, "it is told once"


def test_without_the_setting_the_budget_stays_but_promises_nothing(tmp_path: Path) -> None:
    made = Bench(tmp_path, fall_back=False)
    made.budget.put(AT_5, by="me")
    made.images(*half_wrong(40))
    assert made.budget.in_force.point.thresholds == FIVE_PERCENT.point.thresholds
    assert made.budget.in_force.point.certificate is None
    assert made.budget.stored.history[-1].by == AUDIT


@pytest.mark.parametrize("fall_back", [True, False])
def test_after_a_restart_all_is_as_it_was(tmp_path: Path, fall_back: bool) -> None:
    made = Bench(tmp_path, fall_back=fall_back)
    made.budget.put(AT_5, by="me")
    made.images(*half_wrong(40))
    again = Bench(tmp_path, fall_back=fall_back)
    assert again.budget.in_force == made.budget.in_force
    assert again.budget.stored == made.budget.stored
    assert 'dvt_certificate_broken{epsilon="0.05",risk="disagreement"} 1.0' in again.metrics.render().decode()


def test_a_budget_that_was_asked_for_after_the_break_is_no_other_after_a_restart(tmp_path: Path) -> None:
    made = Bench(tmp_path)
    made.images(*half_wrong(40))
    put = made.budget.put(AT_5, by="me")
    assert put.point.certificate == ONE_PERCENT, "what is broken cannot be had, so the next that can"
    assert Bench(tmp_path).budget.in_force == put


def test_what_was_broken_cannot_be_asked_for_and_the_next_change_ends_the_fallback(tmp_path: Path) -> None:
    made = Bench(tmp_path)
    made.budget.put(AT_1, by="me")
    made.images(*half_wrong(40), by=ONE_PERCENT.point.thresholds)
    assert made.budget.in_force.point.profile == "accurate", "the cheapest by which no image leaves earlier"
    with pytest.raises(BudgetNotMetError, match=r"0\.05 is") as refused:
        made.budget.put(AT_1, by="me")
    assert refused.value.more == {"nearest": {"max_risk": {"disagreement": 0.05}}}
    put = made.budget.put(BudgetRequest(profile="fast"), by="me")
    assert (put.revision, put.point.profile, made.budget.stored.fallback) == (3, "fast", None)


def test_asking_again_for_what_a_fallback_stands_in_for_is_a_change(tmp_path: Path) -> None:
    profiles = certified_profiles()
    named = {**profiles.named, "fast": FIVE_PERCENT.point}
    made = Bench(tmp_path, profiles=replace(profiles, named=named))
    asked = BudgetRequest(profile="fast")
    made.budget.put(asked, by="me")
    made.images(*half_wrong(40))
    assert made.budget.in_force.point.profile == "balanced"
    put = made.budget.put(asked, by="me", if_revision=2)
    assert (put.revision, put.point.profile, put.point.certificate) == (3, "fast", None)
    assert made.budget.put(asked, by="me").revision == 3


def test_a_promise_that_another_certificate_still_keeps_is_no_reason_to_fall_back(tmp_path: Path) -> None:
    """The same thresholds are certified for 1 and for 5 %, and 5 % was asked for."""
    profiles = certified_profiles()
    tighter = replace(ONE_PERCENT, point=FIVE_PERCENT.point)
    profiles = replace(profiles, certificates=(tighter, FIVE_PERCENT))
    made = Bench(tmp_path, profiles=profiles)
    assert made.budget.put(AT_5, by="me").point.certificate == tighter
    agreed: Found = "agreed"
    for _ in range(12):
        made.images("disagreed", *repeat(agreed, 19))
    assert made.of(tighter).is_broken
    assert not made.of(FIVE_PERCENT).is_broken
    in_force = made.budget.in_force
    assert (in_force.instead, in_force.point.certificate) == (None, FIVE_PERCENT)


def test_a_certificate_that_is_not_in_force_breaks_without_a_switch(tmp_path: Path) -> None:
    made = Bench(tmp_path)
    before = made.budget.put(BudgetRequest(profile="fast"), by="me")
    made.images(*half_wrong(40))
    assert made.of(FIVE_PERCENT).is_broken
    assert made.budget.in_force == before


def test_what_ends_late_is_looked_at_in_its_turn(tmp_path: Path) -> None:
    made = Bench(tmp_path)
    slow = made.audit.draw(FIVE_PERCENT.point.thresholds)
    assert slow is not None
    made.images("agreed", "agreed")
    assert made.of(FIVE_PERCENT).samples == 0
    slow.reached_last(1)
    slow.end(looked_at=True)
    made.audit.settle()
    assert made.of(FIVE_PERCENT).samples == 3


def kill_at_random(folder: Path, times: int) -> None:
    chance = random.Random(0)
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", AUDITS, str(folder)], cwd=ROOT)
        told_file = folder / "told"
        while process.poll() is None and not (told_file.exists() and told_file.stat().st_size):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        told = int(told_file.read_text().splitlines()[-1])
        told_file.unlink()
        # What was told was written, and perhaps one more, which nobody was told of yet.
        assert Bench(folder).of(FIVE_PERCENT).samples in (told, told + 1)


def test_killed_at_any_moment_it_loses_nothing_that_it_has_told(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 3)


@pytest.mark.slow
def test_killed_at_100_moments_it_loses_nothing_that_it_has_told(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 100)


def test_another_replicas_budget_ends_the_fallback_and_brings_none(tmp_path: Path) -> None:
    made = Bench(tmp_path)
    made.budget.put(AT_5, by="me")
    made.images(*half_wrong(40))
    changed = made.budget.after(None, BudgetRequest(profile="fast"), by="ann")
    assert changed is not None
    assert made.budget.adopt(replace(changed, fallback="full"))
    assert (made.budget.in_force.point.profile, made.budget.stored.fallback) == ("fast", None)


def test_a_fallback_belongs_to_its_bundle(tmp_path: Path) -> None:
    made = Bench(tmp_path)
    made.budget.put(AT_5, by="me")
    made.images(*half_wrong(40))
    other = Bench(tmp_path, bundle="another").budget
    assert (other.in_force.instead, other.in_force.point.certificate) == (None, FIVE_PERCENT)
    assert other.stored.fallback is None


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_loses_no_evidence(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Bench(tmp_path)
    made.budget.put(AT_5, by="me")
    made.images("agreed")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fail)
        made.images(*half_wrong(40))
        assert made.of(FIVE_PERCENT).is_broken
        assert made.budget.in_force.point.profile == "balanced"
    assert Bench(tmp_path).of(FIVE_PERCENT).samples == 1, "the old content"
    made.images()
    assert Bench(tmp_path).of(FIVE_PERCENT) == made.of(FIVE_PERCENT)


def test_evidence_of_another_bundle_or_certificate_is_not_used(tmp_path: Path) -> None:
    Bench(tmp_path).images(*half_wrong(40))
    anew = replace(FIVE_PERCENT, harmed=5)
    profiles = replace(certified_profiles(), certificates=(ONE_PERCENT, anew))
    assert Bench(tmp_path, profiles=profiles).of(anew).samples == 0
    assert Bench(tmp_path).of(FIVE_PERCENT).is_broken, "that of the old one is kept for it"
    other = Bench(tmp_path, bundle="another")
    assert other.of(FIVE_PERCENT).samples == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"disagreed": 1', '"disagreed": 3'),
        lambda text: text.replace('"samples": 2', '"samples": -2'),
        lambda text: json.dumps({**json.loads(text), "evidence": [{}]}),
        lambda text: "\x00",
    ],
)
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    Bench(tmp_path).images("agreed", "disagreed")
    path = tmp_path / FILE
    path.write_text(damage(path.read_text()))
    again = Bench(tmp_path)
    assert again.of(FIVE_PERCENT).samples == 0
    again.images("agreed")
    assert Bench(tmp_path).of(FIVE_PERCENT).samples == 1


def test_the_lottery_draws_its_share_and_skips_when_every_place_is_taken() -> None:
    chances = cycle((0.0, 0.009, 0.01, 0.5))
    skipped: list[int] = []
    lottery = Lottery(0.01, 3, lambda: skipped.append(1), chance=lambda: next(chances))
    drawn = [lottery.draw((0.5,)) for _ in range(8)]
    assert [draw is not None for draw in drawn] == [True, True, False, False, True, False, False, False]
    assert (lottery.pending, len(skipped)) == (3, 1)
    for draw in drawn:
        if draw is not None:
            draw.end(looked_at=True)
    assert lottery.pending == 0
    assert lottery.draw((0.5,)) is not None


@given(st.integers(1, 1024), st.integers(1, 2048))
def test_audits_leave_room_for_an_image_and_images_for_an_audit(limit: int, fit: int) -> None:
    slots = min(limit + audit_places(limit), fit)
    places = min(audit_places(limit), places_within(slots))
    images = min(limit, slots - places)
    assert images >= 1
    assert places >= (1 if slots > 1 else 0)
    assert images + places <= slots
    assert images == limit or fit < limit + audit_places(limit)

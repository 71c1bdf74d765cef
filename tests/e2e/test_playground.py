"""The playground as its user sees it, in a real browser on a real service (`make verify`)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from scripts.browser import MISSING, find_browser, launch
from tests.e2e.playground import ROOT, bring, opened, overflow_px, photo, states, unseen
from tests.integration.processes import running

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_browser() is None, reason=MISSING)]

SHIPPED = ROOT / "checkpoints" / "imagenette-hybrid"
THROUGH_TWO = ["passed", "taken", "spared"]


@contextmanager
def serving(folder: Path, bundle: Path = SHIPPED, **variables: str) -> Iterator[str]:
    with running([ROOT / "dvt.py", "serve", bundle, "--port", "0"], folder, **variables) as (_, port, _):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, launch(playwright) as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("playground")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(folder) as url:
        yield url


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with opened(browser, url) as page:
        yield page


def answered(page: Page, label: str) -> None:
    expect(page.locator("#said")).to_contain_text(label)
    expect(page.locator("#answer-actions")).to_be_visible()


def test_a_dropped_photo_goes_through_the_exits_until_one_is_sure(page: Page) -> None:
    assert states(page) == ["waiting"] * 3
    bring(page, photo("garbage_truck"))
    answered(page, "garbage truck")
    assert states(page) == THROUGH_TWO
    expect(page.locator("#why")).to_contain_text("Left at exit 2 of 3: sure enough")
    expect(page.locator("#why")).to_contain_text("never computed")
    first, second, third = page.locator(".exit").all()
    expect(first.locator(".verdict")).to_have_text("Not sure enough, goes on")
    expect(first.locator(".top li")).to_have_count(5)
    expect(second.locator(".top li").first).to_contain_text("garbage truck")
    expect(second.locator(".cost")).to_contain_text("GMACs")
    expect(third.locator(".verdict")).to_have_text("Never computed")
    expect(third.locator(".top li")).to_have_count(0)
    assert [each.get_attribute("data-state") for each in page.locator(".segment").all()] == ["done", "done", "spared"]


def test_exits_light_up_one_after_another_while_the_stream_goes_on(browser: Browser, url: str) -> None:
    with opened(browser, url, reduced_motion="no-preference") as page:
        seen: list[list[str | None]] = []
        page.expose_function("noteStates", lambda states: seen.append(states))
        page.evaluate(
            """() => new MutationObserver(() => {
              noteStates([...document.querySelectorAll(".exit")].map((card) => card.dataset.state));
            }).observe(document.querySelector("#exits"), {subtree: true, attributeFilter: ["data-state"]})"""
        )
        bring(page, photo("garbage_truck"))
        answered(page, "garbage truck")
        order = [state for number, state in enumerate(seen) if number == 0 or state != seen[number - 1]]
        assert [state[0] for state in order][:1] == ["next"]
        assert ["passed", "next", "waiting"] in order
        assert order[-1] == THROUGH_TWO


def test_the_easy_and_the_harder_sample_leave_at_different_exits(page: Page) -> None:
    for sample, taken in (("church", 0), ("garbage truck", 1)):
        page.get_by_role("button", name=sample).click()
        answered(page, sample)
        assert states(page).index("taken") == taken


def test_a_photo_can_be_chosen_and_pasted(page: Page) -> None:
    page.get_by_label("Choose a photo").set_input_files(ROOT / "samples" / "golf_ball.jpg")
    answered(page, "golf ball")
    bring(page, photo("parachute"), kind="paste")
    answered(page, "parachute")


def test_a_broken_file_is_told_in_words_and_the_next_photo_is_fine(page: Page) -> None:
    bring(page, photo("church")[:5000], "half.jpg")
    fault = page.get_by_role("alert")
    expect(fault).to_contain_text("Corrupt image.")
    expect(fault).to_contain_text("check that the whole file was sent")
    bring(page, b"no image at all", "words.txt")
    expect(fault).to_contain_text("Unsupported image.")
    expect(fault).to_contain_text("it reads JPEG, PNG")
    assert "taken" not in states(page)
    bring(page, photo("church"))
    answered(page, "church")
    expect(fault).to_be_hidden()


def test_the_slider_tries_a_point_for_this_page_alone(page: Page, url: str) -> None:
    bring(page, photo("garbage_truck"))
    answered(page, "garbage truck")
    expect(page.locator("#budget-readouts")).to_contain_text("95.1 %")
    with page.expect_request(lambda request: "/classify?thresholds=" in request.url) as sent:
        page.get_by_role("button", name="fast").click()
    fast = [0.6007920503616333, 0.4042437970638275]
    (thresholds,) = parse_qs(urlsplit(sent.value.url).query)["thresholds"]
    assert [float(each) for each in thresholds.split(",")] == fast
    expect(page.locator("#why")).to_contain_text("Left at exit 1 of 3")
    expect(page.locator("#trying")).to_contain_text("Tried on this page only.")
    expect(page.locator("#budget-readouts")).to_contain_text("93.9 %")
    slider = page.get_by_label("Point of the frontier")
    with page.expect_request(lambda request: "/classify?thresholds=" in request.url) as sent:
        slider.press("End")
    assert parse_qs(urlsplit(sent.value.url).query)["thresholds"] == ["null,null"]
    assert "full 95.7" in (slider.get_attribute("aria-valuetext") or "")
    expect(page.locator("#why")).to_contain_text("all the way to exit 3 of 3")
    with page.expect_request(lambda request: request.url.endswith("/classify?")):
        page.get_by_role("button", name="Back to the service's budget").click()
    expect(page.locator("#why")).to_contain_text("Left at exit 2 of 3")
    assert json.loads(page.request.get(url + "budget").text())["revision"] == 1


def test_the_slider_passes_points_with_a_certificate(page: Page) -> None:
    slider = page.get_by_label("Point of the frontier")
    slider.press("End")
    slider.press("ArrowLeft")
    expect(page.locator("#budget-readouts")).to_contain_text(
        "Another label than the last exit's for at most 0.5 % of images, proved with"
    )


def test_the_budget_is_set_with_the_admin_key_and_not_without(page: Page, folder: Path) -> None:
    page.get_by_text("Set it for everybody").click()
    status, key = page.locator("#admin-status"), page.get_by_label("Admin key")
    page.get_by_role("button", name="fast").click()
    page.get_by_role("button", name="Set the service's budget").click()
    expect(status).to_contain_text("Not set. This needs the admin key")
    key.fill("guessed")
    key.press("Enter")
    expect(status).to_contain_text("Not set. This needs the admin key")
    key.fill((folder / "state" / "admin-key").read_text().strip())
    for number, profile in enumerate(("fast", "balanced"), start=2):
        page.get_by_role("button", name=profile).click()
        page.get_by_role("button", name="Set the service's budget").click()
        expect(status).to_contain_text(f"Set, revision {number}. In force for everybody: {profile}")
        expect(page.locator("#trying")).to_contain_text(f"The service is set to {profile}")
    stored = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])")
    assert (folder / "state" / "admin-key").read_text().strip() not in stored


def test_all_exits_stand_side_by_side_with_time_and_cost(page: Page) -> None:
    bring(page, unseen("garbage_truck"))
    answered(page, "garbage truck")
    page.get_by_role("button", name="Compare all exits").click()
    table = page.locator("#compare-table")
    expect(table.locator("thead th")).to_have_text(["Exit 1", "Exit 2", "Exit 3"])

    def row(name: str) -> list[str]:
        return (
            table.locator("tr", has=page.get_by_role("rowheader", name=name, exact=True))
            .locator("td")
            .all_inner_texts()
        )

    assert row("Says") == ["garbage truck"] * 3
    assert row("GMACs so far") == ["0.109", "0.349", "0.851"]
    assert all("ms" in each for each in row("Its stage takes") + row("All stages so far"))
    assert row("By the budget in force") == ["goes on", "leaves here", "never computed"]
    assert states(page) == THROUGH_TWO, "the answer by the budget still stands"


def test_an_early_answer_goes_on_from_where_it_left(page: Page) -> None:
    bring(page, unseen("church"))
    answered(page, "church")
    assert states(page) == ["taken", "spared", "spared"]
    for number in (2, 3):
        page.get_by_role("button", name=f"Think on, to exit {number}").click()
        expect(page.locator("#why")).to_contain_text(f"exit {number} of 3")
        expect(page.locator("#why")).to_contain_text("known from before")
        assert states(page).index("taken") == number - 1
        expect(page.locator(".exit .top li")).to_have_count(5 * number)
    expect(page.locator("#refine")).to_be_hidden()


def test_an_answer_whose_state_is_gone_stands_and_says_so(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path, DVT_REFINE_SECONDS="0") as url, opened(browser, url) as page:
        bring(page, photo("church"))
        answered(page, "church")
        page.get_by_role("button", name="Think on, to exit 2").click()
        expect(page.get_by_role("alert")).to_contain_text("is gone")
        expect(page.locator("#refine")).to_be_hidden()
        answered(page, "church")
        assert states(page) == ["taken", "spared", "spared"]


def test_a_photo_seen_before_is_answered_from_memory_and_shown_as_before(page: Page) -> None:
    content = unseen("garbage_truck")
    bring(page, content)
    answered(page, "garbage truck")
    expect(page.locator("#why")).not_to_contain_text("from memory")
    page.reload()
    bring(page, content)
    expect(page.locator("#why")).to_contain_text("from memory: nothing had to be computed again")
    assert states(page) == THROUGH_TWO
    expect(page.locator(".exit .top li")).to_have_count(10)


def test_live_figures_follow_the_metrics(page: Page) -> None:
    bring(page, photo("church"))
    answered(page, "church")
    expect(page.locator("#live-note")).to_contain_text("The last minute")
    expect(page.locator("#live-shares")).to_contain_text("1: 100 %")
    expect(page.locator("#live-table tbody tr").first).to_contain_text("ms")
    expect(page.locator("#live-figures")).to_contain_text("requests/s")


def test_it_says_what_it_knows_and_that_a_stranger_gets_one_of_these_too(page: Page) -> None:
    expect(page.locator("#knows-text")).to_contain_text("knows 10 classes and nothing else")
    assert page.locator("#labels li").all_inner_texts()[:2] == ["tench", "English springer"]
    expect(page.get_by_role("button", name="cup of coffee")).to_contain_text("not one of its classes")


def test_overload_and_a_lost_connection_are_told_in_words(page: Page) -> None:
    problem = {"title": "Overloaded", "status": 503, "code": "overloaded", "detail": "no room for 1 more image now"}
    page.route(
        "**/classify?*",
        lambda route: route.fulfill(
            status=503, headers={"Retry-After": "3"}, content_type="application/problem+json", body=json.dumps(problem)
        ),
    )
    bring(page, photo("church"))
    fault = page.get_by_role("alert")
    expect(fault).to_contain_text("Overloaded. No room for 1 more image now. It asks to be left alone for 3 s.")
    page.route("**/classify?*", lambda route: route.abort())
    page.get_by_role("button", name="Try again").click()
    expect(fault).to_contain_text("The service cannot be reached")
    cut = ": heartbeat\n\nevent: exit\ndata: {"
    page.route("**/classify?*", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=cut))
    page.get_by_role("button", name="Try again").click()
    expect(fault).to_contain_text("Connection lost.")
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    answered(page, "church")


def test_a_service_with_keys_is_asked_with_one(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path, DVT_API_KEYS="open-sesame") as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        expect(page.get_by_role("heading", name="This service needs a key")).to_be_visible()
        expect(page.locator("#live-note")).to_contain_text("The metrics need a key")
        page.get_by_label("Key", exact=True).fill("wrong")
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#key-reason")).to_contain_text("does not know this key")
        page.get_by_label("Key", exact=True).fill("open-sesame")
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#key-panel")).to_be_hidden()
        bring(page, photo("church"))
        answered(page, "church")
        assert "open-sesame" not in page.evaluate("JSON.stringify([localStorage, sessionStorage, location.href])")


def test_what_the_ceiling_forbids_is_refused_kindly(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path, DVT_CEILING="accurate") as url, opened(browser, url) as page:
        bring(page, photo("church"))
        answered(page, "church")
        page.get_by_role("button", name="Compare all exits").click()
        expect(page.locator("#compare-note")).to_contain_text(
            "Whoever runs this service does not let a page ask for so much."
        )
        page.get_by_role("button", name="full").click()
        expect(page.get_by_role("alert")).to_contain_text("the operator's ceiling")
        expect(page.locator("#trying")).to_contain_text("Requests may ask for no more than accurate.")


@pytest.mark.parametrize("bundle", ["checkpoints/cifar10-micro", "benchmarks/bundles/imagenette-hybrid-static"])
def test_other_bundles_are_shown_as_what_they_are(browser: Browser, tmp_path: Path, bundle: str) -> None:
    with serving(tmp_path, ROOT / bundle) as url, opened(browser, url) as page:
        is_cascade = "static" not in bundle
        assert len(states(page)) == (3 if is_cascade else 1)
        church = page.get_by_role("button", name="church")
        expect(church).to_contain_text("not one of its classes" if is_cascade else "easy")
        church.click()
        expect(page.locator("#answer-actions")).to_be_visible()
        page.get_by_role("button", name="Compare all exits").click()
        expect(page.locator("#compare-table td.chosen").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_sees_all_of_it_without_scrolling_sideways(browser: Browser, url: str, scheme: str) -> None:
    with opened(browser, url, viewport={"width": 360, "height": 740}, color_scheme=scheme) as page:
        assert overflow_px(page) == 0
        bring(page, photo("garbage_truck"))
        answered(page, "garbage truck")
        page.get_by_role("button", name="Compare all exits").click()
        expect(page.locator("#compare-table td.chosen").first).to_be_visible()
        page.get_by_text("Set it for everybody").click()
        assert overflow_px(page) == 0


def test_dark_and_light_follow_the_system(browser: Browser, url: str) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        with opened(browser, url, color_scheme=scheme) as page:
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark = (sum(map(int, ground.removeprefix("rgb(").rstrip(")").split(","))) for ground in grounds)
    assert light > 600 > 150 > dark


def test_everything_can_be_reached_by_keyboard(page: Page) -> None:
    expect(page.get_by_role("button", name="church")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the photo")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Choose a photo")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    answered(page, "church")
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {"refine", "compare", "fast", "full", "budget-slider", "Set it for everybody"} <= reached


def test_the_readmes_picture_can_be_drawn_anew(tmp_path: Path) -> None:
    out = tmp_path / "playground.png"
    command = [sys.executable, "scripts/playground_picture.py", str(out)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=120)
    for path in (out, ROOT / "docs" / "playground.png"):
        assert path.stat().st_size < 400_000
        with Image.open(path) as picture:
            assert picture.width == 2 * 1180

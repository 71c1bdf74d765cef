"""The playground in a real browser: opened, watched for complaints, and read as its user would."""

import base64
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page, expect

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"

# Chromium says this of every answer that is an error; the page tells its user, which is what tests look at.
_OF_A_STATUS = "Failed to load resource"
_BRING = """([content, name, kind]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const brought = new DataTransfer();
  brought.items.add(new File([bytes], name, {type: "image/jpeg"}));
  const event = kind === "drop"
    ? new DragEvent("drop", {dataTransfer: brought, bubbles: true, cancelable: true})
    : new ClipboardEvent("paste", {clipboardData: brought, bubbles: true});
  document.querySelector("#stage").dispatchEvent(event);
}"""


@contextmanager
def opened(browser: Browser, url: str, **context: object) -> Iterator[Page]:
    """The page, loaded. Fails at the end if the browser had anything to say against it: an exception, an error or a
    warning on the console, something that its policy forbids."""
    with browser.new_context(**{"reduced_motion": "reduce", **context}) as own:  # type: ignore[arg-type]
        page = own.new_page()
        complaints: list[str] = []

        def hear(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and not message.text.startswith(_OF_A_STATUS):
                complaints.append(message.text)

        page.on("console", hear)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        expect(page.locator("#plate")).to_contain_text("exit")
        yield page
        assert not complaints


def bring(page: Page, content: bytes, name: str = "photo.jpg", kind: str = "drop") -> None:
    """Drop a file on the page, or paste it."""
    page.evaluate(_BRING, [base64.b64encode(content).decode(), name, kind])


def photo(name: str) -> bytes:
    return (SAMPLES / f"{name}.jpg").read_bytes()


_unseen = itertools.count(1)


def unseen(name: str) -> bytes:
    """A file that the service has not seen, of the same photo: of others it may remember what they are."""
    return photo(name) + b"\0" * next(_unseen)


def states(page: Page) -> list[str | None]:
    """Of each exit's card, in order."""
    return [card.get_attribute("data-state") for card in page.locator(".exit").all()]


def overflow_px(page: Page) -> int:
    """By how much the page is wider than its window."""
    width: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return width

"""Draws docs/playground.png, the picture of the playground in the README: the body of `make picture`.

The real page on a real service with the shipped bundle, after it has seen the sample that leaves at the second exit.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

from benchmarks.processes import HOST, ServerCommand, free_port, running
from scripts.browser import launch

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "checkpoints" / "imagenette-hybrid"
SAMPLE = "garbage truck"
# Seen before it: the first image of a fresh service takes longer than those after it.
OTHER = "church"
_WINDOW = ViewportSize(width=1180, height=900)
_DENSITY = 2
_MARGIN_PX = 18
# Enough for a page of few colours and a photo of few; as many as one byte a pixel holds would be twice the file.
_COLOURS = 160


def take_picture(page: Page) -> bytes:
    """PNG of the page from its top to the end of the bench, once the sample was answered."""
    for sample in (OTHER, SAMPLE):
        page.get_by_role("button", name=sample).click()
        page.locator("#said:has(.sure)", has_text=sample).wait_for()
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    bench = page.locator(".bench").bounding_box()
    assert bench is not None
    height = bench["y"] + bench["height"] + _MARGIN_PX
    clip = {"x": 0.0, "y": 0.0, "width": float(_WINDOW["width"]), "height": height}
    return page.screenshot(full_page=True, clip=clip, animations="disabled")  # type: ignore[arg-type]  # a plain dict


def compact(png: bytes) -> bytes:
    """The same with a palette."""
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    out = io.BytesIO()
    few.save(out, "PNG", optimize=True)
    return out.getvalue()


def main() -> int:
    """Writes the picture; 1 where there is no browser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "docs" / "playground.png")
    parser.add_argument("--scheme", choices=["light", "dark"], default="light")
    arguments = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as state, sync_playwright() as playwright:
        arguments_of_server = (sys.executable, "dvt.py", "serve", str(BUNDLE), "--host", HOST, "--port", str(port))
        server = ServerCommand(arguments_of_server, port, {"DVT_STATE_DIR": state}, ready_path="/health/ready")
        try:
            browser = launch(playwright)
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            return 1
        with running(server), browser:
            page = browser.new_page(
                viewport=_WINDOW,
                device_scale_factor=_DENSITY,
                color_scheme=arguments.scheme,
                reduced_motion="reduce",
            )
            page.goto(f"http://{HOST}:{port}/")
            arguments.out.write_bytes(compact(take_picture(page)))
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

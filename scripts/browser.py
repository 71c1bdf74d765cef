"""A browser for the tests of the playground and for its picture: finds one, or installs Debian's.

`python scripts/browser.py` is the body of `make browser`; standard library only. Playwright drives whatever of the
Chromium family is installed, or what CHROMIUM names, so its own downloads are not needed.
"""

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = (
    "No browser for the tests of the playground. Install Chromium (Debian: apt-get install chromium) or Chrome, or "
    "name one: CHROMIUM=/path/to/chromium make verify"
)
# Containers give root and little shared memory; the rest keeps the browser from speaking to anybody but the page.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_browser() -> str | None:
    """Path of a browser of the Chromium family, None where there is none."""
    named = os.environ.get("CHROMIUM")
    if named:
        return shutil.which(named)
    return next(filter(None, map(shutil.which, NAMES)), None)


def launch(playwright: "Playwright") -> "Browser":
    """A browser without a window. Raises `FileNotFoundError` where there is none."""
    path = find_browser()
    if path is None:
        raise FileNotFoundError(MISSING)
    return playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))


def install() -> bool:
    """Installs Debian's Chromium where this process may; whether it could."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return False
    print("Installing Chromium with apt-get (only this once)", file=sys.stderr)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    commands = (["apt-get", "update", "-qq"], ["apt-get", "install", "-qq", "--no-install-recommends", "chromium"])
    return all(
        subprocess.run(command, env=quiet, stdout=subprocess.DEVNULL, check=False).returncode == 0
        for command in commands
    )


def main() -> int:
    """0 with a browser, 1 without."""
    if find_browser() is None and not os.environ.get("CHROMIUM"):
        install()
    path = find_browser()
    if path is None:
        print(MISSING, file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

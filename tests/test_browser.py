"""`make browser` on machines with a browser, without one, and where one may be installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import browser

ROOT = Path(__file__).parent.parent


def program(path: Path, body: str = "") -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def make_browser(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`make browser` where only the programs of one folder are found."""
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "browser.py"],
        env={"PATH": str(path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", browser.NAMES)
def test_a_browser_that_is_there_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    found = program(tmp_path / name, "exit 1")
    program(tmp_path / "apt-get", f"touch {tmp_path}/asked")
    result = make_browser(tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, str(found))
    assert not (tmp_path / "asked").exists()


def test_a_named_browser_goes_before_others_and_a_misspelt_one_is_not_replaced(tmp_path: Path) -> None:
    program(tmp_path / "chromium")
    named = program(tmp_path / "mine")
    assert make_browser(tmp_path, CHROMIUM=str(named)).stdout.strip() == str(named)
    missing = make_browser(tmp_path, CHROMIUM=str(tmp_path / "missing"))
    assert (missing.returncode, missing.stdout) == (1, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_without_one_root_has_debians_installed(tmp_path: Path) -> None:
    chromium = f'echo "#!/bin/sh" > {tmp_path}/chromium; chmod 755 {tmp_path}/chromium'
    program(tmp_path / "apt-get", f'PATH=/usr/bin:/bin; case "$*" in *install*chromium*) {chromium};; esac')
    result = make_browser(tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, str(tmp_path / "chromium"))


@pytest.mark.parametrize("apt", ["exit 100", None], ids=["apt fails", "no apt"])
def test_where_none_can_be_had_the_way_out_is_named(tmp_path: Path, apt: str | None) -> None:
    if apt is not None:
        program(tmp_path / "apt-get", apt)
    result = make_browser(tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "apt-get install chromium" in result.stderr
    assert "CHROMIUM=" in result.stderr

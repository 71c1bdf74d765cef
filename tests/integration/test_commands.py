"""The commands of whoever uses a service, as processes: what they print, where, and what they exit with."""

import csv
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.processes import ROOT, environment, running
from tests.integration.scripted_service import DEEP
from tests.service.cascades import ADMIN_KEY, picture
from tests.service.tiny_bundles import tiny_config, write_tiny_bundle

EASY = 4
SCRIPT = Path(__file__).parent / "scripted_service.py"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("service")
    with running((SCRIPT, folder, "certified"), folder) as (_, port, _):
        yield port


@pytest.fixture(scope="module")
def keyed_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("keyed")
    with running((SCRIPT, folder, "certified"), folder, DVT_API_KEYS="user-key") as (_, port, _):
        yield port


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", tiny_config(2)).path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos, one of them deep, and one that is none."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    (folder / "a.png").write_bytes(picture(EASY))
    (folder / "below" / "b.PNG").write_bytes(picture(DEEP))
    (folder / "c.jpg").write_bytes(b"\xff\xd8\xffno photo")
    (folder / "notes.txt").write_text("not a photo by its name")
    return folder


Dvt = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def dvt(tmp_path: Path) -> Dvt:
    def run(*words: object, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [sys.executable, ROOT / "dvt.py", *map(str, words)],
            cwd=tmp_path,
            env=environment(tmp_path, **variables),
            input=stdin,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return subprocess.CompletedProcess(ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    return run


def at(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def test_photos_are_told_in_order_and_a_bad_one_stops_nobody(dvt: Dvt, port: int, photos: Path) -> None:
    ended = dvt("classify", photos, "missing.jpg", "--url", at(port))
    first, second = ended.stdout.splitlines()
    assert (
        first
        == f"{photos}/a.png: apple 97.0 %, exit 1 of 3 (2x2 tokens, confident), 0.100 GMACs (90 % saved)"
        + (first[first.rindex(", ") :])
    )
    assert "below/b.PNG: bell 97.0 %, exit 3 of 3 (4x4 tokens, final)" in second
    damaged, missing, summary = ended.stderr.splitlines()
    assert damaged.startswith(f"dvt classify: {photos}/c.jpg: the image is truncated or damaged")
    assert missing == "dvt classify: missing.jpg: there is no such file"
    assert summary == "2 of 4 photos answered; 50 % at exit 1, 50 % at exit 3; 0.550 GMACs each"
    assert ended.returncode == 1


def test_json_is_a_line_a_photo_and_alone_on_standard_output(dvt: Dvt, port: int, photos: Path) -> None:
    ended = dvt("classify", photos, "--json", "--top-k", "2", DVT_URL=at(port))
    good, deep, bad = map(json.loads, ended.stdout.splitlines())
    assert (good["photo"], good["result"]["exit"]["number"]) == (f"{photos}/a.png", 1)
    assert len(deep["result"]["predictions"]) == 2
    assert bad["error"]["code"] == "corrupt_image"


def test_a_pattern_and_standard_input_are_photos_too(dvt: Dvt, port: int, photos: Path) -> None:
    pattern = dvt("classify", f"{photos}/**/*.PNG", "--url", at(port))
    assert (pattern.returncode, pattern.stdout.count("\n")) == (0, 1)
    piped = dvt("classify", "-", "--url", at(port), stdin=picture(EASY))
    assert (piped.returncode, piped.stderr) == (0, "")
    assert piped.stdout.startswith("-: apple")


def test_a_csv_has_a_row_a_photo(dvt: Dvt, port: int, photos: Path, tmp_path: Path) -> None:
    ended = dvt("classify", photos, "--url", at(port), "--csv", tmp_path / "table.csv")
    assert (ended.returncode, ended.stdout) == (1, "")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [(row["label"], row["exit"], row["error"][:13]) for row in rows] == [
        ("apple", "1", ""),
        ("bell", "3", ""),
        ("", "", "corrupt_image"),
    ]


def test_options_reach_the_server(dvt: Dvt, port: int, photos: Path) -> None:
    deep = photos / "below" / "b.PNG"
    assert "exit 2 of 3 (3x3 tokens, max_exit)" in dvt("classify", deep, "--max-exit", 2, "--url", at(port)).stdout
    assert "exit 1 of 3" in dvt("classify", deep, "--thresholds", "0.2,null", "--url", at(port)).stdout
    refused = dvt("classify", deep, "--profile", "nix", "--url", at(port))
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "there is no profile 'nix'" in refused.stderr


def test_without_a_server_the_bundle_answers_right_here(dvt: Dvt, bundle: Path, photos: Path, tmp_path: Path) -> None:
    ended = dvt("classify", photos / "a.png", photos / "c.jpg", "--bundle", bundle, "--thresholds", "null")
    assert ended.returncode == 1
    assert "a.png: " in ended.stdout
    assert "exit 2 of 2" in ended.stdout
    assert "truncated or damaged" in ended.stderr
    assert not (tmp_path / "state").exists(), "nothing is kept"


def test_a_bundle_that_is_none_is_one_line(dvt: Dvt, photos: Path) -> None:
    ended = dvt("classify", photos / "a.png", DVT_BUNDLE="nowhere")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith("dvt classify: ")


@pytest.mark.parametrize(
    "words", [("classify", "-"), ("budget", "get"), ("budget", "set", "--gmacs", "1"), ("top", "--once")]
)
def test_where_no_server_is_the_way_to_one_is_told(dvt: Dvt, words: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = at(free.getsockname()[1])
    ended = dvt(*words, "--url", url, stdin=picture(EASY))
    assert (ended.returncode, ended.stdout) == (3, "")
    assert f"nothing answers at {url}" in ended.stderr
    assert "`dvt serve`" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_server_that_cannot_now_has_a_code_of_its_own(dvt: Dvt, tmp_path: Path) -> None:
    (tmp_path / "hold").touch()  # Its warm-up waits.
    with running((SCRIPT, tmp_path), tmp_path, until="listening, the engine warms up") as (_, port, _):
        ended = dvt("classify", "-", "--url", at(port), "--deadline-ms", 1000, stdin=picture(EASY))
        (tmp_path / "hold").unlink()
    assert (ended.returncode, ended.stdout) == (5, "")
    assert "(not_ready)" in ended.stderr


def test_an_address_that_is_none_is_misuse(dvt: Dvt) -> None:
    ended = dvt("budget", "get", "--url", "localhost:8000")
    assert ended.returncode == 2
    assert "write it as http://" in ended.stderr


def test_keys_come_from_the_environment_and_files(dvt: Dvt, keyed_port: int, tmp_path: Path) -> None:
    refused = dvt("classify", "-", "--url", at(keyed_port), stdin=picture(EASY))
    assert refused.returncode == 4
    assert "DVT_KEY_FILE" in refused.stderr
    (tmp_path / "key").write_text("# mine\nme user-key\n")
    for variables in ({"DVT_KEY": "user-key"}, {"DVT_KEY_FILE": "key"}):
        assert dvt("classify", "-", "--url", at(keyed_port), stdin=picture(EASY), **variables).returncode == 0
    refused = dvt("budget", "set", "--profile", "fast", "--url", at(keyed_port), DVT_KEY="user-key")
    assert (refused.returncode, refused.stderr.count("\n")) == (4, 1)
    assert "(forbidden)" in refused.stderr


def test_the_admin_key_that_a_service_made_is_found(dvt: Dvt, bundle: Path, tmp_path: Path) -> None:
    words = (ROOT / "dvt.py", "serve", bundle, "--port", "0", "--log-format", "json")
    with running(words, tmp_path) as (_, port, _):
        changed = dvt("budget", "set", "--thresholds", "0.5", DVT_PORT=str(port))
        assert (changed.returncode, changed.stderr) == (0, "")
        assert changed.stdout == "in force: thresholds 0.5 (revision 2)\n"
        elsewhere = dvt("budget", "history", DVT_PORT=str(port), DVT_STATE_DIR="nowhere")
        assert elsewhere.returncode == 4


def test_the_budget_is_seen_changed_and_told_as_it_can_be_typed(dvt: Dvt, port: int) -> None:
    def budget(*words: object, code: int = 0) -> str:
        ended = dvt("budget", *words, "--url", at(port), DVT_ADMIN_KEY=ADMIN_KEY)
        assert ended.returncode == code, ended.stderr
        return ended.stdout + ended.stderr

    assert budget("set", "--profile", "balanced").startswith("in force: balanced, thresholds 0.8,0.6, 0.3 GMACs")
    assert budget("set", "--gmacs", 0.2, "--dry-run").startswith("would be: point 0, thresholds 0.4,0.4")
    assert "asked     --profile balanced\n" in budget("get")
    revision = json.loads(budget("get", "--json"))["revision"]
    assert "certified (revision" in budget("set", "--max-disagreement", 0.01, "--if-match", revision)
    assert "look at `dvt budget get`" in budget("set", "--profile", "fast", "--if-match", revision, code=4)
    assert "the nearest is `dvt budget set --gmacs 0.15`" in budget("set", "--gmacs", 0.01, code=4)
    assert "--max-disagreement 0.01" in budget("history")
    assert json.loads(budget("frontier", "--json"))["profiles"][0]["profile"] == "fast"
    assert "0.8,0.6" in budget("frontier")


def test_watch_tells_each_change_until_ctrl_c(dvt: Dvt, port: int, tmp_path: Path) -> None:
    words: list[str | Path] = [
        sys.executable,
        ROOT / "dvt.py",
        "budget",
        "watch",
        "--every",
        "0.02",
        "--json",
        "--url",
        at(port),
    ]
    with subprocess.Popen(words, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        other = "fast" if first["in_force"]["profile"] != "fast" else "full"
        dvt("budget", "set", "--profile", other, "--url", at(port), DVT_ADMIN_KEY=ADMIN_KEY)
        second = json.loads(watching.stdout.readline())
        assert (second["revision"], second["in_force"]["profile"]) == (first["revision"] + 1, other)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0


def test_top_takes_a_single_look_for_scripts(dvt: Dvt, port: int, photos: Path) -> None:
    dvt("classify", photos, "--url", at(port))
    look = json.loads(dvt("top", "--json", "--every", "0.05", "--url", at(port)).stdout)
    assert (look["model"], look["ready"], len(look["exits"]), len(look["queued"])) == ("small-bundle", True, 3, 3)
    assert look["images_since_start"] >= 2
    assert look["budget"]["revision"] >= 1
    table = dvt("top", "--once", "--every", "0.05", "--url", at(port)).stdout
    assert "requests/s" in table
    assert "exit 3" in table


def test_top_without_a_terminal_names_the_way_to_a_single_look(dvt: Dvt, port: int) -> None:
    ended = dvt("top", "--url", at(port))
    assert ended.returncode == 2
    assert "--once" in ended.stderr


def test_top_draws_in_a_terminal_until_ctrl_c(port: int, tmp_path: Path) -> None:
    master, terminal = os.openpty()
    words: list[str | Path] = [sys.executable, ROOT / "dvt.py", "top", "--every", "0.1", "--url", at(port)]
    env = environment(tmp_path, TERM="xterm", COLUMNS="100", LINES="40")
    with subprocess.Popen(words, env=env, stdout=terminal, stderr=terminal, stdin=terminal) as drawing:
        os.close(terminal)
        seen = b""
        end = time.monotonic() + 60
        while b"waiting for it" not in seen:
            assert time.monotonic() < end
            seen += os.read(master, 65536)
        drawing.send_signal(signal.SIGINT)
        while drawing.poll() is None:
            try:
                os.read(master, 65536)
            except OSError:
                break
        assert drawing.wait(60) == 0
    os.close(master)
    assert b"small-bundle" in seen


def test_who_reads_only_the_beginning_gets_no_traceback(port: int, photos: Path, tmp_path: Path) -> None:
    words: list[str | Path] = [sys.executable, ROOT / "dvt.py", "classify", photos, "--url", at(port)]
    ended = subprocess.Popen(
        words, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert ended.stdout is not None
    ended.stdout.close()
    assert ended.stderr is not None
    told = ended.stderr.read()
    ended.stderr.close()
    assert ended.wait(60) == 141
    assert "Traceback" not in told
    assert "Exception ignored" not in told


# Each sets up the shell as its user would, then asks it for what could follow the words in "$@".
COMPLETING = {
    "bash": '''eval "$(dvt completion bash)"; complete -p dvt >/dev/null || exit 1
        COMP_WORDS=(dvt "$@"); COMP_CWORD=$#; _dvt; echo "${COMPREPLY[*]}"''',
    "zsh": """compdef() { :; }; compadd() { shift; echo "$@"; }; _files() { :; }; eval "$(dvt completion zsh)"
        words=(dvt "$@"); CURRENT=$#words; _dvt""",
    "fish": """dvt completion fish | source; complete -C "dvt $argv" | cat""",
}


@pytest.mark.parametrize("shell", COMPLETING)
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (("b",), {"budget", "bench"}),
        (("budget", ""), {"get", "set", "frontier", "history", "watch"}),
        (("budget", "set", "--max"), {"--max-disagreement", "--max-accuracy-drop"}),
        (("classify", "--url", ""), set()),
        (("completion", "f"), {"fish"}),
        (("nothing", ""), set()),
    ],
)
def test_a_shell_completes_by_asking_dvt(
    shell: str, typed: tuple[str, ...], offered: set[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    command = tmp_path / "dvt"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/dvt.py "$@"\n')
    command.chmod(0o755)
    words = [shell, "-c", COMPLETING[shell], *([] if shell == "fish" else [shell]), *typed]
    ended = subprocess.run(
        words,
        cwd=tmp_path_factory.mktemp("empty"),  # Else fish would offer its files.
        env=environment(tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}", HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (set(ended.stdout.split()), ended.stderr) == (offered, "")

"""`dvt serve --check` tells beforehand what would keep the service from starting, and changes nothing."""

import logging
import socket
from pathlib import Path

import pytest

from service import log
from service.check import check
from service.engine.budget_file import FILE as BUDGET_FILE
from service.errors import ServiceError
from service.settings import SettingsError, load_settings

ROOT = Path(__file__).parents[2]


def check_with(state: Path, **variables: str) -> str:
    environment = {
        "DVT_BUNDLE": str(ROOT / "checkpoints" / "cifar10-micro"),
        "DVT_THREADS": "1",
        "DVT_STATE_DIR": str(state),
        **variables,
    }
    return check(load_settings(environment), logging.getLogger(f"{log.LOGGER}.check"))


def test_it_says_what_would_be_served_under_which_budget(tmp_path: Path) -> None:
    said = check_with(tmp_path / "state", DVT_PROFILE="fast")
    assert "3 exits, 10 classes, backend onnx on cpu, profiles: fast, balanced, accurate, full" in said
    assert "budget: {'profile': 'fast'}. Ready to serve." in said


def test_the_port_may_be_that_of_the_service_to_be_replaced(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as running:
        assert "Ready to serve" in check_with(tmp_path / "state", DVT_PORT=str(running.getsockname()[1]))


def test_it_makes_no_state(tmp_path: Path) -> None:
    check_with(tmp_path / "state")
    assert list(tmp_path.iterdir()) == []


def test_it_leaves_the_state_as_it_is_and_tells_what_a_start_would_make_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / BUDGET_FILE).write_text("of another version")
    check_with(tmp_path)
    assert (tmp_path / BUDGET_FILE).read_text() == "of another version"
    assert [path.name for path in tmp_path.iterdir()] == [BUDGET_FILE]
    assert [record.message for record in caplog.records] == ["stored budget cannot be read and is replaced"]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"DVT_BUNDLE": "nowhere"}, "there is no bundle at"),
        ({"DVT_PROFILE": "turbo"}, "turbo"),
        ({"DVT_CEILING": "turbo"}, "turbo"),
        ({"DVT_REDIS_URL": "http://redis"}, "DVT_REDIS_URL makes no sense"),
        ({"DVT_ADMIN_KEY_FILE": "empty"}, "empty holds no key"),
        ({"DVT_API_KEYS_FILE": "empty"}, "empty holds no key"),
        ({"DVT_STATE_DIR": "empty/state"}, "DVT_STATE_DIR is empty/state: .*empty cannot be written"),
        ({"DVT_HOST": "not.an.address.invalid"}, "DVT_HOST is 'not.an.address.invalid'"),
        ({"DVT_LANES": "2", "DVT_BACKEND": "eager"}, "one batch at a time"),
    ],
)
def test_what_would_keep_it_from_starting_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").touch()
    with pytest.raises((ValueError, ServiceError), match=says):
        check_with(tmp_path / "state", **variables)


def test_a_folder_that_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"DVT_BUNDLE is x+: .*cannot be read"):
        check_with(tmp_path / "state", DVT_BUNDLE="x" * 300)


def test_a_state_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / BUDGET_FILE).mkdir()
    with pytest.raises(SettingsError, match="DVT_STATE_DIR is"):
        check_with(tmp_path)

from pathlib import Path

import pytest

from service.api.keys import KeyRing, KeySource
from service.commands.connection import asked_url, first_key, is_loopback, operator_key, url_or_local, user_key

LOCAL, REMOTE = "http://127.0.0.1:8000", "http://dvt.example"


def test_a_flag_wins_over_the_environment_over_this_machine() -> None:
    assert asked_url(None, {}) is None
    assert asked_url("http://a", {"DVT_URL": "http://b"}) == "http://a"
    assert url_or_local(None, {"DVT_URL": "http://b", "DVT_PORT": "1"}) == "http://b"
    assert url_or_local(None, {"DVT_PORT": "8001"}) == "http://127.0.0.1:8001"
    assert url_or_local(None, {"DVT_PORT": "tcp://10.0.0.1:80"}) == LOCAL


@pytest.mark.parametrize("url", [LOCAL, "http://localhost:1", "http://[::1]:8000", "https://127.9.9.9"])
def test_this_machine_is_known_by_its_addresses(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize("url", [REMOTE, "http://0.0.0.0", "http://localhost.evil", "http://127.0.0.1.evil", "nothing"])
def test_anything_else_is_not_this_machine(url: str) -> None:
    assert not is_loopback(url)


def test_the_key_that_the_service_made_is_found_and_stays_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "admin-key").write_text("made\n")
    environment = {"DVT_STATE_DIR": str(tmp_path)}
    assert operator_key(environment, LOCAL) == "made"
    assert operator_key(environment, REMOTE) is None
    assert operator_key(environment | {"DVT_ADMIN_KEY": "own"}, REMOTE) == "own"
    assert operator_key(environment | {"DVT_KEY": "user"}, REMOTE) == "user"
    assert operator_key({"DVT_STATE_DIR": str(tmp_path / "none")}, LOCAL) is None


def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none \(DVT_KEY_FILE\) cannot be read: No such file"):
        user_key({"DVT_KEY_FILE": str(tmp_path / "none")})
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no key"):
        user_key({"DVT_KEY_FILE": str(tmp_path / "empty")})


@pytest.mark.parametrize("text", ["one", "# of mine\n\n  name one # old\ntwo\n", "name\tone"])
def test_a_key_is_read_as_the_service_reads_it(text: str) -> None:
    ring = KeyRing(KeySource(text), None)
    assert ring.caller(f"Bearer {first_key(text, 'it')}") is not None
    assert first_key(text, "it") == "one"

"""Redis' password: made once, for nobody else's eyes, and the same for Redis and for the replicas."""

from pathlib import Path
from urllib.parse import urlsplit

from deploy.compose.passwords import CONF, URL, make
from service.settings import load_settings


def test_redis_and_the_replicas_get_the_same_password(tmp_path: Path) -> None:
    assert make(tmp_path)
    url = urlsplit((tmp_path / URL).read_text().strip())
    assert (url.scheme, url.hostname, url.port) == ("redis", "redis", 6379)
    assert f"requirepass {url.password}\n" in (tmp_path / CONF).read_text()
    assert len(url.password or "") >= 32
    assert load_settings({"DVT_REDIS_URL_FILE": str(tmp_path / URL)}).secret_files["redis_url"] == tmp_path / URL


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    make(tmp_path)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {URL: 0o600, CONF: 0o600}


def test_it_stays_the_same_for_ever(tmp_path: Path) -> None:
    make(tmp_path)
    before = (tmp_path / URL).read_text(), (tmp_path / CONF).read_text()
    assert not make(tmp_path)
    assert ((tmp_path / URL).read_text(), (tmp_path / CONF).read_text()) == before


def test_what_was_left_half_made_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / CONF).write_text("requirepass")
    (tmp_path / f".{URL}").write_text("redis://")
    assert make(tmp_path)
    password = urlsplit((tmp_path / URL).read_text().strip()).password
    assert f"requirepass {password}\n" in (tmp_path / CONF).read_text()


def test_each_installation_has_its_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make(tmp_path / name)
    assert (tmp_path / "a" / URL).read_text() != (tmp_path / "b" / URL).read_text()

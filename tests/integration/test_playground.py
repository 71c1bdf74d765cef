"""The playground as it is sent: its files, their headers, and a page that needs nobody else."""

import gzip
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.api import web
from tests.service.cascades import client_of, make_service, small_profiles

ROOT = Path(__file__).parents[2]
FILES = sorted(path.name for path in web.FOLDER.iterdir())
OUTSIDE = re.compile(r"[\w+.-]+:|//")
UNLABELLED = {"hidden", "submit", "button"}


class Page(HTMLParser):
    """Elements of a page, and what stands in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.title = ""
        self._inside: list[str] = []
        self.labelled: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "label":
            self.labelled.add(attributes.get("for") or "")
        if tag == "input" and "label" in self._inside:
            self.labelled.add(attributes.get("id") or "")
        if tag not in ("meta", "link", "input", "img", "br"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._inside[-1:] == ["title"]:
            self.title += data
        assert self._inside[-1:] not in (["script"], ["style"]) or not data.strip(), "inline script or style"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with client_of(make_service(tmp_path, profiles=small_profiles())) as client:
        yield client


@pytest.fixture
def page(client: TestClient) -> Page:
    return Page(client.get("/").text)


def paths() -> list[str]:
    return sorted(web.read_files(()))


@pytest.mark.parametrize("path", paths())
def test_every_file_is_sent_with_a_strict_policy_and_asked_for_again_when_it_changes(
    client: TestClient, path: str
) -> None:
    response = client.get(path)
    assert response.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-cache"
    for known in (response.headers["ETag"], f'"older", W/{response.headers["ETag"]}', "*"):
        again = client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == response.headers["ETag"]
        assert again.headers["Content-Security-Policy"] == response.headers["Content-Security-Policy"]
    assert client.get(path, headers={"If-None-Match": '"older"'}).status_code == 200


@pytest.mark.parametrize("path", paths())
def test_head_is_get_without_a_body(client: TestClient, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert head.status_code == 200
    assert head.content == b""
    for name in ("Content-Length", "Content-Type", "ETag", "Content-Security-Policy"):
        assert head.headers[name] == got.headers[name]


def test_text_is_packed_for_those_who_accept_that_and_photographs_are_not(client: TestClient) -> None:
    plain = client.get("/", headers={"Accept-Encoding": "identity"})
    packed = client.get("/", headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < len(plain.content) / 2
    assert packed.content == plain.content == (web.FOLDER / "index.html").read_bytes()
    assert packed.headers["ETag"] != plain.headers["ETag"]
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in client.get("/", headers={"Accept-Encoding": "gzip;q=0"}).headers
    photo = client.get("/playground/samples/church.jpg", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in photo.headers
    assert gzip.decompress(web.read_files(())["/"].packed or b"") == plain.content


def test_the_page_tells_what_it_is_and_every_field_what_it_wants(page: Page) -> None:
    (html,) = page.all("html")
    assert html["lang"] == "en"
    assert page.title.strip()
    assert len(page.all("h1")) == len(page.all("main")) == 1
    fields = [field["id"] for field in page.all("input") if field.get("type") not in UNLABELLED]
    assert len(fields) == 4
    assert set(fields) <= page.labelled
    assert all("alt" in image for image in page.all("img"))
    assert all(
        "width=device-width" in (meta["content"] or "") for meta in page.all("meta") if meta.get("name") == "viewport"
    )


def test_ids_are_unique_and_every_reference_to_one_is_met(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    for tag, attributes in page.elements:
        wanted = [attributes.get(name) or "" for name in ("for", "aria-labelledby", "aria-describedby")]
        wanted.append((attributes.get("href") or "").partition("#")[2])
        assert {each for words in wanted for each in words.split()} <= set(page.ids), tag


def test_every_id_that_a_script_asks_for_is_on_the_page(page: Page) -> None:
    scripts = "".join((web.FOLDER / name).read_text() for name in FILES if name.endswith(".js"))
    asked = set(re.findall(r'byId\("([^"]+)"\)', scripts))
    assert asked
    assert asked <= set(page.ids)


def test_nothing_on_the_page_is_inline_or_comes_from_elsewhere(client: TestClient, page: Page) -> None:
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        for name in ("src", "href"):
            if link := attributes.get(name):
                assert not OUTSIDE.match(link), link
                assert link.startswith("#") or client.get(f"/{link}").status_code == 200, link
    assert all(script["src"] for script in page.all("script"))


@pytest.mark.parametrize("name", FILES)
def test_files_refer_to_each_other_alone(name: str) -> None:
    text = (web.FOLDER / name).read_text()
    for link in re.findall(r"""(?:\bfrom |\bimport\(?|url\(|@import )["']([^"']+)""", text):
        assert link.startswith("./"), link
        assert link.removeprefix("./") in FILES, link
    # Comments may name sources, and the namespace of SVG is a name that nobody fetches.
    code = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE).replace("http://www.w3.org/2000/svg", "")
    assert re.search(r"https?:|[\"'(]//", code) is None


@pytest.mark.parametrize(
    "word", ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "localStorage", "sessionStorage", "cookie ="]
)
def test_scripts_write_no_markup_and_store_nothing(word: str) -> None:
    assert not [name for name in FILES if word in (web.FOLDER / name).read_text()]


def test_with_keys_the_page_is_open_and_what_it_shows_is_not(tmp_path: Path) -> None:
    with client_of(make_service(tmp_path, api_keys="one", profiles=small_profiles())) as client:
        assert {client.get(path).status_code for path in paths()} == {200}
        assert {client.get(path).status_code for path in ("/model", "/budget", "/metrics", "/playgrounds")} == {401}


def test_samples_say_whether_the_bundle_knows_what_they_show(client: TestClient) -> None:
    listed = client.get("/playground/samples.json").json()["samples"]
    assert [sample["file"] for sample in listed] == [sample.file for sample in web.SAMPLES]
    assert not any(sample["known"] for sample in listed)
    assert b'"known": true' in web.read_files(("church",))["/playground/samples.json"].content
    for sample in listed:
        photo = client.get(f"/playground/samples/{sample['file']}")
        assert photo.headers["Content-Type"] == "image/jpeg"
        assert photo.content == (ROOT / "samples" / sample["file"]).read_bytes()


def test_without_photographs_the_page_offers_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(web, "PHOTOS", tmp_path)
    files = web.read_files(("church",))
    assert files["/playground/samples.json"].content == b'{"samples": []}'
    assert not [path for path in files if path.endswith(".jpg")]


def test_samples_are_credited_as_where_they_come_from() -> None:
    page = (ROOT / "samples" / "README.md").read_text()
    for sample in web.SAMPLES:
        (row,) = re.findall(rf"^\| `{re.escape(sample.file)}` .*$", page, flags=re.MULTILINE)
        author, licence = sample.credit.split(", ")
        assert author in row
        assert licence.split()[0] in row


def test_an_installed_wheel_has_every_file_of_the_page(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "dvt.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "service", tmp_path / "service", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; build_meta.build_wheel('built')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "built").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        installed = [Path(name) for name in archive.namelist()]
    assert [path.name for path in sorted(installed) if path.parent == Path("service/web")] == FILES


# Text (first) on what it stands on; and lines that mean something, for which a lower contrast is enough.
TEXT = [(text, ground) for text in ("ink", "muted", "signal", "good") for ground in ("ground", "panel", "sunken")]
TEXT += [("panel", "ink"), ("ink", "signal-ground"), ("muted", "signal-ground")]
LINES = [(line, "panel") for line in ("edge", "signal", "exit-first", "exit-last")]


def colours(scheme: str) -> dict[str, str]:
    """The colours of style.css by name, `#rrggbb`."""
    blocks = re.findall(r":root \{([^}]*)\}", (web.FOLDER / "style.css").read_text())
    assert len(blocks) == 2
    found = re.findall(r"--([\w-]+): #(\w{3,6});", blocks[0] if scheme == "light" else "".join(blocks))
    return {name: value if len(value) == 6 else "".join(2 * digit for digit in value) for name, value in found}


def contrast(one: str, other: str) -> float:
    """Of two colours, 1..21 (WCAG 2.2, "contrast ratio")."""

    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("pairs", "least"), [(TEXT, 4.5), (LINES, 3.0)], ids=["text", "lines"])
def test_what_is_to_be_read_stands_out(scheme: str, pairs: list[tuple[str, str]], least: float) -> None:
    palette = colours(scheme)
    weak = {pair: contrast(palette[pair[0]], palette[pair[1]]) for pair in pairs}
    assert not {pair: round(ratio, 2) for pair, ratio in weak.items() if ratio < least}

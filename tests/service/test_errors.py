"""The table of errors: in the docstring, on the page, and in the classes the same."""

import re
from pathlib import Path

from service import errors
from service.errors import ServiceError, UnavailableError, kinds

ROOT = Path(__file__).parent.parent.parent


def test_codes_are_unique_and_statuses_are_errors() -> None:
    codes = [kind.code for kind in kinds()]
    assert len(codes) == len(set(codes))
    assert all(400 <= kind.status < 600 for kind in kinds())


def test_the_docstring_lists_every_error_and_no_other() -> None:
    listed = set(re.findall(r"^\| (\d+) \| (\w+) \|", errors.__doc__ or "", re.MULTILINE))
    assert listed == {(str(kind.status), kind.code) for kind in kinds()}


def test_the_page_of_errors_is_the_one_that_the_code_makes() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    assert page == errors.render_markdown(), "run: python -m service.errors > docs/errors.md"


def test_whatever_is_unavailable_says_when_to_try_again() -> None:
    for kind in kinds():
        if kind.status == 503:
            assert issubclass(kind, UnavailableError)
            assert kind("busy", retry_after_s=7).headers == {"Retry-After": "7"}


def test_an_error_carries_its_detail() -> None:
    error: ServiceError = errors.EmptyImageError("0 bytes")
    assert (error.detail, str(error), error.status, error.code) == ("0 bytes", "0 bytes", 400, "empty_image")

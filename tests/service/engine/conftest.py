"""What holds after every test of the engine."""

from collections.abc import Iterator

import pytest

from tests.service.engine.benches import made_in_this_test


@pytest.fixture(autouse=True)
def every_engine_ends_empty() -> Iterator[None]:
    yield
    while made_in_this_test:
        made = made_in_this_test.pop()
        made.engine.stop()
        assert all(backend.held == {} for backend in made.backends), "a slot was never released"
        assert all(len(outcomes) <= 1 for outcomes in made.outcomes.values()), "a job was answered twice"
        assert all(made.released[number] == 1 for number in made.outcomes), "a job was not released exactly once"

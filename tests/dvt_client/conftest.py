import pytest

from tests.dvt_client.kinds import KINDS, Make


@pytest.fixture(params=KINDS)
def make_client(request: pytest.FixtureRequest) -> Make:
    return KINDS[request.param]

"""Who may come in: permits, room for bodies, draining; and every refusal says when to come again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.admission import Admission, AdmissionLimits
from service.errors import DrainingError, OverloadedError, TooManyImagesError


class Hall:
    """An admission to an engine that needs `image_s` for an image."""

    def __init__(self, images: int = 4, state_bytes: int = 10_000, body_bytes: int = 1000) -> None:
        self.image_s = 0.1
        limits = AdmissionLimits(images, state_bytes, 1000, body_bytes)
        self.admission = Admission(limits, lambda inside: inside * self.image_s)


def test_permits_are_given_up_to_the_limit_all_or_none() -> None:
    hall = Hall(images=4)
    hall.admission.acquire(3)
    with pytest.raises(OverloadedError, match=r"3 images .* limit is 4 \(DVT_QUEUE_LIMIT"):
        hall.admission.acquire(2)
    hall.admission.acquire(1)
    assert (hall.admission.inside, hall.admission.reserved_bytes) == (4, 4000)
    hall.admission.release()
    hall.admission.acquire(1)


def test_the_state_of_every_image_inside_fits_into_its_bytes() -> None:
    hall = Hall(images=100, state_bytes=2500)
    hall.admission.acquire(2)
    with pytest.raises(OverloadedError, match="DVT_STATE_BYTES"):
        hall.admission.acquire(1)


def test_no_room_for_a_single_image_is_an_error_at_start() -> None:
    with pytest.raises(ValueError, match="1000 bytes of state, the limit is 999"):
        Hall(state_bytes=999)


def test_more_images_than_even_an_idle_service_holds_are_not_worth_another_try() -> None:
    with pytest.raises(TooManyImagesError, match="5 images, this service has room for 4"):
        Hall(images=4).admission.acquire(5)


def test_a_full_house_refuses_a_request_before_its_body() -> None:
    hall = Hall(images=1)
    hall.admission.acquire(1)
    with pytest.raises(OverloadedError), hall.admission.request():
        pytest.fail("came in")


@pytest.mark.parametrize(("image_s", "asked", "seconds"), [(0.001, 1, 1), (0.5, 1, 5), (0.5, 15, 8), (60.0, 1, 30)])
def test_retry_after_says_when_half_of_those_inside_or_as_many_as_asked_for_are_done(
    image_s: float, asked: int, seconds: int
) -> None:
    hall = Hall(images=20, state_bytes=20_000)
    hall.image_s = image_s
    hall.admission.acquire(20)
    with pytest.raises(OverloadedError) as caught:
        hall.admission.acquire(asked)
    assert caught.value.headers["Retry-After"] == str(seconds)


def test_draining_refuses_newcomers_and_keeps_those_inside() -> None:
    hall = Hall()
    with hall.admission.request():
        hall.admission.drain()
        assert not hall.admission.idle
        hall.admission.acquire(1)
        with pytest.raises(DrainingError) as caught, hall.admission.request():
            pytest.fail("came in")
        assert caught.value.headers["Retry-After"] == "1"
    assert not hall.admission.idle
    hall.admission.release()
    assert hall.admission.idle


def test_bodies_share_one_room_and_leave_it() -> None:
    hall = Hall(body_bytes=1000)
    with hall.admission.body() as take:
        take(600)
        with pytest.raises(OverloadedError, match="DVT_BODY_BYTES"), hall.admission.body() as other:
            other(300)
            other(200)
    with hall.admission.body() as take:
        take(1000)


@given(st.lists(st.integers(-3, 3), max_size=60))
def test_never_more_inside_than_the_limit_whatever_the_order(moves: list[int]) -> None:
    hall, inside = Hall(images=4), 0
    for move in moves:
        if move >= 0:
            try:
                hall.admission.acquire(move)
                inside += move
            except OverloadedError:
                assert inside + move > 4
        else:
            for _ in range(min(-move, inside)):
                hall.admission.release()
                inside -= 1
        assert (hall.admission.inside, hall.admission.reserved_bytes) == (inside, 1000 * inside)
        assert 0 <= inside <= 4

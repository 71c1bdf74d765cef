"""Who may come in: a place for a request, its body's bytes, a permit for each of its images; or a refusal at once."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.errors import DrainingError, OverloadedError, TooManyImagesError

_LONGEST_RETRY_S = 30


@dataclass(frozen=True)
class AdmissionLimits:
    """Most images at once, most bytes of state, what one image needs of those at worst, and bytes of bodies at once."""

    images: int
    state_bytes: int
    image_state_bytes: int
    body_bytes: int

    @property
    def permits(self) -> int:
        """Images that may be inside. Reserving each one's peak up front means that no hand-over ever has to wait."""
        return min(self.images, self.state_bytes // self.image_state_bytes)


class Admission:
    """Thread-safe: permits are taken in the event loop and given back by the engine.

    `work_s` says about how many seconds the engine needs for so many images inside.

    Raises `ValueError` where the limits leave no room for a single image.
    """

    def __init__(self, limits: AdmissionLimits, work_s: Callable[[int], float]) -> None:
        if limits.permits < 1:
            raise ValueError(
                f"one image needs {limits.image_state_bytes} bytes of state, the limit is {limits.state_bytes} "
                "(DVT_STATE_BYTES); raise it"
            )
        self.limits = limits
        self._work_s = work_s
        self._lock = threading.Lock()
        self._images = 0
        self._requests = 0
        self._body_bytes = 0
        self._draining = False
        self._offered = 0

    @property
    def inside(self) -> int:
        """Images that hold a permit."""
        return self._images

    @property
    def reserved_bytes(self) -> int:
        """Of state, for those."""
        return self._images * self.limits.image_state_bytes

    @property
    def offered(self) -> int:
        """Images that ever came, refused ones too (of a request that was refused unread, one)."""
        return self._offered

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def idle(self) -> bool:
        """Whether no request is inside. One that came in before `drain` is served to its end."""
        return self._requests == 0 and self._images == 0

    def drain(self) -> None:
        """From now on nobody comes in."""
        self._draining = True

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request is inside. Raises `DrainingError`, or `OverloadedError` when every permit is taken."""
        with self._lock:
            if self._draining:
                raise DrainingError("the service is shutting down; try again in a moment", retry_after_s=1)
            if self._images >= self.limits.permits:
                self._offered += 1
                raise self._overloaded(1)
            self._requests += 1
        try:
            yield
        finally:
            with self._lock:
                self._requests -= 1

    @contextmanager
    def body(self) -> Iterator[Callable[[int], None]]:
        """Gives a function that accounts for so many bytes more; it raises `OverloadedError` when there is no room."""
        held = 0

        def take(size_bytes: int) -> None:
            nonlocal held
            with self._lock:
                if self._body_bytes + size_bytes > self.limits.body_bytes:
                    raise OverloadedError(
                        f"the bodies of other requests fill the room of {self.limits.body_bytes} bytes "
                        "(DVT_BODY_BYTES); try again later",
                        retry_after_s=self._retry_after_s(1),
                    )
                self._body_bytes += size_bytes
                held += size_bytes

        try:
            yield take
        finally:
            with self._lock:
                self._body_bytes -= held

    def acquire(self, images: int) -> None:
        """Permits for so many images, all or none. Each is given back with `release`.

        Raises `OverloadedError`, or `TooManyImagesError` when even an idle service has not so many.
        """
        if images > self.limits.permits:
            raise TooManyImagesError(
                f"the request has {images} images, this service has room for {self.limits.permits} at once "
                "(DVT_QUEUE_LIMIT, DVT_STATE_BYTES); send fewer at a time"
            )
        with self._lock:
            self._offered += images
            if self._images + images > self.limits.permits:
                raise self._overloaded(images)
            self._images += images

    def release(self) -> None:
        """One image is done and holds nothing any more."""
        with self._lock:
            assert self._images > 0, "a permit was given back twice"
            self._images -= 1

    def waive(self) -> None:
        """Give back a permit that was not needed: nothing had to be computed, so no load was offered to the engine."""
        with self._lock:
            self._offered -= 1
        self.release()

    def _overloaded(self, images: int) -> OverloadedError:
        return OverloadedError(
            f"{self._images} images are being worked on, the limit is {self.limits.permits} (DVT_QUEUE_LIMIT, "
            f"DVT_STATE_BYTES): no room for {images} more; try again later",
            retry_after_s=self._retry_after_s(images),
        )

    def _retry_after_s(self, images: int) -> int:
        """Whole seconds until about half of what is inside is done, or as much as makes room for so many images.

        Half, since whoever is refused now comes again together with all others that were: they need room for many.
        """
        share = max(0.5, images / self.limits.permits)
        return min(_LONGEST_RETRY_S, max(1, math.ceil(share * self._work_s(self._images))))

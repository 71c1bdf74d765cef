"""Goes on with an image that was answered before, for one request: from what others have computed meanwhile where that
is enough, else from its kept state; and waits while somebody else goes on with it, so that no stage runs twice."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from service.api.deps import Service, check_engine
from service.api.mailbox import Mailbox
from service.api.tickets import Finished, News, Order, Ticket
from service.engine.exits import Word, replay
from service.engine.kept import Remembered
from service.errors import ServiceError, StateGoneError

# So often who waits looks whether there is still an engine: one that is lost tells nobody.
_LOOK_S = 0.25


def state_gone() -> StateGoneError:
    """One and the same for what is too old, and for what was never this key's: nobody learns of other people's."""
    return StateGoneError(
        "there is no state to go on from: it was kept for another key, at another replica or by another bundle, or its "
        "time (DVT_REFINE_SECONDS) or its place is gone; send the image to /classify again"
    )


class Refinement:
    """Its news go to the mailbox: exits beyond the one answered with before where `tells_exits`, then how it ended."""

    def __init__(
        self, service: Service, order: Order, found: Remembered, mailbox: Mailbox[News], *, tells_exits: bool
    ) -> None:
        self._service = service
        self._order = order
        self._work = found.work
        self._told = found.exit_number
        self._mailbox = mailbox
        self._changes: Mailbox[None] = Mailbox()
        self.ticket = Ticket(service, order, 0, mailbox.post, tells_exits=tells_exits)

    def step(self) -> bool:
        """Answer, or go on; False where somebody else is at it, and the next step is due after a change.

        Raises `AboveCeilingError`, `OverloadedError` or `StateGoneError`.
        """
        service, work = self._service, self._work
        while True:
            words = self._words()
            if words[-1].reason is not None:
                service.metrics.reuse("refine", "stored")
                self._tell(words[min(self._told, len(words) - 1) :])
                self.ticket.answer(work, words[-1])
                return True
            service.budget.check_ceiling(self._order.resolved)
            standing = service.kept.standing(work)
            if standing == "gone":
                service.metrics.reuse("refine", "missed")
                raise state_gone()
            if standing == "running":
                if service.kept.watch(work, len(words), lambda: self._changes.post(None)):
                    self._tell(words[self._told :])
                    return False
            elif self._resume(words):
                return True

    async def wait(self) -> None:
        """Step by step until it is answered or goes on."""
        while True:
            try:
                async with asyncio.timeout(min(_LOOK_S, self._left_s())):
                    await self._changes.take()
                has_changed = True
            except TimeoutError:
                has_changed = False
            try:
                if self._left_s() <= 0:
                    self.ticket.answer_late(self._work, self._words()[-1])
                    return
                check_engine(self._service)
                if has_changed and self.step():
                    return
            except ServiceError as error:
                self._mailbox.post(Finished(0, error))
                return

    def _words(self) -> tuple[Word, ...]:
        return replay(self._work.exits, self._order.rule, self._service.model.config.exits)

    def _resume(self, words: Sequence[Word]) -> bool:
        admission = self._service.admission
        admission.acquire(1)
        if not self.ticket.resume(self._work, words, told=self._told):
            admission.waive()
            return False
        self._service.metrics.reuse("refine", "resumed")
        return True

    def _tell(self, words: Sequence[Word]) -> None:
        for word in words:
            self.ticket.tell(word)
            self._told += 1

    def _left_s(self) -> float:
        deadline_s = self._order.deadline_s
        return _LOOK_S if deadline_s is None else max(0.0, deadline_s - self._service.clock())


@asynccontextmanager
async def refining(
    service: Service, order: Order, found: Remembered, *, tells_exits: bool = False
) -> AsyncIterator[Mailbox[News]]:
    """As `under_way`, for one image. Raises as the first step does."""
    mailbox: Mailbox[News] = Mailbox()
    refinement = Refinement(service, order, found, mailbox, tells_exits=tells_exits)
    timer, waiting = None, None
    try:
        if not refinement.step():
            waiting = asyncio.create_task(refinement.wait())
        if order.deadline_s is not None:
            remaining_s = max(0.0, order.deadline_s - service.clock())
            timer = asyncio.get_running_loop().call_later(remaining_s, refinement.ticket.expire)
        yield mailbox
    finally:
        if timer is not None:
            timer.cancel()
        if waiting is not None:
            waiting.cancel()
        refinement.ticket.leave()

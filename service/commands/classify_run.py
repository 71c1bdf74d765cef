"""The photos of one `dvt classify`, some at a time, told in the order in which they were named."""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from dvt_client import AsyncClient, ClassifyOptions, ErrorEvent, ImageResult, ProblemError, ResultEvent
from models.progress import Progress
from service.commands.classify_report import Answered, Failed, Outcome, Report, Tally
from service.commands.ending import Ending
from service.commands.photo_files import PhotoFile

# What the server says of one photo; any other refusal would meet the next photo too.
_OF_ONE_PHOTO = ("corrupt_image", "inference_failed", "deadline_exceeded")


@dataclass(frozen=True)
class Order:
    """One command: `url` is None where `bundle` (None: that of the settings) answers in this process."""

    photos: tuple[PhotoFile, ...]
    options: ClassifyOptions
    url: str | None
    key: str | None
    bundle: Path | None
    jobs: int
    is_stream: bool
    is_json: bool
    csv: Path | None

    @property
    def at_once(self) -> int:
        """A stream is followed one photo at a time."""
        return 1 if self.is_stream else min(self.jobs, len(self.photos))

    @property
    def has_bar(self) -> bool:
        """Where a person waits, and nothing else is written to that terminal."""
        return len(self.photos) > 1 and sys.stderr.isatty() and (self.csv is not None or not sys.stdout.isatty())


async def classify_all(order: Order, environment: Mapping[str, str]) -> int:
    """The exit code. Raises as the client does for what concerns all photos."""
    tally = Tally()
    with Report(is_json=order.is_json, csv_file=order.csv) as report, _progress(order) as progress:
        async with _client(order, environment) as client, aclosing(_outcomes(client, order, report)) as outcomes:
            async for outcome in outcomes:
                report.outcome(outcome)
                tally.add(outcome)
                if progress is not None:
                    progress.update(tally.photos, len(order.photos))
    if tally.photos > 1:
        print(tally.in_words(), file=sys.stderr)
    return Ending.IMAGES_FAILED if tally.failed else Ending.DONE


def _progress(order: Order) -> AbstractContextManager[Progress | None]:
    return Progress("classify", "photos") if order.has_bar else nullcontext()


@asynccontextmanager
async def _client(order: Order, environment: Mapping[str, str]) -> AsyncIterator[AsyncClient]:
    if order.url is not None:
        async with AsyncClient(order.url, key=order.key) as client:
            yield client
        return
    from service.commands.in_process import client_in_process

    async with client_in_process(environment, order.bundle, order.at_once) as client:
        yield client


async def _outcomes(client: AsyncClient, order: Order, report: Report) -> AsyncGenerator[Outcome, None]:
    """In the order of the photos, `at_once` of them on their way."""
    started: deque[asyncio.Task[Outcome]] = deque()
    try:
        for photo in order.photos:
            started.append(asyncio.create_task(_outcome(client, order, photo, report)))
            if len(started) == order.at_once:
                yield await started.popleft()
        while started:
            yield await started.popleft()
    finally:
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)


async def _outcome(client: AsyncClient, order: Order, photo: PhotoFile, report: Report) -> Outcome:
    try:
        data = await asyncio.to_thread(photo.read)
    except OSError as error:
        return Failed(photo.name, "unreadable_file", str(error))
    try:
        result = await (_follow(client, order, photo, data, report) if order.is_stream else _ask(client, order, data))
    except ProblemError as error:
        if error.status in (400, 413, 415) or error.code in _OF_ONE_PHOTO:
            return Failed(photo.name, error.code, error.detail)
        raise
    if result is None:
        return Failed(photo.name, "no_photo", "it holds several images or none, not one")
    return Answered(photo.name, result)


async def _ask(client: AsyncClient, order: Order, data: bytes) -> ImageResult | None:
    answer = await client.classify(data, **order.options)
    return answer.result if len(answer.results) == 1 else None


async def _follow(
    client: AsyncClient, order: Order, photo: PhotoFile, data: bytes, report: Report
) -> ImageResult | None:
    results = []
    async with aclosing(client.stream(data, **order.options)) as events:
        async for event in events:
            report.event(photo.name, event)
            if isinstance(event, ResultEvent):
                results.append(event.result)
            elif isinstance(event, ErrorEvent):
                raise ProblemError(event.error)
    return results[0] if len(results) == 1 else None

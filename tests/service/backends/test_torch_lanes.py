"""What a lane asks of CUDA, in which order: on a CUDA that only notes it, and computes at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from service.backends import torch_lanes
from service.backends.cudagraph import StageGraph
from service.backends.torch_lanes import Lane, Numbers, StreamLane
from service.backends.torch_stages import Computed

HERE = torch.device("cpu")


@dataclass(eq=False)
class Noted:
    """What was asked, in order."""

    asked: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, *words: str) -> None:
        self.asked.append(words)

    def since(self) -> list[tuple[str, ...]]:
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    noted = Noted()
    made = iter(range(100))

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self.name = f"stream {next(made)}"
            self.device = device

        def wait_event(self, event: "Event") -> None:
            noted(self.name, "waits for", event.name)

    class Event:
        def __init__(self) -> None:
            self.name = f"event {next(made)}"

        def record(self, stream: Stream) -> None:
            noted(stream.name, "records", self.name)

        def synchronize(self) -> None:
            noted("host", "waits for", self.name)

    class Graph:
        def replay(self) -> None:
            noted("graph", "replays")

    @contextmanager
    def stream(stream: Stream) -> Iterator[None]:
        noted("into", stream.name)
        yield
        noted("out of", stream.name)

    @contextmanager
    def graph(graph: Graph, pool: object, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        noted("captures", stream.name)
        yield
        noted("has captured", stream.name)

    for name, fake in {"Stream": Stream, "Event": Event, "stream": stream, "CUDAGraph": Graph, "graph": graph}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: noted("workspaces", "let go"), raising=False)
    monkeypatch.setattr(torch_lanes, "pinned", lambda shape, dtype: torch.empty(shape, dtype=dtype))
    return noted


def lanes(count: int) -> list[StreamLane]:
    """Lane k has stream 3k, its mark is event 3k + 1, its results' event 3k + 2."""
    return [StreamLane(HERE, max_batch=4) for _ in range(count)]


def test_work_comes_after_what_others_have_marked_and_not_after_its_own(noted: Noted) -> None:
    first, second = lanes(2)
    with first.working(after=(Lane(), first, second)):
        noted("work")
    assert noted.since() == [
        ("into", "stream 0"),
        ("stream 0", "waits for", "event 4"),
        ("work",),
        ("out of", "stream 0"),
    ]
    second.mark()
    assert noted.since() == [("stream 3", "records", "event 4")]


def test_results_are_waited_for_by_one_event_and_are_nobody_elses_memory(noted: Noted) -> None:
    (lane,) = lanes(1)
    results = torch.arange(6.0).reshape(3, 2)
    found = lane.fetch(results)
    assert noted.since() == [("stream 0", "records", "event 2"), ("host", "waits for", "event 2")]
    lane.fetch(results + 100)
    np.testing.assert_array_equal(found, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(lane.fetch(torch.tensor([[7.0, 8.0]])), [[7, 8]])
    assert lane.fetch(torch.ones(2, 2, dtype=torch.float64)).dtype == np.float64


@pytest.mark.parametrize("purpose", list(Numbers))
def test_numbers_lie_where_they_lay_before_and_leave_those_of_other_purposes_alone(
    noted: Noted, purpose: Numbers
) -> None:
    (lane,) = lanes(1)
    places = {each: lane.numbers(each, [10 * each, 10 * each + 1]) for each in Numbers}
    again = lane.numbers(purpose, [7, 8, 9])
    assert again.data_ptr() == places[purpose].data_ptr()
    assert again.tolist() == [7, 8, 9]
    for other in set(Numbers) - {purpose}:
        assert places[other].tolist() == [10 * other, 10 * other + 1]


def test_the_host_waits_for_no_numbers_of_a_batch_whose_predecessor_was_waited_for_as_a_whole(noted: Noted) -> None:
    (lane,) = lanes(1)
    lane.numbers(Numbers.BATCH, [1])
    assert noted.since() == []
    lane.numbers(Numbers.ROWS, [1])
    assert noted.since() == [("host", "waits for", "event 1")]


def test_a_graph_is_captured_in_its_lanes_stream_with_workspaces_of_its_own(noted: Noted) -> None:
    (lane,) = lanes(1)
    runs: list[Sequence[int]] = []

    def compute(index: Tensor) -> Computed:
        runs.append(index.tolist())
        return Computed(torch.zeros(2, 5), torch.zeros(2, 11), {})

    with lane.working():
        graph = StageGraph(compute, lane.numbers(Numbers.BATCH, [3, 4]), lane, None)
        noted.since()
        graph.replay(lane.numbers(Numbers.BATCH, [5, 6]))
        assert noted.since() == [("graph", "replays")]
    assert runs == [[3, 4]] * 4


def test_workspaces_are_let_go_between_the_first_runs_and_the_capture(noted: Noted) -> None:
    (lane,) = lanes(1)

    def compute(index: Tensor) -> Computed:
        noted("computes")
        return Computed(torch.zeros(2, 5), torch.zeros(2, 11), {})

    StageGraph(compute, lane.numbers(Numbers.BATCH, [3, 4]), lane, None)
    assert noted.since() == [
        *[("computes",)] * 3,
        ("workspaces", "let go"),
        ("captures", "stream 0"),
        ("computes",),
        ("has captured", "stream 0"),
    ]


@pytest.mark.parametrize("kind", ["cpu", "streams"])
def test_a_lane_is_one_threads_at_a_time(kind: str, noted: Noted) -> None:
    lane = Lane() if kind == "cpu" else lanes(1)[0]
    with lane.working():
        assert torch.is_inference_mode_enabled()
        assert not lane._turn.acquire(blocking=False)
    assert lane._turn.acquire(blocking=False)

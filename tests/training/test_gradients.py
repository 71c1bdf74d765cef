"""A step's gradients are those of autograd, however they come about."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from training.gradients import Gradients, GraphedGradients
from training.losses import CascadeLoss, LossConfig, cascade_loss

on_gpu = pytest.mark.gpu


class Problem:
    """A small network, its loss, and batches for it, all on one device."""

    def __init__(self, device: str) -> None:
        torch.manual_seed(0)
        self.device = device
        self.network = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3)).to(device)
        self.parameters = list(self.network.parameters())

    def loss(self, tensors: Sequence[Tensor]) -> CascadeLoss:
        images, targets = tensors
        logits = self.network(images)
        return cascade_loss([logits, 2 * logits], targets, LossConfig(distill_from="last", distill_weight=0.5))

    def batch(self, seed: int, size: int = 4) -> list[Tensor]:
        draw = torch.Generator().manual_seed(seed)
        targets = torch.softmax(torch.randn(size, 3, generator=draw), 1)
        return [torch.randn(size, 8, generator=draw).to(self.device), targets.to(self.device)]

    def expected(self, batch: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.loss(batch).total, self.parameters)

    def found(self) -> list[Tensor]:
        assert all(parameter.grad is not None for parameter in self.parameters)
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]


@pytest.mark.parametrize(
    ("kind", "device"),
    [
        (Gradients, "cpu"),
        pytest.param(Gradients, "cuda", marks=on_gpu),
        pytest.param(GraphedGradients, "cuda", marks=on_gpu),
    ],
)
def test_gradients_are_of_the_last_batch_alone_also_when_weights_moved_and_its_size_is_another(
    kind: type[Gradients], device: str
) -> None:
    problem = Problem(device)
    gradients = kind(problem.loss, problem.network)
    for seed, size in enumerate((4, 4, 2, 4)):
        batch = problem.batch(seed, size)
        expected = problem.expected(batch)
        loss = gradients(batch)
        torch.testing.assert_close(float(loss.total.detach()), float(problem.loss(batch).total.detach()))
        for ours, theirs in zip(problem.found(), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        with torch.no_grad():
            for parameter, grad in zip(problem.parameters, problem.found(), strict=True):
                parameter.sub_(0.1 * grad)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A CUDA that takes notes, and computes on the CPU what it is to capture: the first replay has then been done."""
    noted: list[str] = []

    class Stream:
        def wait_stream(self, stream: "Stream") -> None:
            pass

    class Graph:
        def replay(self) -> None:
            noted.append("replay")

    @contextmanager
    def within(stream: Stream) -> Iterator[None]:
        noted.append("aside")
        yield
        noted.append("back")

    @contextmanager
    def capture(graph: Graph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        noted.append(f"capture, errors {capture_error_mode}")
        yield
        noted.append("captured")

    fakes = {"Stream": Stream, "current_stream": Stream, "stream": within, "CUDAGraph": Graph, "graph": capture}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: noted.append("clear"), raising=False)
    return noted


def test_a_graph_is_captured_aside_with_workspaces_of_its_own_while_other_threads_go_on(noted: list[str]) -> None:
    problem = Problem("cpu")

    def loss(tensors: Sequence[Tensor]) -> CascadeLoss:
        noted.append("loss")
        return problem.loss(tensors)

    GraphedGradients(loss, problem.network)(problem.batch(0))
    warm_up = ["aside", *["loss"] * 3, "clear"]
    assert noted == [*warm_up, "capture, errors thread_local", "loss", "captured", "back", "replay"]


@pytest.mark.parametrize("device", ["noted", pytest.param("cuda", marks=on_gpu)])
def test_running_statistics_move_once_a_step_however_often_it_is_warmed_up(
    device: str, request: pytest.FixtureRequest
) -> None:
    if device == "noted":
        request.getfixturevalue("noted")
    problem = Problem("cpu" if device == "noted" else device)
    problem.network.insert(1, nn.BatchNorm1d(16).to(problem.device))
    once = copy.deepcopy(problem.network)
    batch = problem.batch(0)
    once(batch[0])
    GraphedGradients(problem.loss, problem.network)(batch)
    for ours, theirs in zip(problem.network.buffers(), once.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)

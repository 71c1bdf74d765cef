"""What a way must show before it is given a time, and what it is given none for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import ways
from benchmarks.gpu.document import Ceilings, WayMeasured
from benchmarks.gpu.roofline import Product
from benchmarks.gpu.ways import Case, as_served, measure, relative_error, sets_of

CPU = torch.device("cpu")
CEILINGS = Ceilings("a device", "2", matrix_tflops=1e-9, copy_tb_per_s=1.0)


def of(way: Callable[[Tensor], tuple[Tensor, ...]]) -> WayMeasured:
    doubled = Case(
        "doubled",
        3,
        "float32",
        Product(4000, 10),
        lambda seed: torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)),
        lambda given: (2 * given[:2].double(),),
        {"way": lambda _: way},
    )
    (row,) = measure(doubled, CEILINGS, CPU)
    return row


def test_what_is_close_to_float64_is_timed_and_held_against_the_ceilings() -> None:
    row = of(lambda given: (given + given,))
    assert (row.case, row.images, row.precision, row.way) == ("doubled", 3, "float32", "way")
    assert row.error is not None and row.error < 1e-6 and row.seconds is not None and row.seconds > 0
    assert row.least_seconds == pytest.approx(4.0)
    assert row.reason is None


def test_what_computes_something_else_is_given_no_time() -> None:
    row = of(lambda given: (2.01 * given,))
    assert (row.error, row.seconds, row.reason) == (None, None, "0.005 from float64")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("image", [0, 2])  # among those that are compared, and after them
def test_nan_never_passes(value: float, image: int) -> None:
    def way(given: Tensor) -> tuple[Tensor, ...]:
        found = 2 * given
        found[image, 1] = value
        return (found,)

    row = of(way)
    assert row.error is None and row.seconds is None
    assert row.reason == "nan from float64"


def test_what_raises_is_said_and_the_others_go_on() -> None:
    def way(given: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError("no such kernel\nand much more")

    row = of(way)
    assert (row.error, row.seconds, row.reason) == (None, None, "NotImplementedError: no such kernel")


def test_every_output_counts() -> None:
    exact = (torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    assert relative_error((torch.ones(2), torch.tensor([1.0, 1.5])), exact) == pytest.approx(0.5 / 2**0.5)


def test_sets_of_operands_take_turns_until_the_cache_has_forgotten_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class H100:
        L2_cache_size = 50 * 2**20

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: H100)
    on_cuda = torch.device("cuda")
    for set_bytes in (400_000, 10**6, 10**8):
        others_bytes = (sets_of(set_bytes, on_cuda) - 1) * set_bytes
        assert others_bytes + set_bytes > 3 * H100.L2_cache_size or set_bytes > H100.L2_cache_size
    assert sets_of(1, on_cuda) == 512
    assert sets_of(1, CPU) == 1


class Notes(list[str]):
    """A CUDA that takes notes, in place of its streams and graphs."""

    def note(self, word: str) -> None:
        self.append(word)

    def wait_stream(self, stream: object) -> None:
        pass

    def replay(self) -> None:
        self.note("replay")

    @contextmanager
    def within(self, began: str, ended: str) -> Iterator[None]:
        self.note(began)
        try:
            yield
        finally:
            self.note(ended)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Notes:
    cuda = Notes()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: cuda)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: cuda)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: cuda.within("aside", "back"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: cuda.within("capture", "captured"))
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: cuda.note("clear"), raising=False)
    return cuda


def test_on_cuda_all_sets_are_one_captured_graph_that_was_warmed_up_before(
    cuda: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replayed_seconds(run: Callable[[], object], device: torch.device) -> float:
        run()
        return 6.0

    monkeypatch.setattr(ways, "device_seconds", replayed_seconds)

    def way(given: str) -> tuple[Tensor, ...]:
        cuda.note(given)
        return ()

    assert ways.seconds_of_a_set(way, ["a", "b", "c"], torch.device("cuda")) == 2.0
    warm_up = ["aside", *"abcabcabc", "back"]
    assert cuda == [*warm_up, "clear", "aside", "capture", *"abc", "captured", "back", "replay"]


def test_a_capture_that_fails_leaves_the_stream_as_it_was(cuda: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def invalidated(graph: Notes, stream: Notes) -> Iterator[None]:
        yield
        raise RuntimeError("capture was invalidated")

    monkeypatch.setattr(torch.cuda, "graph", invalidated)
    with pytest.raises(RuntimeError, match="invalidated"):
        ways.seconds_of_a_set(lambda given: (), ["a"], torch.device("cuda"))
    assert cuda == ["aside", "back", "clear", "aside", "back"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_under_autocast_as_backends_do(dtype: torch.dtype) -> None:
    seen: list[torch.dtype] = []
    as_served(torch.ones(2, dtype=dtype), lambda: seen.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype))
    as_served(torch.ones(2), lambda: seen.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype))
    assert seen == [dtype, torch.float32]

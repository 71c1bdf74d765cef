"""What was measured is kept at once and not measured again, whatever ends a run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dvt
from benchmarks.gpu import command
from benchmarks.gpu.command import DeviceLostError, measure
from benchmarks.gpu.document import FILE, Decoding, Failure, GpuDocument, WayMeasured
from benchmarks.gpu.pieces import Piece, Plan, pieces
from benchmarks.photos import load_photos
from benchmarks.result_files import write_results
from tests.benchmarks.gpu.measured import CEILINGS
from tests.benchmarks.test_plan import ENVIRONMENT

EMPTY = GpuDocument(ENVIRONMENT, CEILINGS)


class Bench:
    """Pieces named by a letter, each a row of its own; `fails`: those that raise this."""

    def __init__(self, letters: str, fails: str = "", error: BaseException | None = None) -> None:
        self.pieces = [self._piece(letter) for letter in letters]
        self.kept: list[GpuDocument] = []
        self.tried = ""
        self._fails, self._error = fails, error or RuntimeError("no memory\nand much more")

    def _piece(self, letter: str) -> Piece:
        def add_to(document: GpuDocument) -> GpuDocument:
            self.tried += letter
            if letter in self._fails:
                raise self._error
            return replace(document, relations=(*document.relations, row(letter)))

        return Piece(letter, lambda document: letter in measured(document), add_to)


def row(letter: str) -> WayMeasured:
    return WayMeasured(letter, None, None, "a case", 1, "float32", 1.0)


def measured(document: GpuDocument) -> str:
    return "".join(row.way for row in document.relations)


def test_every_piece_is_kept_as_soon_as_it_is_there() -> None:
    bench = Bench("abc")
    assert measured(measure(bench.pieces, EMPTY, bench.kept.append)) == "abc"
    assert [measured(document) for document in bench.kept] == ["a", "ab", "abc"]


def test_a_run_that_was_cut_off_goes_on_where_it_stopped() -> None:
    bench = Bench("abc", fails="b", error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        measure(bench.pieces, EMPTY, bench.kept.append)
    again = Bench("abc")
    assert measured(measure(again.pieces, bench.kept[-1], again.kept.append)) == "abc"
    assert again.tried == "bc"


def test_nothing_is_begun_once_time_is_up() -> None:
    bench = Bench("abc")
    document = measure(bench.pieces, EMPTY, bench.kept.append, is_late=lambda: len(bench.kept) == 2)
    assert (measured(document), bench.tried) == ("ab", "ab")


def test_a_piece_that_fails_is_named_and_the_others_are_measured() -> None:
    bench = Bench("abc", fails="b")
    document = measure(bench.pieces, EMPTY, bench.kept.append)
    assert measured(document) == "ac"
    assert document.failures == (Failure("b", "RuntimeError: no memory"),)
    assert bench.kept[-1] == document


def test_what_failed_is_tried_again_last_and_forgotten_once_it_works() -> None:
    failed = measure((first := Bench("ab", fails="a")).pieces, EMPTY, first.kept.append)
    again = Bench("abc")
    document = measure(again.pieces, failed, again.kept.append)
    assert (again.tried, document.failures) == ("ca", ())


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CUDA is asked, it says what went wrong before."""

    def ask() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nand much advice")

    monkeypatch.setattr(torch.cuda, "empty_cache", ask)


@pytest.mark.usefixtures("lost")
def test_the_piece_after_which_the_device_is_lost_is_kept_and_the_last() -> None:
    bench = Bench("abc", fails="b")
    with pytest.raises(DeviceLostError):
        measure(bench.pieces, replace(EMPTY, relations=(row("a"),)), bench.kept.append)
    assert bench.tried == "b"
    assert [failure.piece for failure in bench.kept[-1].failures] == ["b"]


@pytest.mark.usefixtures("lost")
def test_a_lost_device_is_said_last_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "pieces", lambda plan, device: Bench("a").pieces)
    known = replace(EMPTY, ceilings=replace(CEILINGS, torch=torch.__version__))
    write_results(known, tmp_path / FILE.format(device="cpu"))
    assert dvt.main(["bench", "gpu", "--device", "cpu", "--results", str(tmp_path)]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        "dvt bench gpu: the device is lost: CUDA error: an illegal memory access was encountered; "
        "the same command goes on"
    )


def test_the_gpu_that_is_named_is_taken_before_anything_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class TakenError(Exception):
        pass

    def take(device: torch.device) -> None:
        raise TakenError(str(device))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", take)
    with pytest.raises(TakenError, match="cuda:1"):
        dvt.main(["bench", "gpu", "--device", "cuda:1"])


def plan(bundles: Path, *architectures: str) -> Plan:
    photos = load_photos(None, 1, 0)
    return Plan(architectures, ("cudagraph", "eager"), (1, 256, 8), (1, 64), (1,), 10, "float32", bundles, photos)


def test_the_most_telling_comes_first(tmp_path: Path) -> None:
    notes = [piece.note for piece in pieces(plan(tmp_path, "dvt_micro"), torch.device("cpu"))]
    assert notes[:7] == [
        "decoding",
        "dvt_micro, cudagraph, batch 256",
        "dvt_micro, cudagraph, batch 1",
        "dvt_micro, cudagraph, batch 8",
        "dvt_micro, cudagraph, by the device's own time stamps",
        "dvt_micro, cudagraph, 64 inside",
        "dvt_micro, cudagraph, 1 inside",
    ]
    assert all("eager" in note for note in notes[7:13])
    assert notes[13:], "kernels, which take long to compile"
    assert not any("dvt_micro" in note for note in notes[13:])
    assert len(set(notes)) == len(notes), "a failure is found again by its piece's name"


def test_nothing_is_measured_for_an_architecture_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown architecture"):
        list(pieces(plan(tmp_path, "dvt_micro", "dvt_nothing"), torch.device("cpu")))


def test_what_was_measured_with_another_pytorch_is_not_mixed_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = replace(EMPTY, decoding=Decoding("photos", 1.0, 32, ()))
    write_results(known, tmp_path / FILE.format(device="cpu"))
    arguments = ["--device", "cpu", "--architectures", "dvt_micro", "--minutes", "0.001", "--results", str(tmp_path)]
    assert dvt.main(["bench", "gpu", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "was measured with PyTorch 2.11.0" in line
    assert "move it away" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--backends", "cudagraph,onnx"), "--backends has 'onnx'"),
        (("--architectures", "dvt_nothing"), "unknown architecture"),
        (("--data", "nowhere"), "has no JPEG files below it"),
        (("--device", "gpu"), "is no device of PyTorch"),
        (("--device", "meta"), "is not here"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dvt.main(["bench", "gpu", "--device", "cpu", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dvt bench gpu: ")
    assert says in line

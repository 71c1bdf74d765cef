"""Pictures: they show the numbers they were given, and survive logs as they really are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.profiles import ExitProfile, OperatingPoint, Profiles
from training.plots import plot_exits, plot_frontier, plot_learning_curves, plot_reliability
from training.temperature import Reliability

LOG = """step,epoch,loss,lr,images_per_s,exit1_top1,exit2_top1
10,0,2.3,0.001,100.0,,
20,0,1.9,0.001,101.0,0.310000,0.350000
30,1,1.5,0.0005,102.0,,
40,1,1.2,0.0001,99.0,0.520000,0.610000
"""


def ink(png: Path) -> np.ndarray:
    """How much is drawn in each half (left, right), as mean darkness."""
    with Image.open(png) as image:
        pixels = 255 - np.asarray(image.convert("L"), dtype=np.float64)
    halves = np.array_split(pixels, 2, axis=1)
    return np.array([half.mean() for half in halves])


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_learning_curves_show_loss_and_the_exits_top1(tmp_path: Path) -> None:
    with_top1, without = tmp_path / "with.png", tmp_path / "without.png"
    plot_learning_curves(written(tmp_path / "log.csv", LOG), with_top1)
    unmeasured = "\n".join(line for line in LOG.splitlines() if not line.startswith(("20", "40")))
    plot_learning_curves(written(tmp_path / "unmeasured.csv", unmeasured), without)
    assert ink(with_top1)[0] > 0
    assert ink(with_top1)[1] > ink(without)[1], "the right half gains two curves and a legend"


@pytest.mark.parametrize("text", ["", "step,epoch,loss\n", "a,b\n1,2\n"])
def test_a_log_without_rows_or_columns_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_learning_curves(written(tmp_path / "log.csv", text), tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_a_log_cut_in_the_middle_of_a_measured_row_is_drawn(tmp_path: Path) -> None:
    """A killed run may leave a last row without its end."""
    plot_learning_curves(written(tmp_path / "log.csv", LOG + "50,2,1.1"), tmp_path / "curves.png")
    assert ink(tmp_path / "curves.png").min() > 0


def test_exits_alone_make_a_picture(tmp_path: Path) -> None:
    plot_exits([0.1, 0.4, 0.9], [0.92, 0.94, 0.95], tmp_path / "exits.png")
    assert ink(tmp_path / "exits.png").min() > 0


def test_the_frontier_picture_names_its_profiles(tmp_path: Path) -> None:
    cheap = OperatingPoint((0.3,), 0.90, 0.2, (0.8, 0.2))
    dear = OperatingPoint((None,), 0.95, 0.9, (0.0, 1.0))
    profiles = Profiles(
        "0" * 64,
        "1" * 64,
        "max_softmax",
        (ExitProfile(7, 0.1, 0.88), ExitProfile(14, 0.9, 0.95)),
        (),
        (cheap, dear),
        {"fast": cheap, "balanced": cheap, "accurate": dear, "full": dear},
    )
    plot_frontier(profiles, "a bundle", tmp_path / "named.png")
    assert ink(tmp_path / "named.png").min() > 0


def test_every_exit_shows_how_honest_it_is(tmp_path: Path) -> None:
    sure = Reliability(np.array([0.5, 0.95]), np.array([0.4, 0.7]), np.array([0.2, 0.8]))
    honest = Reliability(np.array([0.45, 0.72]), np.array([0.44, 0.7]), np.array([0.3, 0.7]))
    assert sure.ece == pytest.approx(0.2 * 0.1 + 0.8 * 0.25)
    plot_reliability([(sure, honest)] * 3, "a bundle", tmp_path / "three.png")
    plot_reliability([(honest, honest)], "a bundle", tmp_path / "one.png")
    with Image.open(tmp_path / "three.png") as three, Image.open(tmp_path / "one.png") as one:
        assert three.width > 2 * one.width
    assert (ink(tmp_path / "three.png") > 0).all()

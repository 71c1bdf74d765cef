from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.config import InputConfig
from models.preprocess import preprocess
from tests.training.image_trees import write_tree
from training.data import (
    DataError,
    DecodedImages,
    ImageFolder,
    ImageList,
    StreamedImages,
    batches,
    decode_all,
    evaluation_orders,
    open_images,
)
from training.seeds import epoch_order

CONFIG = InputConfig(size_px=8, resize_px=8)


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    return ImageFolder.scan(write_tree(tmp_path, train={"a": 40, "b": 30}, report={"a": 1})).train


def damage(images: ImageList, *paths: str) -> None:
    """One cut short, the others not images at all."""
    first = images.root / paths[0]
    first.write_bytes(first.read_bytes()[:100])
    for path in paths[1:]:
        (images.root / path).write_bytes(b"not an image")


def test_decoded_images_are_those_of_the_evaluation_transform(images: ImageList) -> None:
    decoded = decode_all(images, CONFIG, threads=2)
    assert decoded.images.dtype == torch.uint8
    assert decoded.images.shape == (70, 3, 8, 8)
    np.testing.assert_array_equal(decoded.images[:, 0, 0, 0].numpy(), np.arange(70))
    with Image.open(images.root / images.paths[33]) as image:
        np.testing.assert_array_equal(decoded.images[33].numpy(), preprocess(image, CONFIG))


def test_unreadable_images_are_named_and_left_out(images: ImageList) -> None:
    damage(images, "train/a/0003.png", "train/b/0000.png")
    decoded = decode_all(images, CONFIG)
    assert [found.path for found in decoded.unreadable] == ["train/a/0003.png", "train/b/0000.png"]
    assert all(found.reason for found in decoded.unreadable)
    expected = [i for i in range(70) if i not in (3, 40)]
    assert decoded.images[:, 0, 0, 0].tolist() == expected
    assert decoded.kept.paths == tuple(images.paths[i] for i in expected)
    np.testing.assert_array_equal(decoded.targets, images.targets[expected])


def test_a_set_without_one_readable_image_is_an_error(images: ImageList) -> None:
    part = images.subset(np.array([0, 1]))
    damage(part, *part.paths)
    with pytest.raises(DataError, match=r"none of the 2 images could be read, the first: train/a/0000\.png"):
        decode_all(part, CONFIG)


def test_a_bug_does_not_pass_for_an_unreadable_image(images: ImageList, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(image: Image.Image, config: InputConfig) -> None:
        raise AttributeError("a bug")

    monkeypatch.setattr("training.data.preprocess", broken)
    with pytest.raises(AttributeError):
        decode_all(images, CONFIG)


def test_progress_counts_up_to_all_images(images: ImageList) -> None:
    seen: list[tuple[int, int]] = []
    decode_all(images, CONFIG, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(32, 70), (64, 70), (70, 70)]


def test_streamed_batches_equal_batches_from_memory_also_around_unreadable_images(images: ImageList) -> None:
    damage(images, "train/a/0003.png", "train/b/0000.png")
    memory = decode_all(images, CONFIG)
    row_of = {path: row for row, path in enumerate(memory.kept.paths)}
    with StreamedImages(images, CONFIG, threads=2) as stream:
        assert len(stream) == 70
        for batch in batches(stream, evaluation_orders(70, 16)):
            same = memory.batch(np.array([row_of[images.paths[i]] for i in batch.indices]))
            assert torch.equal(batch.images, same.images)
            assert torch.equal(batch.targets, same.targets)
        assert {found.path for found in stream.unreadable} == {"train/a/0003.png", "train/b/0000.png"}


@pytest.mark.parametrize("ahead", [0, 1, 3, 100])
def test_batches_come_in_the_order_asked_for_however_many_are_prepared_ahead(images: ImageList, ahead: int) -> None:
    orders = np.split(epoch_order(70, seed=5, epoch=2), 7)
    with StreamedImages(images, CONFIG, threads=2) as stream:
        served = [batch.indices.tolist() for batch in batches(stream, orders, ahead=ahead)]
    assert served == [order.tolist() for order in orders]


def test_leaving_a_loop_over_batches_early_ends_its_thread(images: ImageList) -> None:
    with StreamedImages(images, CONFIG, threads=1) as stream:
        loop = batches(stream, evaluation_orders(70, 10))
        assert next(loop).indices.tolist() == list(range(10))
        loop.close()
        assert stream.batch(np.array([69])).images[0, 0, 0, 0] == 69


def test_a_batch_without_one_readable_image_is_an_error(images: ImageList) -> None:
    damage(images, "train/a/0000.png")
    with StreamedImages(images, CONFIG) as stream, pytest.raises(DataError, match=r"train/a/0000\.png"):
        stream.batch(np.array([0]))


def test_what_takes_more_than_the_limit_is_streamed(images: ImageList) -> None:
    needed = 70 * 3 * 8 * 8
    assert isinstance(open_images(images, CONFIG, limit_bytes=needed), DecodedImages)
    stream = open_images(images, CONFIG, limit_bytes=needed - 1)
    assert isinstance(stream, StreamedImages)
    stream.close()


@pytest.mark.parametrize(("n", "sizes"), [(0, [0]), (5, [5]), (16, [16]), (17, [16, 1]), (32, [16, 16])])
def test_evaluation_covers_all_images_in_order(n: int, sizes: list[int]) -> None:
    orders = evaluation_orders(n, 16)
    assert [len(order) for order in orders] == sizes
    np.testing.assert_array_equal(np.concatenate(orders), np.arange(n))

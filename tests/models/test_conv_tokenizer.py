"""The convolutional tokeniser's normalisation is PyTorch's own, and no image's tokens depend on its batch."""

import torch
from torch import nn

from models.config import ConvStep, ConvTokenizer
from models.conv_tokenizer import BatchNorm, ConvTokens


def test_normalisation_is_batch_normalisation_in_training_and_after() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(4), nn.BatchNorm2d(4)
    for _ in range(3):
        images = torch.randn(8, 4, 5, 5) * 3 + 1
        torch.testing.assert_close(ours(images), theirs(images))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    images = torch.randn(8, 4, 5, 5)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_after_training_the_tokens_of_an_image_do_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    tokens = ConvTokens(ConvTokenizer(16, (ConvStep(8, 2, residuals=1), ConvStep(16, 2))), dim=12)
    images = torch.randn(6, 3, 16, 16)
    tokens(images)
    tokens.eval()
    torch.testing.assert_close(tokens(images)[2:3], tokens(images[2:3]))

"""A GPU that is named is the one that PyTorch takes where it is told none."""

import pytest
import torch

from models.devices import use


@pytest.mark.parametrize(("name", "taken"), [("cuda:1", ["cuda:1"]), ("cuda", []), ("cpu", [])])
def test_only_a_gpu_with_a_number_is_taken(name: str, taken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: asked.append(str(device)))
    use(torch.device(name))
    assert asked == taken

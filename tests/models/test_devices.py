"""A GPU that is named is the one that PyTorch takes where it is told none."""

import pytest
import torch

from models.devices import use


@pytest.mark.parametrize(("name", "taken"), [("cuda:1", ["cuda:1"]), ("cuda", []), ("cpu", [])])
def test_only_a_gpu_with_a_number_is_taken(name: str, taken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: asked.append(str(device)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    use(torch.device(name))
    assert asked == taken


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="there is no cuda:7 here: PyTorch sees 2 GPU"):
        use(torch.device("cuda:7"))

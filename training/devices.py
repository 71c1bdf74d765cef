"""Which device to compute on, and a model put there."""

import os
import platform
from typing import Literal

import torch

from models.dvt import DVT
from training.memory import keep_freed_memory


def choose_device(wanted: str) -> torch.device:
    """The device that "auto", "cpu", "cuda" or "cuda:N" means here; under `torchrun`, each process its own GPU.

    Raises `ValueError` for one that is unknown or absent.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "auto":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if has_gpu else torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ValueError(f"there is no device {wanted!r}; give auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {wanted!r} is not supported; give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not has_gpu:
        raise ValueError(f"device {wanted!r} was asked for, but PyTorch sees no GPU here; give --device cpu")
    return device


def gains_by_bf16(device: torch.device) -> bool:
    """Whether products of bf16 are quicker there than of fp32: GPUs that multiply them natively, and such CPUs."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def computes_in(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """What products are computed in there."""
    halved = precision == "bf16" or (precision == "auto" and gains_by_bf16(device))
    return torch.bfloat16 if halved else torch.float32


def device_name(device: torch.device) -> str:
    """For people."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} with {torch.get_num_threads()} threads"


def spare_bytes(device: torch.device) -> int:
    """What training data may take of a device: a third of what is free there, for the network needs the most of it; on
    the CPU nothing, where the data lies already."""
    return int(torch.cuda.mem_get_info(device)[0] // 3) if device.type == "cuda" else 0


def placed(model: DVT, device: torch.device | str) -> DVT:
    """The model on a device, its convolutions laid out as they run fastest; on a CPU, freed memory is kept from now on.

    Both together are worth a factor of several for the pretrained stem on a CPU (docs/experiments.md).
    """
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return model

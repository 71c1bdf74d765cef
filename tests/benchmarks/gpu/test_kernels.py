"""Kernels are measured at the sizes that published cascades have, each once."""

from dataclasses import replace

import pytest
import torch

from benchmarks.gpu.document import Ceilings, GpuDocument
from benchmarks.gpu.kernels import kernel_cases
from benchmarks.gpu.tables import tables
from benchmarks.machine import environment
from models import strict_json

CPU = torch.device("cpu")
CEILINGS = Ceilings("a device", "2", 1.0, 1.0)


def test_a_published_cascade_has_these() -> None:
    notes = [each.note for each in kernel_cases(["dvt_t2t_vit_12"], [256], "bfloat16", CPU)]
    assert notes == [
        "relations: 7 to 10, 4 heads of 64, logits handed on, batch 256",
        "relations: 7 to 10, 4 heads of 64, batch 256",
        "relations: 10 to 14, 4 heads of 64, batch 256",
        "relation networks: 7 x 7, 48 maps, 144 hidden, batch 256",
        "relation networks: 10 x 10, 48 maps, 144 hidden, batch 256",
        "pointwise: 50 tokens, 256 to 512 to 256, batch 256",
        "pointwise: 101 tokens, 304 to 512 to 256, batch 256",
        "pointwise: 197 tokens, 304 to 512 to 256, batch 256",
    ]


def test_what_two_cascades_share_is_measured_once_and_the_largest_batch_first() -> None:
    cases = list(kernel_cases(["dvt_t2t_vit_14", "dvt_deit_small"], [1, 64], "bfloat16", CPU))
    notes = [each.note for each in cases]
    assert len(set(notes)) == len(notes)
    assert sum(each.field == "relations" for each in cases) == 2 * 3
    images = [each.case.images for each in cases]
    assert images == sorted(images, reverse=True)


def test_a_static_network_reuses_no_relations() -> None:
    assert {each.field for each in kernel_cases(["static_t2t_vit_12"], [1], "bfloat16", CPU)} == {"pointwise"}


def test_an_unknown_architecture_is_said() -> None:
    with pytest.raises(ValueError, match="unknown architecture 'vit'"):
        list(kernel_cases(["vit"], [1], "float32", CPU))


def test_what_was_measured_is_kept_shown_and_not_measured_again() -> None:
    document = GpuDocument(environment(), CEILINGS)
    for each in kernel_cases(["dvt_micro"], [2], "float32", CPU):
        plain = {name: make for name, make in each.case.ways.items() if "compiled" not in name and "flex" not in name}
        few = replace(each, case=replace(each.case, ways=plain))
        assert not each.is_in(document)
        document = few.add_to(document, CPU)
        assert each.is_in(document)
        other = next(iter(kernel_cases(["dvt_micro"], [2], "bfloat16", CPU)))
        assert not other.is_in(document)
    assert strict_json.loads(GpuDocument, strict_json.dumps(document), "here") == document
    titles = {table.title: table.rows for table in tables(document)}
    assert titles["LayerNorm, product, GELU, product of an MLP"][0][:3] == (
        "17 tokens, 128 to 256 to 128",
        "2",
        "as written",
    )
    assert {row[2] for row in titles["Attention with reused relations"]} >= {"sum in memory", "mask"}
    assert titles["The network over relations, at the small grid"]

"""Which weights a session gets is read off the graph's bytes."""

from models.graph_writer import GraphWriter, Value
from models.graphs import _has_initializer


def graph_with(*names: str) -> bytes:
    graph = GraphWriter(dict.fromkeys(names, (2, 3)))
    for name in names:
        graph.op("Abs", graph.weight(name))
    return graph.to_bytes()


def test_a_weight_is_found_by_its_whole_name() -> None:
    graph = graph_with("stages.0.blocks.1.norm.weight", "stages.0.head.bias_of_more")
    assert _has_initializer(graph, "stages.0.blocks.1.norm.weight")
    for name in ("stages.0.head.bias", "blocks.1.norm.weight", "stages.0.blocks.1.norm", "stages.1.head.bias"):
        assert not _has_initializer(graph, name), name


def test_a_tensor_that_is_computed_is_no_initializer() -> None:
    graph = GraphWriter({})
    assert graph.op("Abs", graph.input("image", 1, (3,))) == Value("abs_0")
    assert not _has_initializer(graph.to_bytes(), "abs_0")
    assert not _has_initializer(graph.to_bytes(), "image")


def test_equal_constants_are_stored_once_and_others_are_not_mistaken_for_them() -> None:
    graph = GraphWriter({})
    half, again = graph.constant(0.5), graph.constant(0.5)
    assert half == again
    # 0.5 in float32 and this integer have bytes in common, vectors and scalars of the same bytes differ in shape.
    others = {half, graph.integers(0x3F000000), graph.integers(1), graph.op("Abs", 1.0), graph.integers(1, 1)}
    assert len(others) == 5

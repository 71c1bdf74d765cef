"""A stage of the cascade as an ONNX graph: `models.dvt.Stage` in the operators and order that run fast.

What is exploited here, all of it exact up to rounding:

- Query, key and value are projected apart, so that none is cut out of a common result.
- A linear layer's residual is what its product is added to.
- Reuse networks of all blocks that differ in weights alone run as one product (the norm's scale folded in).
- Reused relations are resized one layer at a time, so that they stay in cache, and never for a query nobody asks.
- Of the last block of a stage that hands on no features only the class token is read: its other queries, their MLP and
  the features they would reuse are left out.

Shapes: B batch; N tokens, class token included; D width; H heads, d = D / H; L layers; g, G grid sides of the upstream
and this stage; n = g * g + 1. Tokens are rows (B * N, D) between layers.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from onnx import TensorProto

from models.config import DVTConfig
from models.graph_tokens import write_tokens
from models.graph_writer import GraphWriter, Shapes, Value
from models.graphs import state_names
from models.reuse import resize_matrix


def write_stage(config: DVTConfig, shapes: Shapes, k: int) -> bytes:
    """The graph of stage k (from 0); `shapes` are those of the weights it may use, by state-dict name."""
    return _StageWriter(config, GraphWriter(shapes), k).write()


class _StageWriter:
    def __init__(self, config: DVTConfig, graph: GraphWriter, k: int) -> None:
        self.config, self.graph, self.k = config, graph, k
        self.dim, self.heads, self.depth = config.backbone.dim, config.backbone.heads, config.backbone.depth
        self.head_dim = config.backbone.head_dim
        self.grid = config.stages[k].grid
        self.count = self.grid**2 + 1
        self.upstream_grid = config.stages[k - 1].grid if k > 0 else 0
        self.hands_on = state_names(config, k + 1)

    def write(self) -> bytes:
        graph, side = self.graph, self.config.input.size_px
        image = graph.input("image", TensorProto.UINT8, (3, side, side))
        taken = state_names(self.config, self.k)
        shapes = self._state_shapes(self.upstream_grid**2 + 1)
        state = {name: graph.input(name, TensorProto.FLOAT, shapes[name]) for name in taken}
        for_class_token_only = "features" not in self.hands_on
        wide_blocks = self.depth - for_class_token_only
        features = self._reused_features(state["features"], wide_blocks) if "features" in state else None
        maps = self._relation_maps(state["relations"]) if "relations" in state else None

        tokens = self._tokens(image)
        logits: list[Value] = []
        for layer in range(wide_blocks):
            queries, keys, values = self._attention_inputs(layer, tokens)
            logits.append(self._logits(queries, keys, self._resized(maps[layer]) if maps else None))
            attended = self._attended(layer, logits[-1], values, tokens)
            wide = graph.op("Concat", attended, features[layer], axis=1) if features else attended
            tokens = self._mlp(layer, attended, wide)
        if for_class_token_only:
            tokens = self._last_block(tokens, maps[-1] if maps else None, logits)
            cls_token = tokens
        else:
            cls_token = graph.first(self._by_image(tokens), axis=1)
        graph.output("logits", self._linear("head", self._norm("norm", cls_token)), (self.config.classes,))
        shapes = self._state_shapes(self.count)
        if "features" in self.hands_on:
            graph.output("next_features", self._by_image(tokens), shapes["features"])
        if "relations" in self.hands_on:
            graph.output("next_relations", graph.op("Concat", *logits, axis=1), shapes["relations"])
        return graph.to_bytes()

    def _state_shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        return {"features": (count, self.dim), "relations": (self.config.backbone.relation_maps, count, count)}

    # Layers

    def _weight(self, name: str, *shape: int) -> Value:
        return self.graph.weight(f"stages.{self.k}.{name}", *shape)

    def _norm(self, name: str, rows: Value) -> Value:
        scale, shift = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self.graph.op("LayerNormalization", rows, scale, shift, epsilon=self.config.backbone.norm_eps)

    def _linear(self, name: str, rows: Value) -> Value:
        return self.graph.op("Gemm", rows, self._weight(f"{name}.weight"), self._weight(f"{name}.bias"), transB=1)

    def _linear_onto(self, name: str, rows: Value, residual: Value) -> Value:
        """residual + linear layer."""
        start = self.graph.op("Add", residual, self._weight(f"{name}.bias"))
        return self.graph.op("Gemm", rows, self._weight(f"{name}.weight"), start, transB=1)

    def _by_image(self, rows: Value) -> Value:
        """(B * N, D) -> (B, N, D)."""
        return self.graph.reshape(rows, -1, self.count, self.dim)

    def _tokens(self, image: Value) -> Value:
        """Image tokens behind the class token, positions added, (B * N, D)."""
        graph = self.graph
        tokens = graph.pad(write_tokens(graph, self.config, self.k, image), (0, 1, 0), (0, 0, 0))
        cls_token = graph.pad(self._weight("cls_token"), (0, 0, 0), (0, self.count - 1, 0))
        added = graph.op("Add", self._weight("pos_embed"), cls_token)
        return graph.reshape(graph.op("Add", tokens, added), -1, self.dim)

    # Blocks

    def _attention_inputs(self, layer: int, tokens: Value) -> tuple[Value, Value, Value]:
        """Queries (B, H, N, d), scaled, keys (B, H, d, N), values (B, H, N, d)."""
        normed = self._norm(f"blocks.{layer}.norm1", tokens)
        queries = self._by_head(self._role(layer, 0, normed, self.head_dim**-0.5), self.count)
        return queries, *self._keys_and_values(layer, normed)

    def _keys_and_values(self, layer: int, normed: Value) -> tuple[Value, Value]:
        keys = self.graph.transpose(self._by_head(self._role(layer, 1, normed), self.count), 0, 1, 3, 2)
        return keys, self._by_head(self._role(layer, 2, normed), self.count)

    def _by_head(self, rows: Value, count: int) -> Value:
        """(B * count, D) -> (B, H, count, d)."""
        return self.graph.transpose(self.graph.reshape(rows, -1, count, self.heads, self.head_dim), 0, 2, 1, 3)

    def _role(self, layer: int, role: int, rows: Value, scale: float = 1.0) -> Value:
        """Query (role 0), key (1) or value (2), (B * N, D)."""
        graph, start = self.graph, role * self.dim
        names = ["weight", "bias"] if self.config.backbone.qkv_bias else ["weight"]
        whole = [self._weight(f"blocks.{layer}.attn.qkv.{name}") for name in names]
        parts = [graph.slice(each, start, start + self.dim, axis=0) for each in whole]
        if scale != 1.0:
            parts = [graph.op("Mul", part, scale) for part in parts]
        return graph.op("Gemm", rows, *parts, transB=1)

    def _logits(self, queries: Value, keys: Value, reused: Value | None) -> Value:
        logits = self.graph.op("MatMul", queries, keys)
        return self.graph.op("Add", logits, reused) if reused is not None else logits

    def _attended(self, layer: int, logits: Value, values: Value, tokens: Value) -> Value:
        """tokens + attention, from logits (B, H, queries, N); tokens (B * queries, D)."""
        mixed = self.graph.op("MatMul", self.graph.op("Softmax", logits, axis=-1), values)
        rows = self.graph.reshape(self.graph.transpose(mixed, 0, 2, 1, 3), -1, self.dim)
        return self._linear_onto(f"blocks.{layer}.attn.proj", rows, tokens)

    def _mlp(self, layer: int, tokens: Value, wide: Value) -> Value:
        """tokens + MLP of `wide`, the tokens beside the features that they reuse."""
        hidden = self._linear(f"blocks.{layer}.mlp.fc1", self._norm(f"blocks.{layer}.norm2", wide))
        return self._linear_onto(f"blocks.{layer}.mlp.fc2", self.graph.op("Gelu", hidden), tokens)

    def _last_block(self, tokens: Value, maps: Value | None, logits: list[Value]) -> Value:
        """The class token (B, D) after the last block. Appends that block's logits if they are handed on."""
        graph, layer = self.graph, self.depth - 1
        normed = self._norm(f"blocks.{layer}.norm1", tokens)
        keys, values = self._keys_and_values(layer, normed)
        if "relations" in self.hands_on:
            queries = self._by_head(self._role(layer, 0, normed, self.head_dim**-0.5), self.count)
            logits.append(self._logits(queries, keys, self._resized(maps) if maps is not None else None))
            of_cls_token = graph.slice(logits[-1], 0, 1, axis=2)
        else:
            normed = graph.first(self._by_image(normed), axis=1)
            queries = self._by_head(self._role(layer, 0, normed, self.head_dim**-0.5), 1)
            reused = None
            if maps is not None:
                reused = graph.op("MatMul", graph.slice(maps, 0, 1, axis=2), self._resize_columns)
            of_cls_token = self._logits(queries, keys, reused)
        attended = self._attended(layer, of_cls_token, values, graph.first(self._by_image(tokens), axis=1))
        wide = attended
        if "features" in state_names(self.config, self.k):  # of which the class token, here as ever, gets zeros
            wide = graph.pad(attended, (0, 0), (0, self.config.reuse.feature_dim))
        return self._mlp(layer, attended, wide)

    # Reuse

    def _reused_features(self, features: Value, blocks: int) -> Sequence[Value]:
        """What the first `blocks` blocks take beside their tokens, each (B * N, feature_dim), from (B, n, D)."""
        if blocks == 0:
            return []
        graph, reuse = self.graph, self.config.reuse
        rows = graph.reshape(graph.slice(features, 1, self.upstream_grid**2 + 1, axis=1), -1, self.dim)
        ones = graph.constant(np.ones(self.dim))
        normed = graph.op("LayerNormalization", rows, ones, epsilon=self.config.backbone.norm_eps)
        folded = [self._folded_fc1(f"blocks.{layer}.feature_reuse") for layer in range(blocks)]
        weight, bias = (graph.op("Concat", *parts, axis=0) for parts in zip(*folded, strict=True))
        hidden = graph.op("Gelu", graph.op("Gemm", normed, weight, bias, transB=1))
        hiddens = graph.split(hidden, [reuse.feature_hidden] * blocks, axis=1)
        adapted = [self._linear(f"blocks.{layer}.feature_reuse.fc2", each) for layer, each in enumerate(hiddens)]
        resized = self._resize_rows(graph.op("Concat", *adapted, axis=1), (-1,), blocks * reuse.feature_dim)
        padded = graph.reshape(graph.pad(resized, (0, 1, 0), (0, 0, 0)), -1, blocks * reuse.feature_dim)
        return graph.split(padded, [reuse.feature_dim] * blocks, axis=1)

    def _folded_fc1(self, name: str) -> tuple[Value, Value]:
        """Weight and bias of a reuse network's first layer, with its norm's scale and shift in them."""
        graph, weight = self.graph, self._weight(f"{name}.fc1.weight")
        shift = graph.op("MatMul", weight, self._weight(f"{name}.norm.bias"))
        bias = graph.op("Add", self._weight(f"{name}.fc1.bias"), shift)
        return graph.op("Mul", weight, self._weight(f"{name}.norm.weight")), bias

    def _relation_maps(self, relations: Value) -> Sequence[Value]:
        """The adapted maps of each layer, (B, H, n, n), not yet resized."""
        graph, names = self.graph, ("relation_reuse.fc1", "relation_reuse.fc2")
        first, second = ((self._weight(f"{name}.weight"), self._weight(f"{name}.bias")) for name in names)
        maps = graph.op("Conv", graph.op("Gelu", graph.op("Conv", relations, *first)), *second)
        return graph.split(maps, [self.heads] * self.depth, axis=1)

    def _resized(self, maps: Value) -> Value:
        """P R P^T: (B, H, n, n) to (B, H, N, N).

        Columns in one product (small factors make slow products of rows this short), rows one image axis at a time.
        """
        graph = self.graph
        wide = graph.op("MatMul", maps, self._resize_columns)  # (B, H, n, N)
        cls_row, rows = graph.split(wide, [1, self.upstream_grid**2], axis=2)
        return graph.op("Concat", cls_row, self._resize_rows(rows, (0, self.heads), self.count), axis=2)

    def _resize_rows(self, rows: Value, outer: tuple[int, ...], width: int) -> Value:
        """(outer, g * g, width) -> (outer, G * G, width), outer as `reshape` takes it."""
        graph, small = self.graph, self.upstream_grid
        factor = graph.constant(resize_matrix(small, self.grid).numpy())
        lines = graph.op("MatMul", factor, graph.reshape(rows, *outer, small, small, width))
        image = graph.op("MatMul", factor, graph.reshape(lines, *outer, small, self.grid * width))
        return graph.reshape(image, *outer, self.grid**2, width)

    @cached_property
    def _resize_columns(self) -> Value:
        """P^T (n, N): the Kronecker square of the small factor, and 1 for the class token."""
        graph, small, grid = self.graph, self.upstream_grid, self.grid
        factor = graph.constant(resize_matrix(small, grid).numpy().T)
        square = graph.op("Mul", graph.reshape(factor, small, 1, grid, 1), graph.reshape(factor, 1, small, 1, grid))
        tokens = graph.pad(graph.reshape(square, small**2, grid**2), (1, 1), (0, 0))
        cls_token = graph.pad(graph.constant(np.ones((1, 1))), (0, 0), (small**2, grid**2))
        return graph.op("Add", tokens, cls_token)

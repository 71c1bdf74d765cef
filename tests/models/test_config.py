"""config.json says everything needed to build a cascade, and refuses what cannot be one."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import strict_json
from models.architectures import ARCHITECTURES, as_static, build_config
from models.config import (
    BackboneConfig,
    ConvStep,
    ConvTokenizer,
    DVTConfig,
    HybridTokenizer,
    InputConfig,
    PatchTokenizer,
    ReuseConfig,
    StageConfig,
    T2TTokenizer,
)
from models.strict_json import SchemaError

CONFIG = build_config("dvt_micro", ("cat", "dog"))
small = st.integers(1, 8)
tokenizers = st.one_of(
    st.builds(PatchTokenizer, kernel=small, stride=small, padding=st.integers(0, 3)),
    st.builds(T2TTokenizer, kernel=small, stride=small, padding=st.integers(0, 3)),
    st.builds(
        ConvTokenizer,
        image_px=st.integers(1, 40),
        steps=st.lists(
            st.builds(ConvStep, small, st.integers(1, 2), residuals=st.integers(0, 2)), min_size=1, max_size=3
        ).map(tuple),
    ),
    st.builds(HybridTokenizer, image_px=st.integers(1, 9).map(lambda grid: 16 * grid)),
)


@st.composite
def configs(draw: st.DrawFn) -> DVTConfig:
    size_px = draw(st.integers(12, 48))
    stages = tuple(
        StageConfig(tokenizer.grid(size_px), tokenizer) for tokenizer in draw(st.lists(tokenizers, min_size=1))
    )
    heads = draw(small)
    backbone = draw(
        st.builds(
            BackboneConfig,
            dim=small.map(lambda head_dim: heads * head_dim),
            depth=small,
            heads=st.just(heads),
            mlp_ratio=small,
            qkv_bias=st.booleans(),
            norm_eps=st.floats(1e-12, 1e-3),
            position=st.sampled_from(["sinusoid", "learned"]),
        )
    )
    channels = st.tuples(*[st.floats(0.1, 1)] * 3)
    interpolation = st.sampled_from(["bicubic", "bilinear"])
    image = draw(
        st.builds(InputConfig, st.just(size_px), st.just(size_px + 8), interpolation, mean=channels, std=channels)
    )
    labels = draw(st.lists(st.text(), min_size=1, unique=True))
    reuse = draw(st.builds(ReuseConfig, st.booleans(), st.booleans(), small, small, small))
    return DVTConfig(draw(st.text()), backbone, stages, image, tuple(labels), reuse)


def read(*path: str | int, value: object) -> DVTConfig:
    """CONFIG with one value of its JSON replaced."""
    data = json.loads(CONFIG.to_json())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return DVTConfig.from_json(json.dumps(data))


@given(configs())
def test_what_is_written_is_read_back(config: DVTConfig) -> None:
    assert DVTConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_registered_architectures_are_read_back(name: str) -> None:
    config = build_config(name, ("cat", "dog"))
    assert DVTConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name.startswith("dvt_")])
def test_the_static_twin_is_the_last_stage_alone_without_reuse(name: str) -> None:
    cascade = build_config(name, ("cat", "dog"))
    twin = build_config(name.replace("dvt_", "static_"), ("cat", "dog"))
    assert twin == as_static(cascade)
    assert twin.stages == cascade.stages[-1:] and (twin.backbone, twin.input) == (cascade.backbone, cascade.input)
    assert not twin.reuse.features and not twin.reuse.relations


def test_published_grids_are_7_10_and_14() -> None:
    for name in ARCHITECTURES:
        if name.startswith(("dvt_t2t", "dvt_deit", "dvt_hybrid")):
            assert [stage.grid for stage in build_config(name, ("cat",)).stages] == [7, 10, 14], name


def test_an_unknown_architecture_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"unknown architecture 'resnet50', known are dvt_t2t_vit_7, .*static_micro"):
        build_config("resnet50", ("cat",))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("colour",), 1, "config.json has unknown keys colour"),
        (("backbone", "width"), 1, "config.json.backbone has unknown keys width; known are dim, depth"),
        (("backbone", "dim"), "128", "config.json.backbone.dim is '128', expected int"),
        (("backbone", "dim"), 130, "config.json.backbone: dim 130 is not a multiple of heads 4"),
        (("backbone", "depth"), 0, "depth is 0, it must be at least 1"),
        (("backbone", "position"), "rotary", "expected one of 'sinusoid', 'learned'"),
        (("stages",), [], "a cascade needs at least one stage"),
        (("stages", 1, "grid"), 7, "stage 2: its tokenizer makes a 8x8 grid, not 7"),
        (("stages", 0, "tokenizer", "kind"), "wavelet", r"stages\[0\].tokenizer.kind is 'wavelet', expected one of"),
        (("stages", 0, "tokenizer", "steps", 0, "stride"), 0, "stride is 0, it must be at least 1"),
        (("stages", 0, "tokenizer", "steps", 0, "residuals"), -1, "residuals is -1, it must be at least 0"),
        (("reuse", "feature_dim"), 0, "feature_dim is 0, it must be at least 1"),
        (("input", "size_px"), 33, r"size_px 33 must lie in 1..resize_px 32"),
        (("input", "std"), [0.2, 0.2, 0], "std above 0"),
        (("input", "mean"), [0.5], "mean and std need three numbers"),
        (("labels",), [], "labels must name at least one class"),
        (("labels",), ["crane", "cat", "crane"], "labels must be distinct, these are not: crane"),
    ],
)
def test_what_cannot_be_a_cascade_is_refused(path: tuple[str | int, ...], value: object, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        read(*path, value=value)


@pytest.mark.parametrize("tokenizer", [PatchTokenizer, T2TTokenizer])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_tokenisers_without_size_or_step_are_refused(
    tokenizer: type[PatchTokenizer | T2TTokenizer], kernel: int, stride: int, padding: int
) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        tokenizer(kernel, stride, padding)


def test_another_schema_version_names_the_command_that_helps() -> None:
    with pytest.raises(SchemaError, match=r"schema_version 2 is not 1, .*`dvt convert` or `dvt train`"):
        read("schema_version", value=2)
    with pytest.raises(ValueError, match="schema_version 2"):
        replace(CONFIG, schema_version=2)


@given(st.data())
def test_a_config_with_any_one_value_replaced_is_read_or_refused_by_name(data: st.DataObject) -> None:
    tree = strict_json.encode(CONFIG)
    place = tree
    while True:
        key = data.draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(st.none() | st.booleans() | st.integers(-2, 40) | st.floats() | st.text() | st.just([]))
    try:
        config = DVTConfig.from_json(json.dumps(tree))
    except SchemaError as error:
        assert str(error).startswith("config.json")
    else:
        assert DVTConfig.from_json(config.to_json()) == config

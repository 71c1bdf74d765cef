"""Reuse as constant operators applied axis by axis; the dense matrix is the oracle."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.reuse import FeatureReuse, RelationReuse, resize_last_axis, resize_matrix, resize_relations

grids = st.integers(1, 16)


def dense(upstream_grid: int, grid: int) -> Tensor:
    """U (N, n): the Kronecker square of the one-dimensional resize."""
    resize = resize_matrix(upstream_grid, grid)
    return torch.kron(resize, resize)


def with_class_token(operator: Tensor) -> Tensor:
    """P = [[1, 0], [0, U]]."""
    whole = torch.zeros(operator.shape[0] + 1, operator.shape[1] + 1)
    whole[0, 0] = 1
    whole[1:, 1:] = operator
    return whole


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@given(upstream_grid=grids, grid=grids)
def test_rows_of_the_resize_sum_to_1_so_that_a_constant_map_stays_constant(upstream_grid: int, grid: int) -> None:
    resize = resize_matrix(upstream_grid, grid)
    assert resize.shape == (grid, upstream_grid)
    assert (resize >= 0).all()
    torch.testing.assert_close(resize.sum(dim=1), torch.ones(grid))


@given(grid=grids)
def test_a_grid_resized_to_itself_is_left_as_it_is(grid: int) -> None:
    torch.testing.assert_close(resize_matrix(grid, grid), torch.eye(grid))


def test_the_resize_from_7_to_10_is_the_published_one() -> None:
    # Nearest doubles 7 cells to 14; the adaptive pool of cell i averages the doubled cells floor(1.4 i) to
    # ceil(1.4 (i + 1)), each of which is a half of an old one.
    expected = torch.zeros(10, 7)
    for i in range(10):
        doubled = range(14 * i // 10, -(-14 * (i + 1) // 10))
        for cell in doubled:
            expected[i, cell // 2] += 1 / len(doubled)
    torch.testing.assert_close(resize_matrix(7, 10), expected)


@given(upstream_grid=grids, grid=grids)
def test_tokens_axis_by_axis_are_the_dense_product(upstream_grid: int, grid: int) -> None:
    tokens = noise(2, 3, upstream_grid**2)
    found = resize_last_axis(tokens, resize_matrix(upstream_grid, grid))
    torch.testing.assert_close(found, tokens @ dense(upstream_grid, grid).T, rtol=1e-4, atol=1e-5)


@given(upstream_grid=st.integers(1, 10), grid=st.integers(1, 10))
def test_relations_axis_by_axis_are_the_dense_product_with_class_token(upstream_grid: int, grid: int) -> None:
    count = upstream_grid**2 + 1
    relations = noise(2, 3, count, count)
    operator = with_class_token(dense(upstream_grid, grid))
    found = resize_relations(relations, resize_matrix(upstream_grid, grid))
    torch.testing.assert_close(found, operator @ relations @ operator.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("upstream_grid", "grid"), [(7, 10), (10, 14), (4, 6), (6, 8)])
def test_relations_keep_the_class_tokens_own_entry(upstream_grid: int, grid: int) -> None:
    relations = noise(1, 2, upstream_grid**2 + 1, upstream_grid**2 + 1)
    found = resize_relations(relations, resize_matrix(upstream_grid, grid))
    torch.testing.assert_close(found[..., 0, 0], relations[..., 0, 0])


@torch.inference_mode()
def test_reused_features_are_resized_after_the_network_and_zero_for_the_class_token() -> None:
    torch.manual_seed(0)
    reuse = FeatureReuse(dim=6, hidden=5, feature_dim=4, eps=1e-5, resize=resize_matrix(3, 5))
    upstream = noise(2, 10, 6)
    found = reuse(upstream)
    adapted = reuse.fc2(torch.nn.functional.gelu(reuse.fc1(reuse.norm(upstream[:, 1:]))))
    assert found.shape == (2, 26, 4)
    assert (found[:, 0] == 0).all()
    torch.testing.assert_close(found[:, 1:], dense(3, 5) @ adapted, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_reused_relations_are_resized_after_the_network() -> None:
    torch.manual_seed(0)
    reuse = RelationReuse(maps=4, expansion=3, resize=resize_matrix(3, 5))
    relations = noise(2, 4, 10, 10)
    adapted = reuse.fc2(torch.nn.functional.gelu(reuse.fc1(relations)))
    operator = with_class_token(dense(3, 5))
    torch.testing.assert_close(reuse(relations), operator @ adapted @ operator.T, rtol=1e-4, atol=1e-5)

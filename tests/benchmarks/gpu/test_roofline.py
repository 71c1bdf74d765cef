"""What a stage must do at least is counted from shapes alone."""

from itertools import pairwise

import pytest

from benchmarks.gpu.document import Ceilings
from benchmarks.gpu.roofline import Least, Product, least, products_of
from models.architectures import build_config
from models.dvt import DVT
from models.flops import cumulative_gmacs

CEILINGS = Ceilings("a device", "2", matrix_tflops=1.0, copy_tb_per_s=1.0)


def test_operations_are_twice_the_multiply_adds_that_the_network_costs() -> None:
    config = build_config("dvt_micro", ("a", "b"))
    ours = [sum(product.operations for product in stage) for stage in products_of(config, 1)]
    exits = cumulative_gmacs(DVT(config))
    theirs = [exits[0], *(deeper - before for before, deeper in pairwise(exits))]
    assert [each / 2e9 for each in ours] == pytest.approx(theirs, rel=0.02)


def test_a_batch_of_images_takes_so_many_times_the_operations_but_reads_the_weights_once() -> None:
    config = build_config("dvt_micro", ("a", "b"))
    for one, eight in zip(products_of(config, 1), products_of(config, 8), strict=True):
        assert sum(product.operations for product in eight) == 8 * sum(product.operations for product in one)
        assert sum(product.elements for product in eight) < 8 * sum(product.elements for product in one)


@pytest.mark.parametrize(
    ("product", "takes"),
    [(Product(4 * 10**12, 10), Least(4.0, 0.0)), (Product(10, 3 * 10**12), Least(0.0, 6.0))],
)
def test_a_product_takes_the_longer_of_computing_and_moving(product: Product, takes: Least) -> None:
    assert least([product], CEILINGS, element_bytes=2) == takes


def test_what_each_ceiling_holds_back_is_summed_apart() -> None:
    products = [Product(10**12, 1), Product(1, 10**12), Product(2 * 10**12, 10**12)]
    assert least(products, CEILINGS, element_bytes=1) == Least(3.0, 1.0)

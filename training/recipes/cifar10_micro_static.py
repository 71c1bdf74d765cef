"""The static twin of `cifar10_micro`: its last grid alone, without reuse, same recipe and epochs.

dvt train --recipe cifar10_micro_static --data CIFAR10 --out benchmarks/bundles/cifar10-micro-static
"""

from training.recipe import static_twin
from training.recipes import cifar10_micro

RECIPE = static_twin(cifar10_micro.RECIPE)

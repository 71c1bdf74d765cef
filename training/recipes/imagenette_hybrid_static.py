"""The static twin of `imagenette_hybrid`: its last grid alone, without reuse, same recipe and epochs.

dvt train --recipe imagenette_hybrid_static --data IMAGENETTE --out benchmarks/bundles/imagenette-hybrid-static
"""

from training.recipe import static_twin
from training.recipes import imagenette_hybrid

RECIPE = static_twin(imagenette_hybrid.RECIPE)

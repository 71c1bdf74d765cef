"""What training and serving share: the network, its configuration, bundles, preprocessing, the exit rule."""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    from models.dvt import DVT, load_bundle

__all__ = ["DVT", "load_bundle"]


def __getattr__(name: str) -> object:
    """`DVT` and `load_bundle` bring torch with them, so they are imported when first asked for."""
    if name in __all__:
        from models import dvt

        return getattr(dvt, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

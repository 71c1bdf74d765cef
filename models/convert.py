"""Published checkpoints (`*.pth.tar`) to bundles: names, shapes, thresholds and the published curve.

The layout of a published checkpoint is described in docs/model.md. It is loaded with `weights_only=True`.
"""

import re

PUBLISHED_STAGES = ("less_less_token", "less_token", "normal_token")

_RENAMES = (
    (r"^stages\.(\d)\.tokenizer\.attention(\d)\.mlp\.0\.", r"stages.\1.tokenizer.attention\2.fc1."),
    (r"^stages\.(\d)\.tokenizer\.attention(\d)\.mlp\.2\.", r"stages.\1.tokenizer.attention\2.fc2."),
    (r"\.feature_resuse_mlp\.0\.", ".feature_reuse.norm."),
    (r"\.feature_resuse_mlp\.1\.", ".feature_reuse."),
    (r"\.relation_reuse_conv\.0\.", ".relation_reuse.fc1."),
    (r"\.relation_reuse_conv\.2\.", ".relation_reuse.fc2."),
    (r"\.(tokens_to_token|patch_embed)\.", ".tokenizer."),
)


def our_name(published: str) -> str:
    """State-dict name of a published entry; a name of no known form comes back unchanged."""
    head, _, rest = published.partition(".")
    if head not in PUBLISHED_STAGES:
        return published
    name = f"stages.{PUBLISHED_STAGES.index(head)}.{rest}"
    for pattern, replacement in reversed(_RENAMES):
        name = re.sub(pattern, replacement, name)
    return name

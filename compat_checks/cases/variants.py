"""The losses in each of their variants, from which most families start."""

from __future__ import annotations

from compat_checks.cases.case import Case

SOFTMAX, NCE = "sampled_softmax_loss", "nce_loss"
LOSSES = (SOFTMAX, NCE)
V1, V2 = "compat.v1.nn.", "nn."


def loss_variants() -> list[tuple[str, Case]]:
    """Returns each loss as v2, v1 "mod" and v1 "div", with a name for each."""
    variants = []
    for loss in LOSSES:
        v1 = Case("", path=V1 + loss)
        variants += [
            (f"{loss} v2", v1.replace(path=V2 + loss)),
            (f"{loss} mod", v1.replace(partition_strategy="mod")),
            (f"{loss} div", v1.replace(partition_strategy="div")),
        ]
    return variants

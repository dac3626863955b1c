"""The losses in each of their forms, from which every family starts."""

from __future__ import annotations

from compat_checks.cases.case import Case

SOFTMAX, NCE = "sampled_softmax_loss", "nce_loss"
LOSSES = (SOFTMAX, NCE)
V1, V2 = "compat.v1.nn.", "nn."


def forms(loss: str) -> list[tuple[str, Case]]:
    """A loss in each of its forms: v2, v1 "mod", v1 "div"."""
    start = Case("", path=V1 + loss)
    return [
        (f"{loss} v2", start.replace(path=V2 + loss)),
        (f"{loss} mod", start.replace(partition="mod")),
        (f"{loss} div", start.replace(partition="div")),
    ]


def all_forms() -> list[tuple[str, Case]]:
    return [form for loss in LOSSES for form in forms(loss)]

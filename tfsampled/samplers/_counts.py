"""Counts of the classes that a user gives: checked, and written into a config."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np


def as_counts(counts: Any) -> np.ndarray:
    """Converts counts to float32 `[num_classes]`.

    Raises:
        ValueError: If they are not finite numbers of at least 0.
    """
    try:
        if isinstance(counts, str):  # as `encode` writes them into a config
            counts = np.frombuffer(zlib.decompress(base64.b64decode(counts)), "<f4")
        counts = np.array(counts, np.float32)  # the caller may change its own
    except (TypeError, ValueError, zlib.error):
        raise ValueError(
            f"`counts` must be real numbers. Received: a {type(counts).__name__}."
        ) from None
    if counts.ndim != 1 or not counts.size:
        raise ValueError(
            f"`counts` must have shape (num_classes,). Received: shape={counts.shape}."
        )
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise ValueError(
            "`counts` must be finite and at least 0. Received: numbers from "
            f"{counts.min()} to {counts.max()}."
        )
    return counts


def validate_num_classes(counts: np.ndarray | None, num_classes: int) -> None:
    """Raises `ValueError` unless there is a count for each class, or none is given."""
    if counts is not None and len(counts) != num_classes:
        raise ValueError(
            "`counts` must have one number for each class. Received: "
            f"{len(counts)} counts for {num_classes} classes."
        )


def encode(counts: np.ndarray) -> str:
    """Returns the counts as text: float32, compressed, base64."""
    data = zlib.compress(counts.astype("<f4").tobytes(), level=1)
    return base64.b64encode(data).decode("ascii")

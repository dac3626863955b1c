"""Undocumented parts of Keras that layers and models use.

If Keras renames one of them, `tests/models/test_keras.py` fails.
"""

from __future__ import annotations

from typing import Any

import keras


def in_symbolic_scope() -> bool:
    """Tells whether Keras only computes shapes, as when it builds a model."""
    with keras.SymbolicScope() as scope:
        return scope.original_scope is not None


def mask_of(tensor: Any) -> Any:
    """Returns the mask that Keras has attached to a tensor, or None."""
    return getattr(tensor, "_keras_mask", None)

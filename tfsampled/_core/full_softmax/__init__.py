"""The exact softmax over every class, a block of classes at a time."""

from tfsampled._core.full_softmax.loss import loss
from tfsampled._core.full_softmax.ranks import above, ranks
from tfsampled._core.full_softmax.top_k import top_k

__all__ = ["above", "loss", "ranks", "top_k"]

"""The exact softmax over every class, a block of classes at a time."""

from tfsampled._core.exact.best import top_k
from tfsampled._core.exact.loss import loss
from tfsampled._core.exact.ranks import above, ranks

__all__ = ["above", "loss", "ranks", "top_k"]

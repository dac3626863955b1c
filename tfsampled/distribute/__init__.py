"""Training where each of several devices holds a part of the classes.

Copies of a table on every device need nothing from here: `SampledSoftmaxModel` and the
optimizers work under `tf.distribute` as they are.
"""

from __future__ import annotations

from tfsampled.distribute._class_parallel import ClassParallelSoftmax
from tfsampled.distribute._sharded import ShardedSoftmax

__all__ = ["ClassParallelSoftmax", "ShardedSoftmax"]

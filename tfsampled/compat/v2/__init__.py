"""As `tf.compat.v2`."""

from tfsampled.compat.v2 import nn

__all__ = ["nn"]

"""As `tf.compat.v1`."""

from tfsampled.compat.v1 import nn

__all__ = ["nn"]

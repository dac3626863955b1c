"""The functions of `tf.compat.v2`."""

from tfsampled import compat
from tfsampled.compat.v2 import nn, random

__all__ = ["compat", "nn", "random"]

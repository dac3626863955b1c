"""The functions of `tf.compat.v1`."""

from tfsampled import compat
from tfsampled.compat.v1 import nn, random

__all__ = ["compat", "nn", "random"]

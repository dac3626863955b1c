"""TensorFlow's v1 and v2 views of the same functions."""

from tfsampled.compat import v1, v2

__all__ = ["v1", "v2"]

"""The v1 and v2 forms of the same functions, as in `tf.compat`."""

from tfsampled.compat import v1, v2

__all__ = ["v1", "v2"]

"""As `tf.compat.v2.nn`: the functions of `tfsampled.nn` that TensorFlow has."""

from tfsampled.nn import nce_loss, sampled_softmax_loss

__all__ = ["nce_loss", "sampled_softmax_loss"]

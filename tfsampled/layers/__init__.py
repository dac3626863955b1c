"""Keras layers: the sampled softmax as the last layer of a classifier."""

from tfsampled.layers._sampled_softmax import SampledSoftmax

__all__ = ["SampledSoftmax"]

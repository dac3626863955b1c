"""Keras models whose `fit` trains on a sampled loss."""

from tfsampled.models._sampled_softmax_model import SampledSoftmaxModel

__all__ = ["SampledSoftmaxModel"]

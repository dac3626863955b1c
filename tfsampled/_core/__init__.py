"""Tensors in, tensors out: the numerics under the public functions and layers."""

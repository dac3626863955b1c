"""Calls of a case: its tensors, the modes it runs in, what it returns."""

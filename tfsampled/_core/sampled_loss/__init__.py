"""Losses over the labels and a sample of the classes."""

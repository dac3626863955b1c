"""Timings of tfsampled beside TensorFlow's, taken in turn in one run."""

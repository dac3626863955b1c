"""TensorFlow's own test files, run against tfsampled."""

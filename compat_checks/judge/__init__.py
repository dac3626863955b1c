"""Judges the results of a case: float64 truth, error budget, comparison."""

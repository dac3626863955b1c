"""Verdicts: the float64 truth, the error budget, the comparison."""

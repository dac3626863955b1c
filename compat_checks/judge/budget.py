"""The one rule that decides whether an array passes.

Every element of the truth has a natural scale: the sum of the absolute values of
what legitimately enters it (products, biases, log counts), weighed by how much it
moves the element. A loss that is the difference of two large logits has a scale of
their size; a gradient row that nothing touches has scale 0.

    error_i = |computed_i - truth_i| / (ulp * scale_i),   ulp = eps of the arithmetic

An array passes when, with TensorFlow's error on the same machine beside ours,

    max error   <= TensorFlow's max error + MAX_ULPS
    rms error   <= TensorFlow's rms error + RMS_ULPS

Sums in another order move the errors by fractions of an ulp: it is the sums of
absolute values that are counted. An error of a few tens of ulp is outside for any
array on which TensorFlow itself is accurate, and a NaN is infinitely far away. Where
TensorFlow's own error is not finite it counts as 0, so ours has to be right.

TensorFlow's max error itself has to stay below TRUTH_ULPS. Beyond that the truth
does not describe the case (other candidates, say) and nothing would be proved.

float16 and bfloat16 results (TensorFlow computes none; its float32 numbers on the
same inputs stand in) may be further off by HALF_ULPS of their dtype per rounded
piece: one ulp is two correct roundings. Where tables and inputs are bfloat16 their
products are made of bfloat16 factors, so what enters these is rounded as well.
"""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np

from compat_checks.judge.truth import Array

MAX_ULPS = 3.0
RMS_ULPS = 1.0
HALF_ULPS = 1.0
TRUTH_ULPS = 8.0


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Errors of one array in ulps at its natural scale, and what is allowed."""

    array: str
    ours_max: float
    ours_rms: float
    reference_max: float
    reference_rms: float

    @property
    def allowed_max(self) -> float:
        return _finite(self.reference_max) + MAX_ULPS

    @property
    def allowed_rms(self) -> float:
        return _finite(self.reference_rms) + RMS_ULPS

    @property
    def proves(self) -> bool:
        """TensorFlow itself is near the truth, where it gives a number."""
        return _finite(self.reference_max) <= TRUTH_ULPS

    @property
    def passed(self) -> bool:
        within = self.ours_max <= self.allowed_max and self.ours_rms <= self.allowed_rms
        return within and self.proves

    def __str__(self) -> str:
        return (
            f"{self.array}: error {self.ours_max:.3g} ulp (rms {self.ours_rms:.3g}), "
            f"TensorFlow {self.reference_max:.3g} (rms {self.reference_rms:.3g}), "
            f"allowed {self.allowed_max:.3g} (rms {self.allowed_rms:.3g})"
        )


def _finite(error: float) -> float:
    return error if np.isfinite(error) else 0.0


def judge(
    array: str,
    ours: np.ndarray,
    reference: np.ndarray,
    truth: Array,
    dtype: np.dtype,
    reference_dtype: np.dtype,
    inputs_dtype: np.dtype,
) -> Verdict:
    """Compares ours and TensorFlow's `reference` with the truth.

    Args:
      array: its name, for the report.
      ours: our array, of the truth's shape.
      reference: TensorFlow's.
      truth: value, scale and rounding.
      dtype: of our result; added-up slices come in a wider one.
      reference_dtype: of TensorFlow's result.
      inputs_dtype: what the logits are computed in, where the tables are wider.
    """
    ours_errors = errors(ours, truth, dtype, inputs_dtype)
    reference_errors = errors(reference, truth, reference_dtype, inputs_dtype)
    return Verdict(
        array,
        *_largest_and_rms(ours_errors),
        *_largest_and_rms(reference_errors),
    )


def errors(
    computed: np.ndarray, truth: Array, dtype: np.dtype, inputs_dtype: np.dtype
) -> np.ndarray:
    """Errors per element, in ulps at the natural scale; infinite where not finite."""
    info = ml_dtypes.finfo(dtype)
    double = dtype == inputs_dtype == np.float64
    arithmetic = ml_dtypes.finfo(np.float64 if double else np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        off = abs(computed.astype(truth.value.dtype) - truth.value)
        if info.bits < 32:
            both = dtype == inputs_dtype == ml_dtypes.bfloat16
            narrow = truth.narrow if both else 0.0
            rounding = float(info.eps) * (truth.rounding + narrow)
            off = np.maximum(
                off - HALF_ULPS * rounding - float(info.smallest_subnormal), 0
            )
        floor = float(arithmetic.smallest_normal)  # below it, results may be flushed
        ulps = np.maximum(off - floor, 0) / (
            float(arithmetic.eps) * truth.scale + floor
        )
    return np.where(np.isnan(ulps), np.inf, ulps).astype(np.float64)


def _largest_and_rms(ulps: np.ndarray) -> tuple[float, float]:
    if not ulps.size:
        return 0.0, 0.0
    return float(ulps.max()), float(np.sqrt(np.mean(ulps**2)))

"""The rule that decides whether an array passes: TensorFlow's own error, and a little.

Errors are counted in ulps at the natural scale of each element: the sum of the absolute
values of all that is added up in it. The scale of a difference of two large logits is
as large as they are. The scale of a gradient row that nothing touches is 0.

    error = |computed - truth| / (eps * scale)         eps of float32 (or of float64)

An array passes if

    largest error  <=  TensorFlow's largest error + MAX_ULPS
    rms error      <=  TensorFlow's rms error     + RMS_ULPS

For example, the sum 2.0 - 1.0 has truth 1.0, scale 3.0, and 1 ulp is 1.19e-7 * 3.0 =
3.6e-7. If TensorFlow computes 1.0000002 (0.6 ulp), then tfsampled may be 3.6 ulp away:
1.0000012 passes, and 1.00001 (28 ulp) does not.

Another order of summation changes errors by fractions of an ulp. Tens of ulp fail
wherever TensorFlow is accurate. NaN is infinitely far away. Where TensorFlow's error is
not finite it counts as 0.

TensorFlow's largest error must be at most TRUTH_ULPS. If it is not, then the truth
describes another calculation, and the comparison would prove nothing.

float16 and bfloat16 results may differ by another HALF_ULPS of their dtype for each
value that is rounded to it. (They are compared with TensorFlow's float32 results, since
TensorFlow computes none in these dtypes.) If inputs and tables are bfloat16, then so
are the factors of matrix products, and their rounding counts as well.
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
    """Errors of one array in ulps.

    Attributes:
        array: Name of the array.
        actual_max: Largest error of the library under test.
        actual_rms: Its rms error.
        reference_max: TensorFlow's largest error.
        reference_rms: TensorFlow's rms error.
    """

    array: str
    actual_max: float
    actual_rms: float
    reference_max: float
    reference_rms: float

    @property
    def allowed_max(self) -> float:
        return _finite(self.reference_max) + MAX_ULPS

    @property
    def allowed_rms(self) -> float:
        return _finite(self.reference_rms) + RMS_ULPS

    @property
    def passed(self) -> bool:
        return (
            self.actual_max <= self.allowed_max
            and self.actual_rms <= self.allowed_rms
            and _finite(self.reference_max) <= TRUTH_ULPS
        )

    def __str__(self) -> str:
        return (
            f"{self.array}: error {self.actual_max:.3g} ulp "
            f"(rms {self.actual_rms:.3g}), TensorFlow {self.reference_max:.3g} "
            f"(rms {self.reference_rms:.3g}; at most {TRUTH_ULPS:g}), allowed "
            f"{self.allowed_max:.3g} (rms {self.allowed_rms:.3g})"
        )


def _finite(error: float) -> float:
    return error if np.isfinite(error) else 0.0


def judge(
    array: str,
    actual: np.ndarray,
    reference: np.ndarray,
    truth: Array,
    dtype: np.dtype,
    reference_dtype: np.dtype,
    inputs_dtype: np.dtype,
) -> Verdict:
    """Compares two results with the truth.

    Args:
        array: Name of the array.
        actual: Result of the library under test, of the truth's shape.
        reference: TensorFlow's result.
        truth: The same in float64, with its scale.
        dtype: In which `actual` was computed (summed slices are wider).
        reference_dtype: In which `reference` was computed.
        inputs_dtype: In which logits are computed, if tables are wider.
    """
    actual_errors = errors(actual, truth, dtype, inputs_dtype)
    reference_errors = errors(reference, truth, reference_dtype, inputs_dtype)
    return Verdict(array, *_max_and_rms(actual_errors), *_max_and_rms(reference_errors))


def errors(
    computed: np.ndarray, truth: Array, dtype: np.dtype, inputs_dtype: np.dtype
) -> np.ndarray:
    """Returns the error of each element in ulps; infinity if it is not finite."""
    result = ml_dtypes.finfo(dtype)
    is_float64 = dtype == inputs_dtype == np.float64
    arithmetic = ml_dtypes.finfo(np.float64 if is_float64 else np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = abs(computed.astype(truth.value.dtype) - truth.value)
        if result.bits < 32:
            rounded = truth.rounded
            if dtype == inputs_dtype == ml_dtypes.bfloat16:
                rounded = rounded + truth.rounded_factors
            allowed = HALF_ULPS * float(result.eps) * rounded
            distance = distance - allowed - float(result.smallest_subnormal)
        # Results below the smallest normal number may be flushed to 0.
        tiny = float(arithmetic.smallest_normal)
        ulp = float(arithmetic.eps) * truth.scale + tiny
        ulps = np.maximum(distance - tiny, 0) / ulp
    return np.where(np.isnan(ulps), np.inf, ulps).astype(np.float64)


def _max_and_rms(ulps: np.ndarray) -> tuple[float, float]:
    if not ulps.size:
        return 0.0, 0.0
    return float(ulps.max()), float(np.sqrt(np.mean(ulps**2)))

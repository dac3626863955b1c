"""Adam on the rows touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfsampled._core.xla import server_of
from tfsampled.optimizers import _sparse_rows as rows
from tfsampled.optimizers._row_sparse_optimizer import RowSparse, validate_at_least_0


@keras.saving.register_keras_serializable(package="tfsampled")
class LazyAdam(RowSparse, keras.optimizers.Adam):
    """Adam that updates only the rows in the gradient.

    Duplicate rows are summed first. Then, in step `t` and for each row `r` of the
    gradient `g`,

        m_r = m_r + (1 - beta_1) * (g_r - m_r)
        v_r = v_r + (1 - beta_2) * (g_r ** 2 - v_r)
        w_r = w_r - learning_rate * sqrt(1 - beta_2 ** t) / (1 - beta_1 ** t)
                    * m_r / (sqrt(v_r) + epsilon)

    and nothing else is read or written. If every row is touched in every step, this is
    `keras.optimizers.Adam` on the densified gradient. A row that is not touched stays
    as it is, whereas in Adam its moments decay and continue to move it.

    `correct_skipped=True` makes up for that. If a row was skipped `k` times, its
    moments first decay as in Adam, by `beta_1 ** k` and `beta_2 ** k`. The row is then
    moved as far as Adam moves it in `k + 1` steps, by the factor

        sum_{j=0..k} rho ** j = (1 - rho ** (k + 1)) / (1 - rho)
        rho = beta_1 / sqrt(beta_2)

    which is 1 for a row that is touched in every step and nears 10 for one that is
    touched rarely. It needs one more int64 per row. Steps without a gradient for a
    variable, such as one that was frozen, count as skipped: after unfreezing it, make a
    new optimizer.

    A dense gradient gets Keras's own update, or with `correct_skipped` the corrected
    update of all rows, so that one optimizer serves the encoder and the table. NaN in a
    gradient makes the values that it updates NaN, as in Keras.

    Row-sparse gradients are unscaled, clipped (`clipnorm`, `global_clipnorm`,
    `clipvalue`) like the dense gradient, and decayed (`weight_decay`) on the rows
    touched only.

    Args:
        learning_rate: A float of at least 0, a
            `keras.optimizers.schedules.LearningRateSchedule`, or a function without
            arguments that returns the learning rate.
        beta_1: Decay of the first moments, in `[0, 1)`.
        beta_2: Decay of the second moments, in `[0, 1)`.
        epsilon: A small number for stability, at least 0.
        amsgrad: Whether to divide by the largest second moment so far.
        correct_skipped: Whether to make up for the steps in which a row was skipped. It
            needs a `beta_1` below `sqrt(beta_2)`.
        **kwargs: Arguments of `keras.optimizers.Optimizer`, such as `clipnorm`,
            `weight_decay`, `loss_scale_factor` and `name`.

    Raises:
        ValueError: If an argument has an invalid value, or `use_ema`,
            `ema_overwrite_frequency` or `gradient_accumulation_steps` is set, which
            need the whole table.

    Example:
        >>> from tfsampled.optimizers import LazyAdam
        >>> import tensorflow as tf
        >>> table = tf.Variable(tf.ones([1000, 2]))
        >>> optimizer = LazyAdam(learning_rate=0.1)
        >>> rows = tf.IndexedSlices(tf.ones([3, 2]), [7, 7, 500], [1000, 2])
        >>> _ = optimizer.apply_gradients([(rows, table)])
        >>> tf.gather(table, [6, 7, 500]).numpy().round(3)
        array([[1. , 1. ],
               [0.9, 0.9],
               [0.9, 0.9]], dtype=float32)

    Reference:
        Kingma and Ba, Adam: A Method for Stochastic Optimization, 2014,
        https://arxiv.org/abs/1412.6980; for the correction, A method to improve
        accuracy of LazyAdam, 2018, https://github.com/tensorflow/tensorflow/issues/23668
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        *,
        correct_skipped: bool = False,
        **kwargs: Any,
    ) -> None:
        betas = {"beta_1": beta_1, "beta_2": beta_2}
        validate_at_least_0(self, **betas, epsilon=epsilon)
        betas = {name: float(beta) for name, beta in betas.items()}
        for name, beta in betas.items():
            if beta >= 1:
                raise ValueError(
                    f"`{name}` must be in [0, 1). Received: {name}={beta!r}."
                )
        if correct_skipped and not beta_1**2 < beta_2:
            raise ValueError(
                "`beta_1` must be below sqrt(`beta_2`) with correct_skipped=True: a "
                "skipped row would move without end. "
                f"Received: beta_1={beta_1}, beta_2={beta_2}."
            )
        super().__init__(
            learning_rate, **betas, epsilon=epsilon, amsgrad=amsgrad, **kwargs
        )
        self.correct_skipped = self.handles_dense = correct_skipped

    def add_slots(self, variables: Sequence[Any]) -> None:
        """Adds a slot for the step in which each row was last updated."""
        if self.correct_skipped:
            self._updated_at = self.add_per_row_slots(
                variables, "updated_at", dtype="int64"
            )

    def sparse_step(
        self,
        ids: tf.Tensor | None,
        values: tf.Tensor,
        variable: tf.Variable,
        learning_rate: Any,
    ) -> tf.Tensor:
        """Returns what to add to rows of a variable, and updates their slots."""
        momentum = self.slot("momentums", variable)
        velocity = self.slot("velocities", variable)
        m, v = rows.read(momentum, ids), rows.read(velocity, ids)
        # Two workers would each subtract the decay of all skipped steps.
        before = (None, None) if self.correct_skipped else (m, v)
        if server_of(velocity):  # several workers may have taken from it at once
            v = tf.maximum(v, 0)
        step = self._step_size(values.dtype, learning_rate)
        if self.correct_skipped:
            skipped = rows.expand_to_rank(self._skipped_steps(ids, variable), m)
            m *= tf.cast(tf.pow(self.beta_1, skipped), m.dtype)
            v *= tf.cast(tf.pow(self.beta_2, skipped), v.dtype)
            step *= tf.cast(self._catch_up_factor(skipped), step.dtype)
        m += (values - m) * (1 - self.beta_1)
        rows.write(momentum, ids, m, before[0])
        v += (tf.square(values) - v) * (1 - self.beta_2)
        rows.write(velocity, ids, v, before[1])
        if self.amsgrad:
            largest = self.slot("velocity_hats", variable)
            v = tf.maximum(rows.read(largest, ids), v)
            rows.write(largest, ids, v)
        return tf.math.divide_no_nan(-step * m, tf.sqrt(v) + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of an equal optimizer."""
        return {**super().get_config(), "correct_skipped": self.correct_skipped}

    def _step_size(self, dtype: tf.DType, learning_rate: Any) -> tf.Tensor:
        """Returns the learning rate, corrected for moments that started at 0."""
        step = tf.cast(self.iterations, dtype) + 1
        root = tf.sqrt(1 - tf.pow(tf.cast(self.beta_2, dtype), step))
        correction = root / (1 - tf.pow(tf.cast(self.beta_1, dtype), step))
        return tf.cast(learning_rate, dtype) * correction

    def _skipped_steps(self, ids: tf.Tensor | None, variable: Any) -> tf.Tensor:
        """Counts the steps since each row was last updated, `[k]` float32."""
        # 5 steps were made, updated_at = [5, 2, 0]
        # skipped = [0, 3, 5]; updated_at becomes [6, 6, 6]
        updated_at = self.slot("updated_at", variable)
        last = rows.read(updated_at, ids)
        num_steps = tf.cast(self.iterations, tf.int64)
        # The 0 that is added is computed from what was read: XLA then sees that the
        # read comes first, and does not copy the slot.
        rows.write(updated_at, ids, num_steps + 1 + tf.minimum(last, 0))
        # If the counter was set back, no step was skipped.
        return tf.cast(tf.maximum(num_steps - last, 0), tf.float32)

    def _catch_up_factor(self, skipped: tf.Tensor) -> tf.Tensor:
        """Sums `rho ** j` for `j` from 0 to `skipped`."""
        # beta_1 = 0.9, beta_2 = 0.999: skipped = [0, 1, 100] -> [1, 1.9, 10.0]
        ratio = tf.constant(self.beta_1 / self.beta_2**0.5, skipped.dtype)
        return (1 - tf.pow(ratio, skipped + 1)) / (1 - ratio)

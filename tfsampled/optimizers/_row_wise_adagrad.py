"""Adagrad with one accumulator per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfsampled.optimizers import _sparse_rows as rows
from tfsampled.optimizers._row_sparse_optimizer import RowSparse, validate_at_least_0


@keras.saving.register_keras_serializable(package="tfsampled")
class RowWiseAdagrad(RowSparse):
    """Adagrad with one accumulator per row, `1 / D` of the state for rows of size `D`.

    Duplicate rows are summed first. Then, for each row `r` of the gradient `g`,

        a_r = a_r + mean(g_r ** 2)
        w_r = w_r - learning_rate * g_r / sqrt(a_r + epsilon)

    with the mean over the values of the row, and nothing else is read or written. A
    dense gradient is the gradient of all rows, and is treated the same. A row of a
    vector is one value: there this is Adagrad. NaN in a gradient makes the whole row
    NaN.

    Row-sparse gradients are unscaled, clipped (`clipnorm`, `global_clipnorm`,
    `clipvalue`) like the dense gradient, and decayed (`weight_decay`) on the rows
    touched only.

    Args:
        learning_rate: A float of at least 0, a
            `keras.optimizers.schedules.LearningRateSchedule`, or a function without
            arguments that returns the learning rate.
        initial_accumulator_value: Initial value of the accumulators, at least 0.
        epsilon: A small number for stability, at least 0.
        **kwargs: Arguments of `keras.optimizers.Optimizer`, such as `clipnorm`,
            `weight_decay`, `loss_scale_factor` and `name`.

    Raises:
        ValueError: If an argument has an invalid value, or `use_ema`,
            `ema_overwrite_frequency` or `gradient_accumulation_steps` is set, which
            need the whole table.

    Example:
        >>> from tfsampled.optimizers import RowWiseAdagrad
        >>> import tensorflow as tf
        >>> table = tf.Variable(tf.ones([1000, 2]))
        >>> optimizer = RowWiseAdagrad(learning_rate=0.1)
        >>> rows = tf.IndexedSlices(tf.constant([[3.0, 4.0]]), [7], [1000, 2])
        >>> _ = optimizer.apply_gradients([(rows, table)])
        >>> tf.gather(table, [6, 7]).numpy().round(3)
        array([[1.   , 1.   ],
               [0.915, 0.887]], dtype=float32)

    Reference:
        Gupta et al., Training Recommender Systems at Scale: Communication-Efficient
        Model and Data Parallelism, 2020, https://arxiv.org/abs/2010.08899
    """

    handles_dense = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        validate_at_least_0(
            self, initial_accumulator_value=initial_accumulator_value, epsilon=epsilon
        )
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon

    def add_slots(self, variables: Sequence[Any]) -> None:
        """Adds an accumulator for each row of these variables."""
        initial = keras.initializers.Constant(self.initial_accumulator_value)
        self._accumulators = self.add_per_row_slots(variables, "accumulator", initial)

    def sparse_step(
        self,
        ids: tf.Tensor | None,
        values: tf.Tensor,
        variable: tf.Variable,
        learning_rate: Any,
    ) -> tf.Tensor:
        """Returns what to add to rows of a variable, and updates their slots."""
        accumulator = self.slot("accumulators", variable)
        axes = list(range(1, values.shape.rank))
        before = rows.read(accumulator, ids)
        squares = before + tf.reduce_mean(tf.square(values), axes)
        rows.write(accumulator, ids, squares, before)
        denominator = rows.expand_to_rank(tf.sqrt(squares + self.epsilon), values)
        rate = tf.cast(learning_rate, values.dtype)
        return tf.math.divide_no_nan(-rate * values, denominator)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of an equal optimizer."""
        return {
            **super().get_config(),
            "initial_accumulator_value": self.initial_accumulator_value,
            "epsilon": self.epsilon,
        }

"""Adagrad on the rows touched."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfsampled.optimizers import _sparse_rows as rows
from tfsampled.optimizers._row_sparse_optimizer import RowSparse, validate_at_least_0


@keras.saving.register_keras_serializable(package="tfsampled")
class Adagrad(RowSparse, keras.optimizers.Adagrad):
    """`keras.optimizers.Adagrad` that updates only the rows in the gradient.

    Duplicate rows are summed first. Then, for each row `r` of the gradient `g`,

        a_r = a_r + g_r ** 2
        w_r = w_r - learning_rate * g_r / sqrt(a_r + epsilon)

    and nothing else is read or written. This equals Keras's Adagrad on the densified
    gradient, where a row of zeros does not move either. Keras's own step on a
    row-sparse gradient squares each copy of a repeated row by itself, and differs.

    A dense gradient gets Keras's own update, so that one optimizer serves the encoder
    and the table. NaN in a gradient makes the values that it meets NaN, as in Keras.

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
        >>> from tfsampled.optimizers import Adagrad
        >>> import tensorflow as tf
        >>> table = tf.Variable(tf.ones([1000, 2]))
        >>> optimizer = Adagrad(learning_rate=0.1)
        >>> rows = tf.IndexedSlices(tf.ones([3, 2]), [7, 7, 500], [1000, 2])
        >>> _ = optimizer.apply_gradients([(rows, table)])
        >>> tf.gather(table, [6, 7, 500]).numpy().round(3)
        array([[1.   , 1.   ],
               [0.901, 0.901],
               [0.905, 0.905]], dtype=float32)

    Reference:
        Duchi et al., Adaptive Subgradient Methods for Online Learning and Stochastic
        Optimization, 2011, https://jmlr.org/papers/v12/duchi11a.html
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        numbers = {
            "initial_accumulator_value": initial_accumulator_value,
            "epsilon": epsilon,
        }
        validate_at_least_0(self, **numbers)
        super().__init__(learning_rate, **numbers, **kwargs)

    def sparse_step(
        self,
        ids: tf.Tensor | None,
        values: tf.Tensor,
        variable: tf.Variable,
        learning_rate: Any,
    ) -> tf.Tensor:
        """Returns what to add to rows of a variable, and updates their slots."""
        accumulator = self.slot("accumulators", variable)
        before = rows.read(accumulator, ids)
        squares = before + tf.square(values)
        rows.write(accumulator, ids, squares, before)
        rate = tf.cast(learning_rate, values.dtype)
        return tf.math.divide_no_nan(-rate * values, tf.sqrt(squares + self.epsilon))

"""Adagrad with one accumulator a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfsampled.optimizers import _checks
from tfsampled.optimizers import _sparse_rows as rows
from tfsampled.optimizers._row_sparse import RowSparse


@keras.saving.register_keras_serializable(package="tfsampled")
class RowWiseAdagrad(RowSparse):
    r"""Adagrad whose state is one number a row: for a table of width D, D times less.

    For each row $r$ of the gradient $g$, in which a row stands once as the sum of its
    copies, with the mean over the row's D numbers,

    $$a_r \leftarrow a_r + \operatorname{mean}(g_r^2), \qquad
      w_r \leftarrow w_r - \eta\, g_r / \sqrt{a_r + \epsilon}$$

    and nothing else is read or written. A dense gradient is the gradient of all rows,
    and gives the same numbers. The rows of a vector have one number each: there, this
    is Adagrad. NaN in a gradient makes the whole row NaN.

    Row-sparse gradients are unscaled, clipped (`clipnorm`, `global_clipnorm`,
    `clipvalue`) as the table they stand for, and take `weight_decay` on the rows
    touched only.

    Args:
        learning_rate: A float, a `keras.optimizers.schedules.LearningRateSchedule`, or
            a function without arguments that gives the learning rate.
        initial_accumulator_value: What the accumulators start at; not below 0.
        epsilon: A small number for stability; not below 0.
        **kwargs: Arguments of `keras.optimizers.Optimizer`, such as `clipnorm`,
            `weight_decay`, `loss_scale_factor` and `name`.

    Raises:
        ValueError: `use_ema`, `ema_overwrite_frequency` or
            `gradient_accumulation_steps` is set: they need the whole table. Or a number
            is impossible.

    Example:
        >>> import tensorflow as tf
        >>> table = tf.Variable(tf.ones([1000, 2]))
        >>> optimizer = RowWiseAdagrad(learning_rate=0.1)
        >>> rows = tf.IndexedSlices(tf.constant([[3.0, 4.0]]), [7], [1000, 2])
        >>> _ = optimizer.apply_gradients([(rows, table)])
        >>> tf.gather(table, [6, 7]).numpy().round(3)
        array([[1.   , 1.   ],
               [0.915, 0.887]], dtype=float32)

    References:
        Gupta et al., `Training Recommender Systems at Scale: Communication-Efficient
        Model and Data Parallelism <https://arxiv.org/abs/2010.08899>`_, 2020
    """

    own_dense_update = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        _checks.not_negative(
            "RowWiseAdagrad",
            initial_accumulator_value=initial_accumulator_value,
            epsilon=epsilon,
        )
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon

    def add_slots(self, variables: Sequence[Any]) -> None:
        """Adds an accumulator for each row of these variables."""
        self._accumulators = self.add_row_variables(
            variables,
            "accumulator",
            initializer=keras.initializers.Constant(self.initial_accumulator_value),
        )

    def row_changes(
        self,
        ids: tf.Tensor | None,
        values: tf.Tensor,
        variable: tf.Variable,
        learning_rate: Any,
    ) -> tf.Tensor:
        """What to add to these rows of a variable; updates their slots."""
        accumulator = self.slot("accumulators", variable)
        width = list(range(1, values.shape.rank))
        squares = rows.read(accumulator, ids)
        squares += tf.reduce_mean(tf.square(values), width)
        rows.write(accumulator, ids, squares)
        denominator = rows.per_row(tf.sqrt(squares + self.epsilon), values)
        return -tf.cast(learning_rate, values.dtype) * values / denominator

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again."""
        return {
            **super().get_config(),
            "initial_accumulator_value": self.initial_accumulator_value,
            "epsilon": self.epsilon,
        }

"""Adam on the rows touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfsampled.optimizers import _checks
from tfsampled.optimizers import _sparse_rows as rows
from tfsampled.optimizers._row_sparse import RowSparse


@keras.saving.register_keras_serializable(package="tfsampled")
class LazyAdam(RowSparse, keras.optimizers.Adam):
    r"""Adam on the rows touched.

    For each row $r$ of the gradient $g$ of step $t$, in which a row stands once as the
    sum of its copies,

    $$m_r \leftarrow m_r + (1 - \beta_1)(g_r - m_r), \qquad
      v_r \leftarrow v_r + (1 - \beta_2)(g_r^2 - v_r)$$
    $$w_r \leftarrow w_r - \eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}
      \frac{m_r}{\sqrt{v_r} + \epsilon}$$

    and nothing else is read or written. Where every row is touched in every step this
    is `keras.optimizers.Adam` on the densified gradient. A row that is not touched
    stands still, while in Adam its moments decay and it moves on by them.

    `correct_skipped=True` makes up for that. For a row that was skipped $k$ times, the
    moments first decay as they do in Adam, by $\beta_1^k$ and $\beta_2^k$, and the row
    is then moved as far as Adam moves it in the $k + 1$ steps that begin now, if it is
    skipped as often again:

    $$\text{times} \quad \sum_{j=0}^{k} \rho^j = \frac{1 - \rho^{k+1}}{1 - \rho},
      \qquad \rho = \beta_1 / \sqrt{\beta_2}$$

    which is 1 for a row touched in every step and nears 10 for one touched rarely. It
    needs one more number a row, of `int64`.

    A dense gradient gets Keras's own update, or the corrected one of all rows, so that
    one optimizer serves the encoder and the table. NaN in a gradient makes the numbers
    it meets NaN, as in Keras.

    Row-sparse gradients are unscaled, clipped (`clipnorm`, `global_clipnorm`,
    `clipvalue`) as the table they stand for, and take `weight_decay` on the rows
    touched only.

    Args:
        learning_rate: A float, a `keras.optimizers.schedules.LearningRateSchedule`, or
            a function without arguments that gives the learning rate.
        beta_1: Decay of the first moments, at least 0 and below 1.
        beta_2: Decay of the second moments, at least 0 and below 1.
        epsilon: A small number for stability; not below 0.
        amsgrad: Whether to divide by the largest second moment so far.
        correct_skipped: Whether to make up for the steps in which a row was skipped.
        **kwargs: Arguments of `keras.optimizers.Optimizer`, such as `clipnorm`,
            `weight_decay`, `loss_scale_factor` and `name`.

    Raises:
        ValueError: `use_ema`, `ema_overwrite_frequency` or
            `gradient_accumulation_steps` is set: they need the whole table. Or a number
            is impossible; with `correct_skipped`, `beta_1` must be below the root of
            `beta_2`.

    Example:
        >>> import tensorflow as tf
        >>> table = tf.Variable(tf.ones([1000, 2]))
        >>> optimizer = LazyAdam(learning_rate=0.1)
        >>> rows = tf.IndexedSlices(tf.ones([3, 2]), [7, 7, 500], [1000, 2])
        >>> _ = optimizer.apply_gradients([(rows, table)])
        >>> tf.gather(table, [6, 7, 500]).numpy().round(3)
        array([[1. , 1. ],
               [0.9, 0.9],
               [0.9, 0.9]], dtype=float32)

    References:
        Kingma and Ba, `Adam: A Method for Stochastic Optimization
        <https://arxiv.org/abs/1412.6980>`_, 2014; for the correction, see
        `A method to improve accuracy of LazyAdam
        <https://github.com/tensorflow/tensorflow/issues/23668>`_, 2018
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
        _checks.decay_rates("LazyAdam", beta_1=beta_1, beta_2=beta_2)
        _checks.not_negative("LazyAdam", epsilon=epsilon)
        if correct_skipped and not beta_1**2 < beta_2:
            raise ValueError(
                f"correct_skipped=True got beta_1={beta_1} and beta_2={beta_2}, with "
                "which a skipped row would move without end: pass a beta_1 below the "
                "root of beta_2."
            )
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            amsgrad=amsgrad,
            **kwargs,
        )
        self.correct_skipped = self.own_dense_update = correct_skipped

    def add_slots(self, variables: Sequence[Any]) -> None:
        """Adds when each row was last updated, if that is to be corrected for."""
        if self.correct_skipped:
            # How many steps had been made by then.
            self._updated_at = self.add_row_variables(
                variables, "updated_at", dtype="int64"
            )

    def row_changes(
        self,
        ids: tf.Tensor | None,
        values: tf.Tensor,
        variable: tf.Variable,
        learning_rate: Any,
    ) -> tf.Tensor:
        """What to add to these rows of a variable; updates their slots."""
        momentum = self.slot("momentums", variable)
        velocity = self.slot("velocities", variable)
        m, v = rows.read(momentum, ids), rows.read(velocity, ids)
        step = self._step_size(values.dtype, learning_rate)
        if self.correct_skipped:
            skipped = rows.per_row(self._skipped(ids, variable), m)
            m *= tf.cast(tf.pow(self.beta_1, skipped), m.dtype)
            v *= tf.cast(tf.pow(self.beta_2, skipped), v.dtype)
            step *= tf.cast(self._steps_in_one(skipped), step.dtype)
        m += (values - m) * (1 - self.beta_1)
        rows.write(momentum, ids, m)
        v += (tf.square(values) - v) * (1 - self.beta_2)
        rows.write(velocity, ids, v)
        if self.amsgrad:
            largest = self.slot("velocity_hats", variable)
            v = tf.maximum(rows.read(largest, ids), v)
            rows.write(largest, ids, v)
        return -step * m / (tf.sqrt(v) + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again."""
        return {**super().get_config(), "correct_skipped": self.correct_skipped}

    def _step_size(self, dtype: tf.DType, rate: Any) -> tf.Tensor:
        """The learning rate, corrected for moments that started at 0."""
        steps = tf.cast(self.iterations, dtype) + 1
        root = tf.sqrt(1 - tf.pow(tf.cast(self.beta_2, dtype), steps))
        correction = root / (1 - tf.pow(tf.cast(self.beta_1, dtype), steps))
        return tf.cast(rate, dtype) * correction

    def _skipped(self, ids: tf.Tensor | None, variable: Any) -> tf.Tensor:
        """In how many steps each row was not touched since it was, `[k]` float32."""
        updated_at = self.slot("updated_at", variable)
        before = rows.read(updated_at, ids)
        made = tf.cast(self.iterations, tf.int64)
        # What is added is 0, but made from what was read, so that XLA, which sees that
        # the reading comes first, need not copy the slot.
        rows.write(updated_at, ids, made + 1 + tf.minimum(before, 0))
        # Of steps that were counted before the counter was set back, none was skipped.
        return tf.cast(tf.maximum(made - before, 0), tf.float32)

    def _steps_in_one(self, skipped: tf.Tensor) -> tf.Tensor:
        """Over how many of Adam's steps a move by the moments of now adds up to."""
        ratio = tf.constant(self.beta_1 / self.beta_2**0.5, skipped.dtype)
        return (1 - tf.pow(ratio, skipped + 1)) / (1 - ratio)

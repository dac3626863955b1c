"""Keras layers: the sampled softmax as the last layer of a classifier."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfsampled import nn
from tfsampled._core import checks, exact, examples

_SAMPLERS = {
    "log_uniform": tf.random.log_uniform_candidate_sampler,
    "uniform": tf.random.uniform_candidate_sampler,
}


@keras.saving.register_keras_serializable(package="tfsampled")
class SampledSoftmax(keras.layers.Layer):
    r"""The last layer of a classifier over many classes.

    Called, it is a `keras.layers.Dense(num_classes)`: it gives every class its logit,

    $$z_c = (x \cdot w_c + b_c) / \tau$$

    with the temperature $\tau$. What Dense lacks are the losses. `sampled_loss` costs
    `num_sampled` classes instead of all of them; `exact_loss` is the full cross
    entropy, and `top_k` the best classes, both without a tensor of all the logits.
    `tfsampled.models.SampledSoftmaxModel` puts them behind `fit`, `evaluate` and
    `predict`.

    The table `kernel` is `[num_classes, dim]`: a class is a row, so that the gradient
    of the sampled loss is the rows it touched (a `tf.IndexedSlices`). Dense holds the
    transpose: `dense.set_weights([tf.transpose(head.kernel), head.bias])`. Logits and
    losses are computed and returned in `variable_dtype`, so a mixed policy neither
    casts the table in each step nor rounds the logits.

    The temperature divides the bias too. With a bias and a temperature other than 1,
    the sampled loss therefore divides the whole bias vector, and the bias's gradient
    is dense; the kernel's is not.

    Args:
        num_classes: How many classes there are; labels are ids in `[0, num_classes)`.
        num_sampled: How many classes the sampled loss draws for a batch.
        sampler: `"log_uniform"`, where ids are ordered by falling frequency, or
            `"uniform"`. Classes are drawn without replacement.
        num_true: How many labels an example has; each has the weight `1 / num_true`.
        remove_accidental_hits: Whether a drawn class that is a label of an example is
            left out of that example's loss.
        use_bias: Whether a class has a bias.
        temperature: Divides the logits (before the sampled loss's correction by the
            log of the expected count). Above 0.
        kernel_initializer: Initializer of the table.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the table. It reads the whole table in each
            step; so does a constraint.
        bias_regularizer: Regularizer of the bias.
        kernel_constraint: Constraint of the table; a class is a row, so the axis of a
            norm per class is 1.
        bias_constraint: Constraint of the bias.
        seed: Seed of the sampler's operation, as in `tf.nn.sampled_softmax_loss`. None
            leaves the draws to the global seed: `keras.utils.set_random_seed` makes
            them repeatable, and otherwise they differ from run to run.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: An argument has a value that it cannot have.

    Example:
        >>> import keras
        >>> head = SampledSoftmax(num_classes=1000, num_sampled=50)
        >>> features = keras.random.normal((8, 16))
        >>> head(features).shape
        TensorShape([8, 1000])
        >>> labels = [3, 1, 4, 1, 5, 9, 2, 6]
        >>> head.sampled_loss(features, labels).shape
        TensorShape([8])
        >>> scores, classes = head.top_k(features, k=5)
        >>> classes.shape
        TensorShape([8, 5])

    References:
        Jean et al., `On Using Very Large Target Vocabulary for Neural Machine
        Translation <https://arxiv.org/abs/1412.2007>`_, 2015
    """

    def __init__(
        self,
        num_classes: int,
        num_sampled: int,
        sampler: str = "log_uniform",
        num_true: int = 1,
        remove_accidental_hits: bool = True,
        use_bias: bool = True,
        temperature: float = 1.0,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = checks.integer(num_classes, "num_classes")
        self.num_sampled = checks.integer(num_sampled, "num_sampled")
        self.num_true = checks.integer(num_true, "num_true")
        if self.num_sampled > self.num_classes:
            raise ValueError(
                f"num_sampled is {num_sampled}, but there are only {num_classes} "
                "classes to draw without replacement: pass at most num_classes."
            )
        if sampler not in _SAMPLERS:
            raise ValueError(
                f"sampler is {sampler!r}; it must be one of {sorted(_SAMPLERS)}."
            )
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0.")
        self.sampler = sampler
        self.remove_accidental_hits = remove_accidental_hits
        self.use_bias = use_bias
        self.temperature = float(temperature)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.seed = seed
        self.kernel: Any = None
        self.bias: Any = None
        self.supports_masking = True
        # TensorFlow's samplers have no XLA kernel; jit_compile="auto" heeds this.
        self.supports_jit = False
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    def build(self, input_shape: Any) -> None:
        """Creates the table and the bias for inputs of `input_shape`."""
        dim = input_shape[-1]
        if dim is None:
            raise ValueError(
                f"inputs have the shape {tuple(input_shape)}; the size of their last "
                "axis must be known to create the table."
            )
        # Not autocast: a mixed policy would cast every row to read a few.
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.num_classes, dim),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            autocast=False,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.num_classes,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                autocast=False,
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: dim})
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The logit of every class: `[..., num_classes]` for inputs `[..., dim]`."""
        rows, shape = self._rows(inputs)
        logits = tf.matmul(rows, self.kernel.value, transpose_b=True)
        if self.use_bias:
            logits += self._bias()
        return tf.reshape(logits, tf.concat([shape, [self.num_classes]], axis=0))

    def sampled_loss(
        self,
        inputs: Any,
        labels: Any,
        sample_weight: Any = None,
        mask: Any = None,
    ) -> tf.Tensor:
        """The sampled softmax loss of each example, for training.

        Args:
            inputs: Float, `[batch, dim]` or `[batch, time, dim]`.
            labels: Integer class ids, one for each example (`[batch]` or
                `[batch, time]`), or `num_true` on one more axis.
            sample_weight: Weights that multiply the losses; `[batch]` weighs whole
                sequences.
            mask: Boolean, one for each example; False makes its loss 0, whatever its
                label is.

        Returns:
            The losses, `[batch]` or `[batch, time]`, in the table's dtype.

        Raises:
            ValueError: Dtypes or shapes do not fit.
            tf.errors.InvalidArgumentError: A label lies outside `[0, num_classes)`.
        """
        rows, targets, shape = self._examples(inputs, labels, mask)
        losses = nn.sampled_softmax_loss(
            weights=self.kernel.value,
            biases=self._bias() if self.use_bias else None,
            labels=targets,
            inputs=rows,
            num_sampled=self.num_sampled,
            num_classes=self.num_classes,
            num_true=self.num_true,
            sampled_values=_SAMPLERS[self.sampler](
                true_classes=targets,
                num_true=self.num_true,
                num_sampled=self.num_sampled,
                unique=True,
                range_max=self.num_classes,
                seed=self.seed,
            ),
            remove_accidental_hits=self.remove_accidental_hits,
        )
        return examples.weighted(tf.reshape(losses, shape), sample_weight, mask)

    def exact_loss(
        self,
        inputs: Any,
        labels: Any,
        sample_weight: Any = None,
        mask: Any = None,
    ) -> tf.Tensor:
        """The cross entropy of each example over all the classes, in blocks of them.

        Arguments, result and errors are those of `sampled_loss`. The forward pass
        holds a few thousand logits an example, however many classes there are.
        """
        rows, targets, shape = self._examples(inputs, labels, mask)
        losses = exact.loss(
            _at_least_float32(rows),
            self.kernel.value,
            self._bias() if self.use_bias else None,
            targets,
        )
        losses = tf.cast(losses, self.variable_dtype)
        return examples.weighted(tf.reshape(losses, shape), sample_weight, mask)

    def top_k(self, inputs: Any, k: int) -> tuple[tf.Tensor, tf.Tensor]:
        """The `k` classes of the highest logits, in blocks of classes.

        Args:
            inputs: Float, `[batch, dim]` or `[batch, time, dim]`.
            k: How many; at most `num_classes`.

        Returns:
            The logits in falling order, `[..., k]`, and the ids of their classes,
            `int32`. The lower id comes first where logits are equal.

        Raises:
            ValueError: `k` is below 1 or above `num_classes`.
        """
        k = checks.integer(k, "k")
        if k > self.num_classes:
            raise ValueError(
                f"k is {k}, but there are only {self.num_classes} classes: pass at "
                "most num_classes."
            )
        rows, shape = self._rows(inputs)
        values, classes = exact.top_k(
            _at_least_float32(rows),
            self.kernel.value,
            self._bias() if self.use_bias else None,
            k,
        )
        shape = tf.concat([shape, [k]], axis=0)
        values = tf.cast(values, self.variable_dtype)
        return tf.reshape(values, shape), tf.reshape(classes, shape)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The logits' shape: `[..., num_classes]`."""
        return (*input_shape[:-1], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make an equal layer, without its weights."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "num_sampled": self.num_sampled,
            "sampler": self.sampler,
            "num_true": self.num_true,
            "remove_accidental_hits": self.remove_accidental_hits,
            "use_bias": self.use_bias,
            "temperature": self.temperature,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "seed": self.seed,
        }

    def _rows(self, inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Inputs `[..., dim]` as scaled rows in the table's dtype; the shape `...`."""
        inputs = tf.cast(tf.convert_to_tensor(inputs), self.variable_dtype)
        if not self.built:
            self.build(inputs.shape)
        rows, shape = examples.rows(inputs, self.kernel.shape[-1])
        return rows if self.temperature == 1 else rows / self.temperature, shape

    def _bias(self) -> tf.Tensor | tf.Variable:
        bias = self.bias.value
        return bias if self.temperature == 1 else bias / self.temperature

    def _examples(
        self, inputs: Any, labels: Any, mask: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Scaled rows `[N, dim]`, class ids `[N, num_true]`, the losses' shape."""
        inputs = tf.convert_to_tensor(inputs)
        rows, shape = self._rows(inputs)
        targets = examples.targets(labels, inputs, self.num_true)
        if mask is not None:  # a masked example may have a label of any value
            keep = tf.cast(examples.aligned(mask, inputs.shape[:-1], "mask"), tf.bool)
            keep = tf.reshape(tf.broadcast_to(keep, shape), [-1, 1])
            targets = tf.where(keep, targets, tf.zeros_like(targets))
        # Before the sampler sees the labels: its own message would not say as much.
        assertions = checks.assert_ids(targets, self.num_classes, "labels")
        with tf.control_dependencies(assertions):
            targets = tf.identity(targets)
        return rows, targets, shape


def _at_least_float32(rows: tf.Tensor) -> tf.Tensor:
    return tf.cast(rows, tf.float32) if rows.dtype.size < 4 else rows

"""`SampledSoftmax`: the logits, losses and best classes of a table of classes."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfsampled import samplers
from tfsampled._core import checks, exact, examples
from tfsampled.compat.v1 import nn
from tfsampled.layers import _padding as padding
from tfsampled.layers._class_table import ClassTable


@keras.saving.register_keras_serializable(package="tfsampled")
class SampledSoftmax(ClassTable):
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
    transpose; weights move from one to the other by
    `dense.set_weights([tf.transpose(head.table()), head.bias])` and
    `head.set_table(tf.transpose(dense.kernel), dense.bias)`. Logits and losses are
    computed and returned in `variable_dtype`, so a mixed policy neither casts the
    table in each step nor rounds the logits.

    The temperature divides the bias too. With a bias and a temperature other than 1,
    the sampled loss therefore divides the whole bias vector, and the bias's gradient
    is dense; the kernel's is not.

    Args:
        num_classes: How many classes there are; labels are ids in `[0, num_classes)`.
        num_sampled: How many classes the sampled loss draws for a batch.
        sampler: `"log_uniform"`, where ids are ordered by falling frequency,
            `"uniform"`, or an object of `tfsampled.samplers`, whose state this layer
            saves. Classes are drawn without replacement.
        num_true: How many labels an example has; each has the weight `1 / num_true`.
            Where examples have fewer, fill up with `ignore_class`: the labels that
            are left weigh alike.
        remove_accidental_hits: Whether a drawn class that is a label of an example is
            left out of that example's loss.
        use_bias: Whether a class has a bias.
        temperature: Divides the logits (before the sampled loss's correction by the
            log of the expected count). Above 0.
        tied_to: A `keras.layers.Embedding` of `num_classes` rows, whose table is this
            layer's: nothing is copied or transposed. Initializer, regularizer and
            constraint are then the embedding's. Under a mixed policy a call reads it
            as Keras reads every variable, in the compute dtype.
        num_shards: Into how many variables the table is cut; `kernel` is then their
            list.
        partition_strategy: `"div"`, contiguous runs of classes, or `"mod"`, class `c`
            in shard `c % num_shards`.
        ignore_class: A label that marks padding, such as -1 or 0: an example without
            another label has the loss 0 and no part in any mean.
        kernel_initializer: Initializer of the table.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the table. It reads the whole table in each
            step; so does a constraint.
        bias_regularizer: Regularizer of the bias.
        kernel_constraint: Constraint of the table; a class is a row, so the axis of a
            norm per class is 1.
        bias_constraint: Constraint of the bias.
        seed: Seed of a sampler given by name; None starts it at a random place, which
            `keras.utils.set_random_seed`, called before the layer is made, fixes.
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
        sampler: str | samplers.Sampler = "log_uniform",
        num_true: int = 1,
        remove_accidental_hits: bool = True,
        use_bias: bool = True,
        temperature: float = 1.0,
        tied_to: keras.layers.Embedding | None = None,
        num_shards: int = 1,
        partition_strategy: str = "div",
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        ignore_class: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_classes,
            use_bias=use_bias,
            tied_to=tied_to,
            num_shards=num_shards,
            partition_strategy=partition_strategy,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        self.num_sampled = checks.integer(num_sampled, "num_sampled")
        self.num_true = checks.integer(num_true, "num_true")
        self.sampler = samplers.get(sampler, seed)
        self.sampler.check(self.num_classes, self.num_sampled)
        self._sampler_name = sampler if isinstance(sampler, str) else None
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0.")
        self.remove_accidental_hits = remove_accidental_hits
        self.temperature = float(temperature)
        self.ignore_class = None if ignore_class is None else int(ignore_class)
        self.seed = seed
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    def build(self, input_shape: Any) -> None:
        """Creates the table, the bias and the sampler's state."""
        super().build(input_shape)
        self.sampler.prepare(self.num_classes)
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The logit of every class: `[..., num_classes]` for inputs `[..., dim]`."""
        rows, shape = self._rows(inputs)
        table = tf.cast(self.table(), rows.dtype)  # a tied one may come autocast
        logits = tf.matmul(rows, table, transpose_b=True)
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
        drawn = self.sampler.sample(
            targets.ids, self.num_classes, self.num_sampled, targets.real
        )
        losses = nn.sampled_softmax_loss(
            weights=[kernel.value for kernel in self.kernels],
            biases=self._bias(),
            labels=targets.ids,
            inputs=rows,
            num_sampled=self.num_sampled,
            num_classes=self.num_classes,
            num_true=self.num_true,
            sampled_values=padding.without(drawn, targets),
            remove_accidental_hits=self.remove_accidental_hits,
            partition_strategy=self.partition_strategy,
        )
        if targets.ragged:
            losses += padding.correction(
                rows, self._table(), self._bias(), targets, drawn
            )
        return examples.weighted(tf.reshape(losses, shape), sample_weight, targets.keep)

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
        rows = _at_least_float32(rows)
        losses = exact.loss(
            rows, self._table(), self._bias(), targets.ids, targets.shares(rows.dtype)
        )
        losses = tf.cast(losses, self.variable_dtype)
        return examples.weighted(tf.reshape(losses, shape), sample_weight, targets.keep)

    def ranks(self, inputs: Any, labels: Any, mask: Any = None) -> tf.Tensor:
        """How many classes have a higher logit than the example's best label.

        Of equal logits the lower id stands first, as in `top_k`. In blocks of classes.

        Args:
            inputs: As in `sampled_loss`.
            labels: As in `sampled_loss`.
            mask: As in `sampled_loss`.

        Returns:
            `int32`, `[batch]` or `[batch, time]`: 0 where a label is the best class.
            Examples that are padding have some number.
        """
        rows, targets, shape = self._examples(inputs, labels, mask)
        ranks = exact.ranks(
            _at_least_float32(rows), self._table(), self._bias(), targets.ids
        )
        return tf.reshape(tf.reduce_min(ranks, axis=1), shape)

    def kept(self, inputs: Any, labels: Any, mask: Any = None) -> tf.Tensor:
        """True for each example that has a label, False for padding."""
        inputs = tf.convert_to_tensor(inputs)
        shape = inputs.shape[:-1]
        keep = examples.labels(
            labels, shape, self.num_true, self.ignore_class, mask
        ).keep
        return tf.ones(tf.shape(inputs)[:-1], tf.bool) if keep is None else keep

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
            self._table(),
            self._bias(),
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
            "num_sampled": self.num_sampled,
            "sampler": self._sampler_name
            or keras.saving.serialize_keras_object(self.sampler),
            "num_true": self.num_true,
            "remove_accidental_hits": self.remove_accidental_hits,
            "temperature": self.temperature,
            "ignore_class": self.ignore_class,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SampledSoftmax:
        """An equal layer, without its weights."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("sampler", "tied_to")
            if isinstance(config[name], dict)
        }
        return cls(**{**config, **parts})

    def _rows(self, inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Inputs `[..., dim]` as scaled rows in the table's dtype; the shape `...`."""
        inputs = tf.cast(tf.convert_to_tensor(inputs), self.variable_dtype)
        if not self.built:
            self.build(inputs.shape)
        rows, shape = examples.rows(inputs, self.kernels[0].shape[-1])
        return rows if self.temperature == 1 else rows / self.temperature, shape

    def _bias(self) -> Any:
        bias = None if self.bias is None else self.bias.value
        return (
            bias if bias is None or self.temperature == 1 else bias / self.temperature
        )

    def _examples(
        self, inputs: Any, labels: Any, mask: Any
    ) -> tuple[tf.Tensor, examples.Labels, tf.Tensor]:
        """Scaled rows `[N, dim]`, labels `[N, num_true]`, the losses' shape."""
        inputs = tf.convert_to_tensor(inputs)
        rows, shape = self._rows(inputs)
        targets = examples.labels(
            labels, inputs.shape[:-1], self.num_true, self.ignore_class, mask
        )
        # Before the sampler sees the labels: its own message would not say as much.
        assertions = checks.assert_ids(targets.ids, self.num_classes, "labels")
        with tf.control_dependencies(assertions):
            return rows, targets._replace(ids=tf.identity(targets.ids)), shape


def _at_least_float32(rows: tf.Tensor) -> tf.Tensor:
    return tf.cast(rows, tf.float32) if rows.dtype.size < 4 else rows

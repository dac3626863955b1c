"""`SampledSoftmax`: the logits, losses and best classes of a table of classes."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfsampled import samplers
from tfsampled._core import validation
from tfsampled._core.labels import apply_weights
from tfsampled.compat.v1 import nn
from tfsampled.layers import _padding as padding
from tfsampled.layers._full_softmax import ExactSoftmax


@keras.saving.register_keras_serializable(package="tfsampled")
class SampledSoftmax(ExactSoftmax):
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
            num_true=num_true,
            temperature=temperature,
            ignore_class=ignore_class,
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
        self.num_sampled = validation.positive_int(num_sampled, "num_sampled")
        self.sampler = samplers.get(sampler, seed)
        self.sampler.validate(self.num_classes, self.num_sampled)
        self._sampler_name = sampler if isinstance(sampler, str) else None
        self.remove_accidental_hits = remove_accidental_hits
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Creates the table, the bias and the sampler's state."""
        super().build(input_shape)
        self.sampler.build(self.num_classes)
        self.built = True

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
            targets.ids, self.num_classes, self.num_sampled, targets.label_mask
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
        return apply_weights(
            tf.reshape(losses, shape), sample_weight, targets.example_mask
        )

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make an equal layer, without its weights."""
        return {
            **super().get_config(),
            "num_sampled": self.num_sampled,
            "sampler": self._sampler_name
            or keras.saving.serialize_keras_object(self.sampler),
            "remove_accidental_hits": self.remove_accidental_hits,
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

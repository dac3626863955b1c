"""`SampledSoftmax`: the logits, losses and best classes of a table of classes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled import samplers
from tfsampled._core import validation
from tfsampled._core.embedding import partition
from tfsampled._core.embedding.class_logits import cap_logits
from tfsampled._core.embedding.sharded_table import unit_rows
from tfsampled._core.full_softmax.top_k import full_softmax_top_k
from tfsampled._core.labels import real_tensor
from tfsampled.layers import _class_table
from tfsampled.layers import _head_labels as head_labels
from tfsampled.layers._class_tower import ClassTower
from tfsampled.layers._losses import compute_losses, label_ranks, logit_rows


@keras.saving.register_keras_serializable(package="tfsampled")
class SampledSoftmax(keras.layers.Layer):
    """The last layer of a classifier over many classes.

    When called it is a `keras.layers.Dense(num_classes)`, with the logits

        z_c = (<x, w_c> + b_c) / temperature

    Beyond Dense it has `sampled_loss`, whose cost grows with `num_sampled` and not with
    `num_classes`; `exact_loss`, the full cross entropy; `top_k` and `ranks`. None of
    these creates a tensor of all logits. `tfsampled.models.SampledSoftmaxModel` uses
    them in `fit`, `evaluate` and `predict`. The sampled loss of an example with the
    label `y`, where a class `c` is expected `E_c` times among the sampled ones, is

        log(sum of exp(z_c - log E_c) over y and the sampled c) - (z_y - log E_y)

    The table `kernel` is `[num_classes, dim]`: a class is a row, and the gradient of
    the sampled loss is a `tf.IndexedSlices` of the rows it read. Dense holds the
    transpose. To copy weights between the two:
    `dense.set_weights([tf.transpose(head.table()), head.bias])` and
    `head.set_table(tf.transpose(dense.kernel), dense.bias)`. Logits and losses are
    computed and returned in `variable_dtype`, so a mixed policy neither casts the table
    in each step nor rounds the logits. The temperature divides the bias too.

    Args:
        num_classes: The number of classes; labels are ids in `[0, num_classes)`.
        num_sampled: The number of classes that the sampled loss draws for a batch; None
            with a sampler that brings its own, such as `samplers.InBatch`.
        sampler: `"log_uniform"` for ids ordered by decreasing frequency, `"uniform"`,
            or an object of `tfsampled.samplers`, whose state this layer saves. Classes
            are drawn without replacement. With as many samples as classes, the sampled
            loss is the full one if all expected counts are equal, as those of a uniform
            sampler.
        num_true: The number of labels of an example; each has the weight
            `1 / num_true`. Pad those of examples that have fewer with `ignore_class`,
            or pass ragged labels: an example's labels share its weight equally.
        remove_accidental_hits: Whether a drawn class that is a label of an example is
            left out of that example's loss.
        use_bias: Whether each class has a bias.
        temperature: A positive number that divides the logits, before the sampled loss
            subtracts the log of the expected count.
        normalize: Whether inputs and class embeddings are divided by their Euclidean
            norm. Without a bias the logits are then cosines over the temperature.
        logit_soft_cap: A positive number: the logits, which the temperature has
            divided, become `logit_soft_cap * tanh(logits / logit_soft_cap)` before
            anything is subtracted. None for no cap, or for that of `tied_to`.
        num_hard_negatives: How many of the sampled classes, those of the highest
            corrected logits, enter an example's sampled loss. None for all.
        log_q: `"standard"` subtracts the log of the expected count from the logits of
            sampled classes and labels. `"corrected"` does so for sampled classes only,
            since a label is always present and not sampled. None leaves all logits as
            they are.
        tied_to: A `keras.layers.Embedding` of `num_classes` rows whose table this layer
            shares. Initializer, regularizer and constraint are then the embedding's.
        class_encoder: A layer or model that computes the row of a class from its
            features, such as an item tower; it replaces the table. The sampled loss
            encodes only the labels and the sampled classes, each once (under XLA, as
            often as it occurs), with `training=True`. All other methods encode every
            class, in chunks; `SampledSoftmaxModel` does so once per `evaluate` or
            `predict`.
        class_features: The inputs of `class_encoder`: an array, or a dict or tuple of
            arrays, of numbers or strings, with `num_classes` rows. Saved with the
            layer.
        num_shards: The number of variables that the table is cut into; `kernel` is then
            their list.
        partition_strategy: `"div"`, contiguous runs of classes, or `"mod"`, class `c`
            in shard `c % num_shards`.
        ignore_class: A label that marks padding, such as -1 or 0. An example without
            any other label has a loss of 0 and does not count in means.
        kernel_initializer: Initializer of the table.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the table. It reads the whole table in each
            step; so does a constraint.
        bias_regularizer: Regularizer of the bias.
        kernel_constraint: Constraint of the table. A class is a row, so the axis of a
            norm per class is 1.
        bias_constraint: Constraint of the bias.
        seed: Seed of a sampler given by name. None starts at a random position; to fix
            it, call `keras.utils.set_random_seed` before the layer is created.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: If an argument has an invalid value.

    Example:
        >>> import keras
        >>> from tfsampled.layers import SampledSoftmax
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

    Reference:
        Jean et al., On Using Very Large Target Vocabulary for Neural Machine
        Translation, 2015, https://arxiv.org/abs/1412.2007; for `log_q="corrected"`
        Khrylchenko et al., Correcting the LogQ Correction, 2025,
        https://arxiv.org/abs/2507.09331
    """

    shard_devices: tuple[str, ...] | None = None  # where a `ShardedSoftmax` has shards

    def __init__(
        self,
        num_classes: int,
        num_sampled: int | None,
        sampler: str | samplers.Sampler = "log_uniform",
        *,
        num_true: int = 1,
        remove_accidental_hits: bool = True,
        use_bias: bool = True,
        temperature: float = 1.0,
        normalize: bool = False,
        logit_soft_cap: float | None = None,
        num_hard_negatives: int | None = None,
        log_q: str | None = "standard",
        tied_to: keras.layers.Embedding | None = None,
        class_encoder: keras.layers.Layer | None = None,
        class_features: Any = None,
        num_shards: int = 1,
        partition_strategy: str = "div",
        ignore_class: int | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        # A mixed policy must not round the inputs.
        super().__init__(**{**kwargs, "autocast": False})
        if self.activity_regularizer is not None:
            raise ValueError(
                "`activity_regularizer` must be None: training computes no logits. "
                f"Received: activity_regularizer={self.activity_regularizer!r}."
            )
        if not tf.as_dtype(self.variable_dtype).is_floating:
            raise ValueError(
                f"`dtype` must be floating. Received: dtype={self.variable_dtype}."
            )
        self.num_classes = validation.num_classes(num_classes)
        self.num_sampled = validation.static_int(num_sampled, "num_sampled")
        self.sampler = samplers.get(sampler, seed)
        self.sampler.validate(self.num_classes, self.num_sampled)
        self._sampler_name = sampler if isinstance(sampler, str) else None
        self.seed = self.sampler.seed if self._sampler_name else None
        self.num_true = validation.positive_int(num_true, "num_true")
        self.remove_accidental_hits = remove_accidental_hits
        self.use_bias = use_bias
        self.temperature = validation.positive_float(temperature, "temperature")
        self.normalize = normalize
        self.logit_soft_cap = validation.optional_positive_float(
            logit_soft_cap, "logit_soft_cap"
        )
        self.num_hard_negatives = num_hard_negatives
        if num_hard_negatives is not None:
            self.num_hard_negatives = validation.positive_int(
                num_hard_negatives, "num_hard_negatives"
            )
        if log_q not in ("standard", "corrected", None):
            raise ValueError(
                '`log_q` must be "standard", "corrected" or None. '
                f"Received: log_q={log_q!r}."
            )
        self.log_q = log_q
        needs_removal = self.sampler.samples_labels or log_q == "corrected"
        if needs_removal and not remove_accidental_hits:
            raise ValueError(
                "`remove_accidental_hits` must be True with a sampler that takes "
                'labels and with log_q="corrected". Received: remove_accidental_hits='
                f"{remove_accidental_hits}, sampler={sampler!r}, log_q={log_q!r}."
            )
        self.num_shards = validation.positive_int(
            num_shards, "num_shards", num_classes=self.num_classes
        )
        partition.validate_strategy(partition_strategy)
        self.partition_strategy = partition_strategy
        self.ignore_class = validation.optional_int(ignore_class, "ignore_class")
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        _class_table.validate_source(self, tied_to, class_encoder, class_features)
        self.tied_to: Any = tied_to
        self.class_tower: Any = None
        if class_encoder is not None:
            source = class_encoder, class_features, self.num_classes
            self.class_tower = ClassTower(*source, dtype=self.variable_dtype)
        self._kernel: Any = None
        self.bias: Any = None
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    def build(self, input_shape: Any) -> None:
        """Creates the table, the bias and the sampler's state."""
        dim = input_shape[-1]
        if dim is None:
            raise ValueError(
                "The last axis of `inputs` must have a known size. "
                f"Received: input_shape={tuple(input_shape)}."
            )
        self.sampler.build_once(self.num_classes)  # may refuse the number
        if self.class_tower is not None:
            self.class_tower.build(dim)
        elif self.tied_to is None:
            self._kernel = _class_table.add_kernels(self, dim)
        elif self.tied_to.output_dim != dim:
            raise ValueError(
                "`inputs` must have as many features as `tied_to`. Received: "
                f"{dim} features, tied_to.output_dim={self.tied_to.output_dim}."
            )
        elif not self.tied_to.built:
            self.tied_to.build(None)
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

    @property
    def kernel(self) -> Any:
        """The variable `[num_classes, dim]`, or the list of its shards.

        None with a `class_encoder`.
        """
        if self.tied_to is None:
            return self._kernel
        _class_table.validate_embedding(self.tied_to)
        return self.tied_to.embeddings

    @property
    def kernels(self) -> list[Any]:
        """The variables of the table, one for each shard."""
        if not self.built:
            raise ValueError(
                f"The layer {self.name!r} has no table yet: call it, or "
                "build((None, dim)), first."
            )
        kernel = self.kernel
        if kernel is None:
            raise ValueError("A layer with a `class_encoder` has no variable table.")
        return kernel if isinstance(kernel, list) else [kernel]

    @property
    def biases(self) -> list[Any]:
        """The variables of the bias: one, or one for each shard, or none."""
        bias = [] if self.bias is None else self.bias
        return bias if isinstance(bias, list) else [bias]

    def table(self) -> tf.Tensor:
        """Returns the rows of all classes `[num_classes, dim]`, in the order of ids."""
        return _class_table.full(self).all_rows()

    def set_table(self, kernel: Any, bias: Any = None) -> None:
        """Assigns the kernel `[num_classes, dim]`, and the bias `[num_classes]`.

        Raises:
            ValueError: If the shapes do not fit, or there is a bias too many or too
                few.
        """
        kernel = tf.convert_to_tensor(kernel, self.variable_dtype)
        shape = (self.num_classes, self.kernels[0].shape[-1])
        bias_shape = None if bias is None else np.shape(bias)
        needed = shape[:1] if self.use_bias else None
        if kernel.shape != shape or bias_shape != needed:
            raise ValueError(
                f"`kernel` must have the shape {shape}, and `bias` the shape {needed}. "
                f"Received: kernel.shape={kernel.shape}, bias.shape={bias_shape}."
            )
        shards = partition.split(kernel, self.num_shards, self.partition_strategy)
        if self.use_bias:
            bias = tf.cast(bias, self.variable_dtype)
            shards += partition.split(bias, len(self.biases), self.partition_strategy)
        for variable, shard in zip([*self.kernels, *self.biases], shards, strict=True):
            variable.assign(shard)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Computes the logits `[..., num_classes]` of inputs `[..., dim]`."""
        rows, shape = logit_rows(self, inputs)
        table = tf.cast(self.table(), rows.dtype)
        if self.normalize:
            table = tf.cast(unit_rows(table), rows.dtype)
        logits = tf.matmul(rows, table, transpose_b=True)
        if (biases := _class_table.biases(self)) is not None:
            logits += biases.all_rows()
        logits = cap_logits(logits, self.logit_soft_cap)
        return tf.reshape(logits, tf.concat([shape, [self.num_classes]], axis=0))

    @tf.autograph.experimental.do_not_convert
    def sampled_loss(
        self,
        inputs: Any,
        labels: Any,
        sample_weight: Any = None,
        mask: Any = None,
        negatives: Any = None,
    ) -> tf.Tensor:
        """Computes the sampled softmax loss of each example, for training.

        Args:
            inputs: Floating, `[batch, dim]` or `[batch, time, dim]`.
            labels: Integer class ids, one for each example (`[batch]` or
                `[batch, time]`), or `num_true` on one more axis; ragged
                `[batch, (labels)]` with at most `num_true` labels each, if the layer
                has an `ignore_class`.
            sample_weight: Weights that multiply the losses; `[batch]` weighs whole
                sequences.
            mask: Boolean, one for each example. False makes its loss 0, whatever its
                label and its inputs are.
            negatives: Class ids to compare with besides the sampled ones: `[n]` for all
                examples, or `n` for each on one more axis, -1 for none. They are
                certain to be there, so their expected count is 1.

        Returns:
            The losses, `[batch]` or `[batch, time]`, in the table's dtype.

        Raises:
            ValueError: If dtypes or shapes do not fit.
            tf.errors.InvalidArgumentError: If a label is out of range, or one that the
                sampler never draws. The sampler has not moved then. Under XLA the loss
                of an example with a label out of range is NaN.
        """
        if negatives is not None:
            negatives = validation.as_class_ids(negatives, "negatives")
        # Those of all examples have no axis for them.
        own = None if negatives is None or negatives.shape.rank == 1 else negatives
        inputs, targets = head_labels.parse_valid(
            self, inputs, labels, sample_weight, mask, sampled=True, negatives=own
        )
        return compute_losses(self, inputs, targets, sample_weight, True, negatives)

    @tf.autograph.experimental.do_not_convert
    def exact_loss(
        self, inputs: Any, labels: Any, sample_weight: Any = None, mask: Any = None
    ) -> tf.Tensor:
        """Computes the cross entropy over all classes, in chunks of classes.

        Arguments, result and errors are those of `sampled_loss`, but there are no
        `negatives`, and labels that the sampler never draws are valid. The forward pass
        holds a few thousand logits of each example, however many classes there are.
        """
        inputs, targets = head_labels.parse_valid(
            self, inputs, labels, sample_weight, mask, sampled=False
        )
        return compute_losses(self, inputs, targets, sample_weight, False)

    @tf.autograph.experimental.do_not_convert
    def ranks(
        self, inputs: Any, labels: Any, mask: Any = None, exclude: Any = None
    ) -> tf.Tensor:
        """Counts the classes with a higher logit than the example's best label.

        Among equal logits the lower id ranks first, as in `top_k`. However, the label's
        own logit may be rounded differently from the others, so that all classes with
        an equal row may rank above it, or none. Computed in chunks of classes.

        Args:
            inputs: As in `sampled_loss`.
            labels: As in `sampled_loss`.
            mask: As in `sampled_loss`.
            exclude: Class ids that are not counted, as in `top_k`. A label among them
                has the rank `2**31 - 2`: it is never found.

        Returns:
            int32, `[batch]` or `[batch, time]`: 0 where a label is the best class, the
            largest int32 where an example has no label.
        """
        ranks = label_ranks(self, inputs, labels, mask, exclude)
        return tf.reduce_min(ranks, axis=-1)

    def example_mask(self, inputs: Any, labels: Any, mask: Any = None) -> tf.Tensor:
        """Returns True for each example that has a label, False for padding."""
        inputs = real_tensor(inputs, "inputs")
        targets = head_labels.parse(self, labels, inputs.shape[:-1], mask)
        if targets.example_mask is None:
            return tf.ones(tf.shape(inputs)[:-1], tf.bool)
        return targets.example_mask

    @tf.autograph.experimental.do_not_convert
    def top_k(
        self, inputs: Any, k: int, exclude: Any = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Finds the `k` classes of the highest logits, in chunks of classes.

        Args:
            inputs: Floating, `[batch, dim]` or `[batch, time, dim]`.
            k: The number of classes to find, at most `num_classes`.
            exclude: Class ids that may not be among them, such as items already seen:
                `n` for each example on one more axis, -1 for none.

        Returns:
            The logits in descending order, `[..., k]`, and their class ids, int32.
            Among logits that are equal, before any cap, the lower id comes first. Where
            `exclude` leaves fewer classes, they end in minus infinity and -1.

        Raises:
            ValueError: If `k` is not in `[1, num_classes]`, or shapes do not fit.
            tf.errors.InvalidArgumentError: If an id in `exclude` is out of range. Under
                XLA, the example has NaN and -1 instead.
        """
        k = validation.positive_int(k, "k", num_classes=self.num_classes)
        rows, shape = logit_rows(self, inputs)
        exclude = head_labels.class_lists(self, exclude, inputs, "exclude")
        tables = _class_table.full(self), _class_table.biases(self)
        values, classes = full_softmax_top_k(rows, *tables, k, exclude)
        if self.logit_soft_cap is not None:
            capped = cap_logits(values, self.logit_soft_cap)
            values = tf.where(classes < 0, values, capped)  # where classes run out
        shape = tf.concat([shape, [k]], axis=0)
        values = tf.cast(values, self.variable_dtype)
        return tf.reshape(values, shape), tf.cast(tf.reshape(classes, shape), tf.int32)

    def compute_output_spec(
        self, inputs: Any, *args: Any, **kwargs: Any
    ) -> keras.KerasTensor:
        """Returns the shape and the dtype of the logits."""
        shape = self.compute_output_shape(inputs.shape)
        return keras.KerasTensor(shape, self.variable_dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Returns the shape of the logits, `[..., num_classes]`."""
        return (*input_shape[:-1], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of an equal layer, without weights."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "num_sampled": self.num_sampled,
            "sampler": self._sampler_name or serialize(self.sampler),
            "num_true": self.num_true,
            "remove_accidental_hits": self.remove_accidental_hits,
            "use_bias": self.use_bias,
            "temperature": self.temperature,
            "normalize": self.normalize,
            "logit_soft_cap": self.logit_soft_cap,
            "num_hard_negatives": self.num_hard_negatives,
            "log_q": self.log_q,
            "tied_to": serialize(self.tied_to),
            **({} if self.class_tower is None else self.class_tower.arguments()),
            "num_shards": self.num_shards,
            "partition_strategy": self.partition_strategy,
            "ignore_class": self.ignore_class,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SampledSoftmax:
        """Makes a layer from its config, without weights."""
        objects = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("sampler", "tied_to", "class_encoder")
            if isinstance(config.get(name), dict)
        }
        return cls(**{**config, **objects})

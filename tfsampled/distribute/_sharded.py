"""A table of classes whose rows lie on several devices of one program."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import keras
import tensorflow as tf

from tfsampled import samplers
from tfsampled._core import replicas
from tfsampled._core.candidate_sampling.samplers import Draw
from tfsampled._core.embedding import partition
from tfsampled._core.xla import on_host, refuse_xla
from tfsampled.distribute import _parts
from tfsampled.distribute._parts import Part
from tfsampled.layers import SampledSoftmax
from tfsampled.optimizers._sparse_rows import assert_rows_in_bounds, validate_gradient


class ShardedSoftmax(SampledSoftmax):
    """A `SampledSoftmax` whose classes are divided among devices of one program.

    For tables that one device does not hold: on the parameter servers of a
    `tf.distribute.ParameterServerStrategy`, in custom training loops. Device `d`
    of `n` holds the classes `d, d + n, d + 2n, ...`, their optimizer slots, and a
    sampler that draws `num_sampled / n` of them.

    - `sampled_loss` reads the rows of labels and sampled classes, and computes where it
      is called. `apply` sends the gradients of these rows to their devices, which
      update them. No more rows are sent, however many classes there are.
    - `exact_loss`, `ranks` and `top_k` send the inputs to all devices. Each reduces the
      logits of its own classes to a few numbers of an example; in a `tf.function` all
      do so at the same time. They are for evaluation, and have no gradient.

    Workers that call `apply` at the same time do not overwrite each other: on a
    parameter server differences are added to rows and slots, and steps are counted, in
    place. There are exceptions: the last write wins for `LazyAdam`'s largest moments
    (`amsgrad`), and for all its slots with `correct_skipped`; `LearnedUnigram` may lose
    some labels; and two workers may draw the same classes.

    Calling the layer, or `table()`, copies all rows to the device of the caller.

    Create it outside the strategy's scope. A worker may have one replica, that is at
    most one GPU. `jit_compile=True` is not possible around the methods, which run on
    several devices. It is a layer without a config: its table is saved by `save`, not
    in the `.keras` file of a model.

    Args:
        devices: The devices, such as `["/job:ps/task:0/device:CPU:0"]`.
        num_classes: The number of classes.
        dim: The size of the inputs, and of each class's row.
        num_sampled: The number of classes to draw. Each device draws its share, rounded
            up, but not more than its classes.
        optimizer: A function that makes a `LazyAdam`, `Adagrad` or `RowWiseAdagrad` of
            `tfsampled.optimizers`, called once per device. It must not clip by norm,
            since a device knows the gradients of its own rows only. None for a table
            that is not trained: it has no slots, and `save` and `restore` handle only
            its rows and biases.
        sampler: `"log_uniform"`, `"uniform"`, or a `LogUniform`, `Uniform`,
            `FixedUnigram` or `LearnedUnigram`. Each device gets its own for its
            classes, which keep their order by frequency.
        seed: Makes draws and initial rows repeatable; those of the devices differ. A
            sampler's or initializer's own seed comes first.
        num_hard_negatives: See `SampledSoftmax`.
        **options: Other arguments of `SampledSoftmax`: `num_true`, `use_bias`,
            `temperature`, `normalize`, `logit_soft_cap`, `log_q`, `ignore_class`,
            `remove_accidental_hits`, `kernel_initializer`, `bias_initializer`, `dtype`.
            An initializer makes the rows of each device as a table of their own.

    Raises:
        ValueError: If an argument has an invalid value, or this is in the scope of a
            strategy.

    Example:
        >>> import tensorflow as tf
        >>> from tfsampled.distribute import ShardedSoftmax
        >>> from tfsampled.optimizers import Adagrad
        >>> head = ShardedSoftmax(["CPU:0"], 1000, 16, 50, lambda: Adagrad(0.1))
        >>> inputs, labels = tf.ones([8, 16]), tf.range(8)
        >>> with tf.GradientTape() as tape:
        ...     loss = tf.reduce_mean(head.sampled_loss(inputs, labels))
        >>> head.apply(tape.gradient(loss, head.trainable_variables))
        >>> head.exact_loss(inputs, labels).shape
        TensorShape([8])

    Reference:
        Li et al., Scaling Distributed Machine Learning with the Parameter Server, 2014,
        https://www.usenix.org/conference/osdi14/technical-sessions/presentation/li_mu
    """

    def __init__(
        self,
        devices: Sequence[str],
        num_classes: int,
        dim: int,
        num_sampled: int,
        optimizer: Callable[[], keras.optimizers.Optimizer] | None,
        sampler: str | samplers.Sampler = "log_uniform",
        *,
        seed: int | None = None,
        num_hard_negatives: int | None = None,
        **options: Any,
    ) -> None:
        _parts.validate_scope("ShardedSoftmax")
        devices = [devices] if isinstance(devices, str) else list(devices)
        if not devices:
            raise ValueError("`devices` must be at least one device. Received: [].")
        _validate_devices(devices)
        # Keras would find the variables of layers in a dict, and list them twice.
        parts = MappingProxyType(
            _parts.make(
                "ShardedSoftmax",
                dict(enumerate(devices)),
                len(devices),
                num_classes=num_classes,
                dim=dim,
                num_sampled=num_sampled,
                optimizer=optimizer,
                sampler=sampler,
                seed=seed,
                options=options,
            )
        )
        super().__init__(
            num_classes,
            num_sampled,
            ShardedSampler(parts),
            num_hard_negatives=num_hard_negatives,
            num_shards=len(parts),
            partition_strategy="mod",
            **options,
        )
        self._parts = parts
        self.shard_devices = tuple(devices)
        self.build((None, dim))

    def build(self, input_shape: Any) -> None:
        """Takes the rows and biases of the devices."""
        heads = [part.head for part in self._parts.values()]
        self._kernel = [head.kernel for head in heads]
        if self.use_bias:
            self.bias = [head.bias for head in heads]
        self.input_spec = keras.layers.InputSpec(
            min_ndim=2, axes={-1: self._kernel[0].shape[1]}
        )
        self.built = True

    @property
    def optimizers(self) -> list[Any]:
        """The optimizers of the devices, in their order."""
        return _parts.optimizers_of(self._parts)

    @tf.autograph.experimental.do_not_convert
    def apply(self, gradients: Sequence[Any]) -> None:
        """Updates `trainable_variables` by their gradients, each on its device."""
        _validate_context()
        gradients = _parts.validate_gradients(gradients, self._parts.values())
        variables, count = self.trainable_variables, len(self._parts)
        gradients = list(map(validate_gradient, gradients, variables))
        # All are valid before the first device changes anything.
        with tf.control_dependencies(assert_rows_in_bounds(gradients, variables)):
            for index, part in self._parts.items():
                with tf.device(part.device):
                    # Of 2 devices: kernel_0, kernel_1, bias_0, bias_1.
                    part.apply(gradients[index::count])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes rows, biases, slots and the state of samplers and optimizers.

        Each device writes its own file, `<path>-<device>-of-<devices>`: servers on
        several machines need a folder that all of them see. Call it when no worker is
        in a step, as after `ClusterCoordinator.join`. Give each save a path of its own.
        First sets the step counts of all devices to the largest of them, since a lost
        worker may have sent its last step to some devices only.

        Args:
            path: The start of the files' paths, such as "checkpoints/step-1000".

        Raises:
            ValueError: If a table in another number of parts was saved there.
        """
        _parts.save(path, self._parts, len(self._parts), even_steps=True)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Restores what `save`, or that of a `ClassParallelSoftmax`, has written.

        The number of parts may differ. If it does not, each device reads its own file.
        See `ClassParallelSoftmax.restore`, which reads these files too, for details.

        Raises:
            ValueError: If a file is missing, or the files do not come from a single
                save of a matching table. Nothing is changed then.
        """
        _parts.restore(path, self._parts, len(self._parts))

    def get_config(self) -> dict[str, Any]:
        """Raises `NotImplementedError`: a config does not hold devices."""
        raise NotImplementedError(
            "A ShardedSoftmax is not saved with a model. Call its `save`, and "
            "`restore` in a ClassParallelSoftmax of one replica: the layer to save is "
            "its `heads[0]`."
        )


class ShardedSampler(samplers.Sampler):
    """Draws from the sampler of each part, where it lies.

    Args:
        parts: The parts: class `c` of `n` parts is class `c // n` of part `c % n`.
            Not in a list or dict, whose layers Keras would list again.
    """

    def __init__(self, parts: MappingProxyType[int, Part]) -> None:
        first = parts[0].head.sampler
        super().__init__(first.seed)
        self.unsupported_label_message = first.unsupported_label_message
        self._parts = parts
        self._samplers = [part.head.sampler for part in parts.values()]

    def build(self, num_classes: int) -> None:
        """Does nothing: the samplers of the parts have variables."""
        self.built = True

    def draw(
        self,
        labels: tf.Tensor,
        label_mask: tf.Tensor | None,
        num_classes: int,
        num_sampled: int,
    ) -> Draw:
        """See `Sampler.draw`."""
        _validate_context()
        draws, ids = [], []
        own_labels, positions = self._divide(labels)
        for index, part in self._parts.items():
            own_mask = None
            if label_mask is not None:
                own_mask = tf.gather(tf.reshape(label_mask, [-1, 1]), positions[index])
            with tf.device(part.device), on_host():
                draws.append(part.draw(own_labels[index][:, tf.newaxis], own_mask))
            # Of 2 parts: class 3 of part 1 is class 7.
            ids.append(draws[index].ids * len(self._parts) + index)

        def expected_count(classes: tf.Tensor) -> tf.Tensor:
            return self._on_devices(
                classes, lambda index, rows: draws[index].expected_count(rows)
            )

        return Draw(tf.concat(ids, axis=0), expected_count)

    def supports(self, labels: tf.Tensor) -> tf.Tensor | None:
        """See `Sampler.supports`."""
        return self._on_devices(
            labels, lambda index, rows: self._samplers[index].supports(rows)
        )

    def _divide(self, classes: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Returns the classes of each part, by their number there, and their places."""
        # 2 parts, classes = [5, 0, 3] -> [[0], [2, 1]], places [[1], [0, 2]]
        count = len(self._parts)
        part, row = partition.locate(tf.reshape(classes, [-1]), count, 0, "mod")
        return partition.divide(part, row, count)

    def _on_devices(
        self, classes: tf.Tensor, function: Callable[[int, tf.Tensor], Any]
    ) -> Any:
        """Computes a number for each class on the device of its part, or None."""
        rows, places = self._divide(classes)
        values = []
        for index, part in self._parts.items():
            with tf.device(part.device), on_host():
                values.append(function(index, rows[index]))
        if values[0] is None:
            return None
        return tf.reshape(tf.dynamic_stitch(places, values), tf.shape(classes))


def _validate_devices(devices: list[str]) -> None:
    """Raises `ValueError` unless the devices exist and differ from each other.

    TensorFlow silently takes another device if one does not exist.
    """
    placed = []
    for device in devices:
        with tf.device(device):
            placed.append(tf.Variable(0.0).device)
    # "CPU:1", placed on "/job:localhost/replica:0/task:0/device:CPU:1"
    spec = tf.DeviceSpec.from_string
    fits = all(
        spec(actual).make_merged_spec(spec(device)) == spec(actual)
        for device, actual in zip(devices, placed, strict=True)
    )
    if not fits or len(set(placed)) < len(placed):
        raise ValueError(
            "`devices` must be different devices that TensorFlow has. "
            f"Received: devices={devices!r}, for which it takes {placed!r}."
        )


def _validate_context() -> None:
    """Raises `ValueError` under XLA, or where several replicas run this code."""
    refuse_xla()
    if (count := replicas.num_replicas()) > 1:
        raise ValueError(
            "A ShardedSoftmax needs a strategy of one replica in each worker. "
            f"Received: {count} replicas."
        )

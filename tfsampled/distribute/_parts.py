"""A table in parts: the classes of each, how they start, how they are saved."""

from __future__ import annotations

import contextlib
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfsampled import optimizers, samplers
from tfsampled._core import validation
from tfsampled._core.candidate_sampling.samplers import Draw, as_draw
from tfsampled.layers import SampledSoftmax

_OPTIMIZERS = optimizers.LazyAdam, optimizers.Adagrad, optimizers.RowWiseAdagrad
_SAMPLERS = (
    samplers.LogUniform,
    samplers.Uniform,
    samplers.FixedUnigram,
    samplers.LearnedUnigram,
)
_INITIALIZERS = {"kernel_initializer": "glorot_uniform", "bias_initializer": "zeros"}
_UNSUPPORTED = (
    "tied_to",
    "class_encoder",
    "class_features",
    "num_shards",
    "partition_strategy",
    "num_hard_negatives",
    "kernel_regularizer",
    "bias_regularizer",
    "kernel_constraint",
    "bias_constraint",
)


class Part(NamedTuple):
    """One of `count` parts: part `c % count` holds class `c` as its class `c // count`.

    Attributes:
        head: The table of these classes.
        optimizer: The optimizer of the table; None if it is not trained.
        device: The device of the variables; None leaves the placement to TensorFlow.
        total: The number of classes of all parts.
    """

    head: SampledSoftmax
    optimizer: Any
    device: str | None
    total: int

    def variables(self) -> dict[str, Any]:
        """Returns what is saved and restored, by name."""
        optimizer, sampler = self.optimizer, self.head.sampler
        named = {f"head_{i}": v.value for i, v in enumerate(self.head.weights)}
        if optimizer is None:  # files of any optimizer and sampler fit
            return named
        for i, variable in enumerate(optimizer.variables):
            named[f"{type(optimizer).__name__}_{i}"] = variable.value
        for name, variable in sampler.state().items():
            named[f"{type(sampler).__name__}_{name}"] = variable
        return named

    def draw(self, labels: tf.Tensor, label_mask: tf.Tensor | None) -> Draw:
        """Draws candidates, by their number here; see `Sampler.draw`."""
        num_classes, num_sampled = self.head.num_classes, self.head.num_sampled
        sampler = self.head.sampler
        drawn = as_draw(sampler.draw(labels, label_mask, num_classes, num_sampled))
        if num_sampled != num_classes:
            return drawn
        # All classes are drawn: each is there for certain.
        return drawn._replace(expected_count=lambda ids: tf.ones_like(ids, tf.float32))

    def apply(self, gradients: Sequence[Any]) -> None:
        """Updates the head's variables by their gradients; counts a step of none."""
        variables = self.head.trainable_variables
        # For dense ones Keras would call back to all replicas at once.
        rows = [
            gradient
            if gradient is None or isinstance(gradient, tf.IndexedSlices)
            else tf.IndexedSlices(gradient, tf.range(variable.shape[0]), variable.shape)
            for gradient, variable in zip(gradients, variables, strict=True)
        ]
        if all(gradient is None for gradient in rows):
            self.optimizer.iterations.assign_add(1)
        else:
            self.optimizer.apply(rows, variables)

    def is_per_class(self, variable: tf.Variable) -> bool:
        """Returns whether a variable has a row for each class."""
        return variable.shape[:1] == [self.head.num_classes]


def validate_scope(owner: str) -> None:
    """Raises `ValueError` in the scope of a strategy."""
    if tf.distribute.has_strategy():
        raise ValueError(
            f"A {owner} must be created outside the strategy's scope, which decides "
            "where variables lie."
        )


def make(
    owner: str,
    devices: Mapping[int, str | None],
    count: int,
    *,
    num_classes: int,
    dim: int,
    num_sampled: int,
    optimizer: Callable[[], keras.optimizers.Optimizer] | None,
    sampler: str | samplers.Sampler,
    seed: int | None,
    options: dict[str, Any],
) -> dict[int, Part]:
    """Makes parts of a table, by their number.

    `devices` has the device of each part to make, of `count` in all. The keyword
    arguments are those of the class named `owner`; `options` are others of
    `SampledSoftmax`.

    Raises:
        ValueError: If an argument has an invalid value.
    """
    num_classes = validation.num_classes(num_classes)
    dim = validation.positive_int(dim, "dim")
    if num_classes < count:
        raise ValueError(
            "`num_classes` must be at least the number of parts, of which each device "
            f"has one. Received: num_classes={num_classes}, {count} parts."
        )
    if unsupported := sorted(options.keys() & set(_UNSUPPORTED)):
        raise ValueError(f"{owner} does not take {', '.join(unsupported)}.")
    sampler = samplers.get(sampler)
    if type(sampler) not in _SAMPLERS:
        raise ValueError(
            "`sampler` must be a LogUniform, Uniform, FixedUnigram or LearnedUnigram. "
            f"Received: sampler={sampler!r}."
        )
    num_sampled = validation.positive_int(
        num_sampled, "num_sampled", num_classes=num_classes
    )
    if isinstance(sampler, samplers.FixedUnigram):
        sampler.validate(num_classes, num_sampled)
    seed = validation.optional_int(seed, "seed")
    start = random.getrandbits(31)
    first_seed = start if seed is None else seed
    parts = {}
    for index, device in devices.items():
        own_classes = len(range(index, num_classes, count))
        share = min(-(-num_sampled // count), own_classes)
        initializers = {
            name: _with_seed(options.get(name, default), first_seed, index)
            for name, default in _INITIALIZERS.items()
        }
        with tf.device(device) if device else contextlib.nullcontext():
            own_sampler = _sampler_of_part(sampler, seed, index, count)
            head = SampledSoftmax(
                own_classes, share, own_sampler, **{**options, **initializers}
            )
            head.build((None, dim))
            if seed is None and sampler.seed is None:
                own_sampler.position.assign(start)
            trainer = _make_optimizer(optimizer, head)
        parts[index] = Part(head, trainer, device, num_classes)
    return parts


def _sampler_of_part(
    sampler: samplers.Sampler, seed: int | None, index: int, count: int
) -> Any:
    """Makes the sampler of one part's classes."""
    # No two parts have one seed: they never draw the same rows in step.
    own_seed = index + ((seed if sampler.seed is None else sampler.seed) or 0)
    if isinstance(sampler, samplers.FixedUnigram):
        counts = sampler.counts[index::count]
        return samplers.FixedUnigram(counts, sampler.distortion, own_seed)
    return type(sampler)(own_seed)


def _make_optimizer(
    make: Callable[[], keras.optimizers.Optimizer] | None, head: SampledSoftmax
) -> keras.optimizers.Optimizer | None:
    """Makes the optimizer of one part's classes."""
    if make is None:
        return None
    optimizer = make() if callable(make) else None
    if not isinstance(optimizer, _OPTIMIZERS) or optimizer.built:
        raise ValueError(
            "`optimizer` must be a function that makes a new LazyAdam, Adagrad or "
            "RowWiseAdagrad of tfsampled.optimizers, such as lambda: LazyAdam(0.01). "
            f"Received: optimizer={make!r}, which makes {optimizer!r}."
        )
    for limit in ("clipnorm", "global_clipnorm"):
        if (value := getattr(optimizer, limit)) is not None:
            raise ValueError(
                f"`optimizer` must not have a {limit}: a part of the table knows the "
                f"norm of its own rows' gradients only. Received: {limit}={value}."
            )
    optimizer.build(head.trainable_variables)
    return optimizer


def local_replicas(strategy: tf.distribute.Strategy) -> dict[int, str | None]:
    """Returns the device of each replica of this process, by its number."""
    if strategy is tf.distribute.get_strategy():  # the default one
        return {0: None}
    numbers: list[int] = []

    def note(context: tf.distribute.experimental.ValueContext) -> int:
        numbers.append(context.replica_id_in_sync_group)
        return 0

    strategy.experimental_distribute_values_from_function(note)
    return dict(zip(numbers, strategy.extended.worker_devices, strict=True))


def optimizers_of(parts: Mapping[int, Part]) -> list[Any]:
    """Returns the optimizers of the parts; none if they are not trained."""
    return [part.optimizer for part in parts.values() if part.optimizer is not None]


def validate_gradients(gradients: Sequence[Any], parts: Collection[Part]) -> list[Any]:
    """Returns the gradients of the variables of some parts as a list.

    Raises:
        ValueError: If there are fewer or more, or the parts are not trained.
    """
    gradients = list(gradients)
    if any(part.optimizer is None for part in parts):
        raise ValueError(
            "`optimizer` must be given where a table is trained. "
            "Received: optimizer=None."
        )
    count = sum(len(part.head.trainable_variables) for part in parts)
    if len(gradients) != count:
        raise ValueError(
            "`gradients` must have one gradient for each variable, None where there is "
            f"none. Received: {len(gradients)} gradients, {count} variables."
        )
    return gradients


def _with_seed(identifier: Any, seed: int, index: int) -> Any:
    """Returns an initializer that makes other numbers for each part."""
    initializer = keras.initializers.get(identifier)
    config: dict[str, Any] = getattr(initializer, "get_config", dict)()
    if "seed" not in config:
        return initializer
    if isinstance(config["seed"], int):
        seed = config["seed"]
    return type(initializer).from_config({**config, "seed": seed + index})


def save(
    path: str | os.PathLike[str],
    parts: Mapping[int, Part],
    count: int,
    even_steps: bool = False,
) -> None:
    """Writes the parts of this process, of `count` in all.

    If `even_steps`, all parts get the largest number of steps of any.
    """
    if others := _saved(path).keys() - {count}:
        raise ValueError(
            "`path` must not be that of a save in another number of parts. "
            f"Received: path={os.fspath(path)!r}, saved in {min(others)} parts."
        )
    if even_steps and (trained := optimizers_of(parts)):
        steps = max(int(optimizer.iterations) for optimizer in trained)
        for optimizer in trained:
            optimizer.iterations.assign(steps)
    for index, part in parts.items():
        tf.train.Checkpoint(**part.variables()).write(_path_of(path, index, count))


def restore(
    path: str | os.PathLike[str], parts: Mapping[int, Part], count: int
) -> None:
    """Reads the parts of this process, of `count` in all, from those of any number.

    Raises:
        ValueError: If there are no such files, or their variables do not fit. Nothing
            has changed then.
    """
    # 5 classes, saved by 2: files of the classes 0, 2, 4 and 1, 3. The part of class
    # 0, 3 of 3 takes row 0 // 2 of the first file, and row 3 // 2 of the second.
    files = _saved(path)
    saved = next(iter(files), 0)
    if len(files) != 1 or files[saved] != saved:
        raise ValueError(
            "`path` must be that of one whole save. Received: "
            f"path={os.fspath(path)!r}, number of files by parts: {files}."
        )
    readers = [tf.train.load_checkpoint(_path_of(path, i, saved)) for i in range(saved)]
    for part in parts.values():
        _validate(path, readers, part)
    for index, part in parts.items():
        if saved == count:  # read on the part's own device
            checkpoint = tf.train.Checkpoint(**part.variables())
            status = checkpoint.read(_path_of(path, index, count))
            status.assert_existing_objects_matched().expect_partial()
            continue
        classes = index + count * np.arange(part.head.num_classes)
        for name, variable in part.variables().items():
            if not part.is_per_class(variable):
                variable.assign(readers[index % saved].get_tensor(_key(name)))
                continue
            value = np.empty(variable.shape, variable.dtype.as_numpy_dtype)
            for file, reader in enumerate(readers):
                rows = classes % saved == file
                value[rows] = reader.get_tensor(_key(name))[classes[rows] // saved]
            variable.assign(value)


def _path_of(path: str | os.PathLike[str], index: int, count: int) -> str:
    return f"{os.fspath(path)}-{index:05}-of-{count:05}"


def _saved(path: str | os.PathLike[str]) -> dict[int, int]:
    """Counts the files of saves under a path, by their number of parts."""
    folder, name = os.path.split(os.fspath(path))
    folder = folder or "."
    files = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    pattern = re.compile(re.escape(name) + r"-\d{5}-of-(\d{5})\.index")
    matches = map(pattern.fullmatch, files)
    return dict(Counter(int(match[1]) for match in matches if match))


def _key(name: str) -> str:
    return f"{name}/.ATTRIBUTES/VARIABLE_VALUE"


def _shapes(shapes: Mapping[str, Any]) -> str:
    """Returns the names and shapes of variables as text."""
    suffix = _key("")
    return ", ".join(
        f"{name.removesuffix(suffix)} {list(shapes[name])}" for name in sorted(shapes)
    )


def _validate(path: str | os.PathLike[str], readers: list[Any], part: Part) -> None:
    """Raises `ValueError` unless the files are one save of such a part's table."""
    variables = {_key(name): v for name, v in part.variables().items()}
    prefix = "head_" if part.optimizer is None else ""
    num_rows = 0
    steps: set[int] = set()
    for reader in readers:
        shapes = reader.get_variable_to_shape_map()
        dtypes = reader.get_variable_to_dtype_map()
        names = {name for name in shapes if name.endswith(_key(""))}
        needed = {name for name in names if name.startswith(prefix)}
        fits = needed == variables.keys() and all(
            dtypes[name] == v.dtype
            and shapes[name][1:] == v.shape[1:]
            and (part.is_per_class(v) or shapes[name] == v.shape)
            for name, v in variables.items()
        )
        if not fits:
            raise ValueError(
                "The files must be of a table of this sampler, optimizer, dim and "
                "use_bias, with the variables "
                f"{_shapes({n: v.shape for n, v in variables.items()})}. "
                f"Received: path={os.fspath(path)!r}, with "
                f"{_shapes({name: shapes[name] for name in names})}."
            )
        num_rows += shapes[_key("head_0")][0]
        iterations = {name for name in names if name.endswith(_key("_0"))}
        iterations -= {_key("head_0")}  # of the optimizer, if there was one
        steps.update(int(reader.get_tensor(name)) for name in iterations)
    if num_rows != part.total or len(steps) > 1:
        raise ValueError(
            f"The files must be of one save of {part.total} classes. Received: "
            f"path={os.fspath(path)!r} with {num_rows} classes, after {sorted(steps)} "
            "steps."
        )

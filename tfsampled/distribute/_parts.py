"""The classes of each replica: where they lie, how they start, how they are saved."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfsampled.layers import SampledSoftmax


class Part(NamedTuple):
    """The classes of one replica: class `c` of all is its class `c // count`.

    Attributes:
        head: Their table.
        optimizer: What trains it.
        total: The number of classes of all replicas.
    """

    head: SampledSoftmax
    optimizer: Any
    total: int

    def variables(self) -> dict[str, Any]:
        """Returns what is saved, by name."""
        optimizer, sampler = self.optimizer, self.head.sampler
        named = {f"head_{i}": v.value for i, v in enumerate(self.head.weights)}
        for i, variable in enumerate(optimizer.variables):
            named[f"{type(optimizer).__name__}_{i}"] = variable.value
        for name, variable in sampler.state().items():
            named[f"{type(sampler).__name__}_{name}"] = variable
        return named

    def is_per_class(self, variable: tf.Variable) -> bool:
        """Returns whether a variable has a row for each class."""
        return variable.shape[:1] == [self.head.num_classes]


def local_replicas(
    strategy: tf.distribute.Strategy,
) -> Iterator[tuple[int, str | None]]:
    """Yields number and device of each replica of this process."""
    if strategy is tf.distribute.get_strategy():  # the default one
        yield 0, None
        return
    numbers: list[int] = []

    def note(context: tf.distribute.experimental.ValueContext) -> int:
        numbers.append(context.replica_id_in_sync_group)
        return 0

    strategy.experimental_distribute_values_from_function(note)
    yield from zip(numbers, strategy.extended.worker_devices, strict=True)


def with_seed(identifier: Any, seed: int, index: int) -> Any:
    """Returns an initializer that makes other numbers for each replica."""
    initializer = keras.initializers.get(identifier)
    config: dict[str, Any] = getattr(initializer, "get_config", dict)()
    if "seed" not in config:
        return initializer
    if isinstance(config["seed"], int):
        seed = config["seed"]
    return type(initializer).from_config({**config, "seed": seed + index})


def save(path: str | os.PathLike[str], parts: Mapping[int, Part], count: int) -> None:
    """Writes the parts of this process, of `count` in all."""
    if others := _saved(path).keys() - {count}:
        raise ValueError(
            "`path` must not be that of a save by another number of replicas. "
            f"Received: path={os.fspath(path)!r}, saved by {min(others)} replicas."
        )
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
            f"path={os.fspath(path)!r}, number of files by replicas: {files}."
        )
    readers = [
        tf.train.load_checkpoint(_path_of(path, index, saved)) for index in range(saved)
    ]
    for part in parts.values():
        _validate(path, readers, part)
    for index, part in parts.items():
        classes = index + count * np.arange(part.head.num_classes)
        for name, variable in part.variables().items():
            if not part.is_per_class(variable):
                variable.assign(readers[index % saved].get_tensor(_key(name)))
                continue
            for file, reader in enumerate(readers):
                rows = np.flatnonzero(classes % saved == file)
                if rows.size:
                    value = reader.get_tensor(_key(name))[classes[rows] // saved]
                    variable.scatter_nd_update(rows[:, np.newaxis], value)


def _path_of(path: str | os.PathLike[str], index: int, count: int) -> str:
    return f"{os.fspath(path)}-{index:05}-of-{count:05}"


def _saved(path: str | os.PathLike[str]) -> dict[int, int]:
    """Counts the files of saves under a path, by their number of replicas."""
    folder, name = os.path.split(os.fspath(path))
    folder = folder or "."
    files = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    pattern = re.compile(re.escape(name) + r"-\d{5}-of-(\d{5})\.index")
    matches = map(pattern.fullmatch, files)
    return dict(Counter(int(match[1]) for match in matches if match))


def _key(name: str) -> str:
    return f"{name}/.ATTRIBUTES/VARIABLE_VALUE"


def _validate(path: str | os.PathLike[str], readers: list[Any], part: Part) -> None:
    """Raises `ValueError` unless the files are one save of such a part's table."""
    variables = {_key(name): v for name, v in part.variables().items()}
    num_rows, steps = 0, set()
    for reader in readers:
        shapes = reader.get_variable_to_shape_map()
        dtypes = reader.get_variable_to_dtype_map()
        names = {name for name in shapes if name.endswith(_key(""))}
        fits = names == variables.keys() and all(
            dtypes[name] == v.dtype
            and shapes[name][1:] == v.shape[1:]
            and (part.is_per_class(v) or shapes[name] == v.shape)
            for name, v in variables.items()
        )
        if not fits:
            raise ValueError(
                "The files must hold the variables of this ClassParallelSoftmax. "
                f"Received: path={os.fspath(path)!r} with "
                f"{ {name: shapes[name] for name in sorted(names)} }."
            )
        num_rows += shapes[_key("head_0")][0]
        iterations = f"{type(part.optimizer).__name__}_0"
        steps.add(int(reader.get_tensor(_key(iterations))))
    if num_rows != part.total or len(steps) > 1:
        raise ValueError(
            f"The files must be of one save of {part.total} classes. Received: "
            f"path={os.fspath(path)!r} with {num_rows} classes, after {sorted(steps)} "
            "steps."
        )

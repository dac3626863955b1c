"""The rows of classes that a layer computes from their features: an item tower."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core.embedding.sharded_table import unit_rows
from tfsampled._core.xla import on_host, tracing_for_xla
from tfsampled.layers._encoder_inputs import match_inputs
from tfsampled.layers._keras import in_symbolic_scope

# So many classes are encoded at a time where all are.
CHUNK = 4096
_CONFIG = {"names", "is_array", "shapes", "dtypes"}


class ClassTower(keras.layers.Layer):
    """The features of the classes, and the layer that computes rows from them.

    Features are saved with the head, but are not weights of it.

    Args:
        encoder: A layer or model that maps the features of a batch of classes to
            `[batch, dim]`.
        features: An array, or a dict or tuple of arrays, with `num_classes` rows; or
            their shapes as in `arguments`, for features that are loaded later.
        num_classes: The number of classes.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self, encoder: Any, features: Any, num_classes: int, **kwargs: Any
    ) -> None:
        super().__init__(name="class_tower", **kwargs)
        if not isinstance(encoder, keras.layers.Layer):
            raise ValueError(
                "`class_encoder` must be a keras.layers.Layer. "
                f"Received: class_encoder={encoder!r}."
            )
        self.encoder = encoder
        self.num_classes = num_classes
        is_config = isinstance(features, dict) and set(features) == _CONFIG
        self._is_given = self._is_loaded = not is_config
        if is_config:
            self._names, self._is_array = features["names"], features["is_array"]
            arrays = _empty_arrays(features)
        else:
            self._names = list(features) if isinstance(features, dict) else None
            self._is_array = not isinstance(features, (dict, tuple))
            arrays = [features] if self._is_array else features
            if self._names is not None:
                arrays = features.values()
        arrays = [_as_array(array) for array in arrays]
        sizes = [array.shape[0] if array.ndim else None for array in arrays]
        if not arrays or set(sizes) != {num_classes}:
            raise ValueError(
                "`class_features` must have a row for each class. Received: "
                f"{sizes} rows, num_classes={num_classes}."
            )
        with tf.init_scope():
            self.columns = [
                tf.Variable(array, trainable=False, name=f"feature_{index}")
                for index, array in enumerate(arrays)
            ]
        # `[num_classes, dim]` of `reused`; no attribute, so that checkpoints have none.
        self._cache: Any = types.SimpleNamespace(table=None)
        self._is_reused = False
        self.dim: int | None = None

    def build(self, dim: int | None) -> None:
        """Builds the encoder; None for `dim` takes any.

        Raises:
            ValueError: If it does not make rows of `dim` numbers.
        """
        inputs = [
            keras.KerasTensor((None, *column.shape[1:]), column.dtype.name)
            for column in self.columns
        ]
        shape = tuple(self.encoder(self._structure(inputs)).shape)
        if len(shape) != 2 or None in shape[1:] or dim not in (None, shape[1]):
            raise ValueError(
                "`class_encoder` must make [batch, dim], with the dim of the inputs. "
                f"Received: the shape {shape}, inputs of dim {dim}."
            )
        self.dim = shape[1]
        self.built = True

    def encode(self, ids: tf.Tensor, training: bool) -> tf.Tensor:
        """Computes the rows `[n, dim]` of classes, int64 `[n]`."""
        # A model that is being loaded is called symbolically before it has them.
        if not self._is_loaded and not in_symbolic_scope():
            raise ValueError(
                "`class_features` must be loaded or given: a config holds none. "
                "Received: a layer made from a config alone."
            )
        features = [tf.gather(column, ids) for column in self.columns]
        rows = self.encoder(self._structure(features), training=training)
        return tf.cast(rows, self.variable_dtype)

    def sampled_rows(self, ids: tf.Tensor) -> tf.Tensor:
        """Computes rows in training, each distinct class once without XLA."""
        if tracing_for_xla():  # where no shape may depend on data
            return self.encode(ids, training=True)
        # ids = [7, 2, 7] -> encodes [7, 2], index = [0, 1, 0]
        with on_host():
            ids, index = tf.unique(ids)
            # With a second axis, of one element, the gradient is no tf.IndexedSlices.
            index = tf.stack([index, tf.zeros_like(index)], axis=1)
        rows = self.encode(ids, training=True)
        return tf.gather_nd(rows[:, tf.newaxis], index)

    def table(self) -> tf.Tensor:
        """Computes the rows of all classes for inference, or takes those `reused`."""
        cached = self._cache.table if self._is_reused else None
        return self._encode_table() if cached is None else cached.value()

    def _encode_table(self) -> tf.Tensor:
        """Computes the rows of all classes, in chunks of classes."""

        def encode(ids: tf.Tensor) -> tf.Tensor:
            with keras.StatelessScope() as scope:  # keeps no losses of layers
                if (outer := scope.original_scope) is not None:
                    scope.state_mapping.update(outer.state_mapping)
                return self.encode(ids, training=False)

        if self.num_classes <= CHUNK:
            return encode(tf.range(self.num_classes, dtype=tf.int64))
        num_chunks = -(-self.num_classes // CHUNK)
        # 10 classes in chunks of 4: [[0 1 2 3] [4 5 6 7] [8 9 9 9]]
        ids = tf.reshape(tf.range(num_chunks * CHUNK, dtype=tf.int64), [-1, CHUNK])
        rows = tf.map_fn(
            encode,
            tf.minimum(ids, self.num_classes - 1),
            fn_output_signature=tf.TensorSpec([CHUNK, self.dim], self.variable_dtype),
            parallel_iterations=1,
        )
        return tf.reshape(rows, [-1, self.dim])[: self.num_classes]

    def encode_all(self) -> None:
        """Encodes all classes anew, for every `table` inside of `reused`."""
        if not self.built:
            self.build(None)
        rows = self._encode_table()
        if self._cache.table is None:
            self._cache.table = tf.Variable(rows, trainable=False)
        else:
            self._cache.table.assign(rows)

    @contextlib.contextmanager
    def reused(self, exported: bool = False) -> Iterator[None]:
        """Uses the rows of `encode_all` in every `table` inside.

        Args:
            exported: Whether a SavedModel is made, which holds what is tracked alone.
        """
        if exported:
            self.exported_table = self._cache.table
        before, self._is_reused = self._is_reused, True
        try:
            yield
        finally:
            self._is_reused = before
            if exported:
                del self.exported_table

    def save_own_variables(self, store: Any) -> None:
        """Saves the features."""
        for index, column in enumerate(self.columns):
            values = column.numpy()
            if column.dtype == tf.string:  # as bytes: the file takes numbers
                values = np.stack([values.astype("S")], axis=-1).view(np.uint8)
            store[str(index)] = values

    def load_own_variables(self, store: Any) -> None:
        """Loads the features, unless they were given."""
        if self._is_given:
            return
        for index, column in enumerate(self.columns):
            values = np.ascontiguousarray(store[str(index)])
            if column.dtype == tf.string:
                text = values.view(f"S{values.shape[-1]}")
                values = text[..., 0].astype(object)
            column.assign(values)
        self._is_loaded = True

    def arguments(self) -> dict[str, Any]:
        """Returns the head's arguments for its config: of features the shapes alone."""
        return {
            "class_encoder": keras.saving.serialize_keras_object(self.encoder),
            "class_features": {
                "names": self._names,
                "is_array": self._is_array,
                "shapes": [column.shape.as_list() for column in self.columns],
                "dtypes": [column.dtype.name for column in self.columns],
            },
        }

    def _structure(self, columns: list[Any]) -> Any:
        if self._names is not None:
            named = dict(zip(self._names, columns, strict=True))
            return match_inputs(self.encoder, named)
        return columns[0] if self._is_array else tuple(columns)


class TowerTable(NamedTuple):
    """Rows that a `ClassTower` makes for a sampled loss, looked up as in `Table`."""

    tower: ClassTower
    normalize: bool

    def rows(self, ids: tf.Tensor) -> tf.Tensor:
        """Looks up rows: `[n, dim]` for int64 ids `[n]`."""
        rows = self.tower.sampled_rows(ids)
        return unit_rows(rows) if self.normalize else rows


def _empty_arrays(config: dict[str, Any]) -> list[np.ndarray]:
    """Returns features of the shapes and dtypes of a config."""
    return [
        np.full(shape, b"", object) if dtype == "string" else np.zeros(shape, dtype)
        for shape, dtype in zip(config["shapes"], config["dtypes"], strict=True)
    ]


def _as_array(feature: Any) -> np.ndarray:
    array = np.asarray(feature)
    if array.dtype.kind in "US":
        return array.astype(object)
    if array.dtype == np.float64:
        return array.astype(keras.config.floatx())
    return array

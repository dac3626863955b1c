"""The table of classes of a head: one variable, shards, or an embedding's table."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.embedding.table import Table
from tfsampled.layers import _shards as shards
from tfsampled.samplers import _loading as loading


class ClassTable(keras.layers.Layer):
    """A row, and perhaps a bias, for each class.

    Args:
        num_classes: How many rows.
        **kwargs: Those of `SampledSoftmax` that are about its weights, and those of
            `keras.layers.Layer`.

    Raises:
        ValueError: An argument has a value that it cannot have.
    """

    def __init__(
        self,
        num_classes: int,
        use_bias: bool,
        tied_to: keras.layers.Embedding | None,
        num_shards: int,
        partition_strategy: str,
        kernel_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        bias_regularizer: Any,
        kernel_constraint: Any,
        bias_constraint: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = validation.positive_int(num_classes, "num_classes")
        self.use_bias = use_bias
        self.num_shards = validation.positive_int(num_shards, "num_shards")
        shards.check(self.num_shards, self.num_classes, partition_strategy)
        self.partition_strategy = partition_strategy
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.tied_to: Any = tied_to
        if tied_to is not None:
            self._check_tied(tied_to)
        self._kernel: Any = None
        self.bias: Any = None
        self._misfit = loading.Misfit()

    def build(self, input_shape: Any) -> None:
        """Creates the table and the bias for inputs of `input_shape`."""
        dim = input_shape[-1]
        if dim is None:
            raise ValueError(
                f"inputs have the shape {tuple(input_shape)}; the size of their last "
                "axis must be known to create the table."
            )
        if self.tied_to is not None:
            self._build_tied(dim)
        elif self.num_shards == 1:
            self._kernel = self._add_kernel(
                "kernel", (self.num_classes, dim), self.kernel_initializer
            )
        else:
            self._kernel = self._add_shards(dim)
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
        """The variable `[num_classes, dim]`, or the list of its shards."""
        return self._kernel if self.tied_to is None else self.tied_to.embeddings

    @property
    def kernels(self) -> list[Any]:
        """The variables of the table, one for each shard."""
        if not self.built:
            raise ValueError(
                f"the layer {self.name!r} has no table yet: call it once, or "
                "build((None, dim)), first."
            )
        kernel = self.kernel
        return kernel if isinstance(kernel, list) else [kernel]

    def table(self) -> tf.Tensor:
        """The kernel `[num_classes, dim]` in the order of the classes."""
        return shards.join([k.value for k in self.kernels], self.partition_strategy)

    def set_table(self, kernel: Any, bias: Any = None) -> None:
        """Assigns the kernel `[num_classes, dim]`, and the bias where there is one."""
        whole = tf.convert_to_tensor(kernel, self.variable_dtype)
        expected = (self.num_classes, self.kernels[0].shape[-1])
        bias_fits = bias is not None and np.shape(bias) == (self.num_classes,)
        if whole.shape != expected or bias_fits != self.use_bias:
            raise ValueError(
                f"the kernel has the shape {whole.shape} and the bias "
                f"{None if bias is None else np.shape(bias)}; this head takes a kernel "
                f"of the shape {expected} and "
                f"{f'a bias ({self.num_classes},)' if self.use_bias else 'no bias'}."
            )
        pieces = shards.cut(whole, self.num_shards, self.partition_strategy)
        for variable, piece in zip(self.kernels, pieces, strict=True):
            variable.assign(piece)
        if self.use_bias:
            self.bias.assign(bias)

    def load_own_variables(self, store: Any) -> None:
        """Takes the table and the bias from what Keras saved.

        Raises:
            ValueError: They are of other shapes, or others.
        """
        try:
            super().load_own_variables(store)
        except ValueError as error:
            saved = loading.shapes(store)
            own = [f"{one.name} {tuple(one.shape)}" for one in self.weights]
            raise self._misfit.error(
                saved,
                f"the file has {list(saved.values())} for the layer {self.name!r}, "
                f"which has {', '.join(own)}: make it with the num_classes, use_bias, "
                "num_shards and tied_to of the layer that was saved.",
            ) from error

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs for an equal table, without its values."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "use_bias": self.use_bias,
            "tied_to": keras.saving.serialize_keras_object(self.tied_to),
            "num_shards": self.num_shards,
            "partition_strategy": self.partition_strategy,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
        }

    def _table(self) -> Table:
        return Table.from_params(
            [k.value for k in self.kernels], self.partition_strategy
        )

    def _add_kernel(self, name: str, shape: Any, initializer: Any) -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            autocast=False,  # a mixed policy would cast every row to read a few
        )

    def _add_shards(self, dim: int) -> list[Any]:
        """The variables of the table, each with its part of one initial value."""
        with tf.init_scope():
            whole = self.kernel_initializer(
                (self.num_classes, dim), dtype=self.variable_dtype
            )
            pieces = shards.cut(whole, self.num_shards, self.partition_strategy)
        return [
            self._add_kernel(
                f"kernel_{index}", piece.shape, lambda shape, dtype, piece=piece: piece
            )
            for index, piece in enumerate(pieces)
        ]

    def _build_tied(self, dim: int) -> None:
        if self.tied_to.output_dim != dim:
            raise ValueError(
                f"inputs have {dim} features, but a row of the Embedding in tied_to "
                f"has {self.tied_to.output_dim}: they must be as many."
            )
        if not self.tied_to.built:
            self.tied_to.build(None)

    def _check_tied(self, embedding: Any) -> None:
        if not isinstance(embedding, keras.layers.Embedding):
            raise ValueError(
                f"tied_to is {embedding!r}; it must be a keras.layers.Embedding."
            )
        if embedding.input_dim != self.num_classes:
            raise ValueError(
                f"tied_to has {embedding.input_dim} rows, but there are "
                f"{self.num_classes} classes: they must be as many."
            )
        if self.num_shards > 1:
            raise ValueError(
                f"num_shards is {self.num_shards}, but the table of tied_to is one "
                "variable: leave num_shards at 1."
            )
        if self.kernel_regularizer or self.kernel_constraint:
            raise ValueError(
                "with tied_to, the table is the embedding's: give kernel_regularizer "
                "and kernel_constraint to the Embedding."
            )

"""What every sampler is: a protocol, a position in a random stream, saved state."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.candidate_sampling.samplers import Candidates
from tfsampled.samplers import _loading as loading

_NO_GLOBAL_SEED = 87654321  # TensorFlow's own, where only an operation has a seed


class Sampler(keras.layers.Layer):
    """What a head asks for classes to compare its labels with.

    A subclass implements `draw`, and `supports` and `update` where it has something to
    say to the labels. Variables that it makes in `build` and returns from `state` are
    saved in `.keras` and weights files and in checkpoints. They are no weights of the
    head: `get_weights` and `count_params` leave them out.

    Args:
        seed: Makes the draws repeatable: the first calls draw what TensorFlow's
            samplers draw with this operation seed and no global one. None starts at a
            random place of the stream, which `keras.utils.set_random_seed` fixes.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    unsupported_label_message = "labels contain a class that the sampler never draws."

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self._start = random.getrandbits(31) if seed is None else 0
        self._seeds = (_NO_GLOBAL_SEED, seed or 0)
        self.position: Any = None
        self._misfit = loading.Misfit()

    def validate(self, num_classes: int, num_sampled: int) -> None:
        """Refuses what cannot be drawn, before anything is.

        Raises:
            ValueError: More classes are asked for than can be drawn.
        """
        if num_sampled > num_classes:
            raise ValueError(
                f"num_sampled is {num_sampled}, but there are {num_classes} classes to "
                "draw from without replacement: draw fewer."
            )

    def build(self, num_classes: int) -> None:
        """Makes the variables; a head calls this when it is built."""
        del num_classes
        if self.position is None:
            self.position = variable(self._start, "position")
        self.built = True

    def sample(
        self,
        labels: Any,
        num_classes: int,
        num_sampled: int,
        label_mask: tf.Tensor | None = None,
    ) -> Candidates:
        """Validates the labels and draws the classes of one step.

        Args:
            labels: Integers `[batch, num_true]`, ids in `[0, num_classes)`.
            num_classes: How many classes there are.
            num_sampled: How many different ones to draw.
            label_mask: bool, of the labels' shape: False marks padding, which may be
                any class and from which a sampler learns nothing. None: no padding.

        Returns:
            A tuple `(ids, true_expected_count, sampled_expected_count)`: int64
            `[num_sampled]`, float32 `[batch, num_true]`, float32 `[num_sampled]`.

        Raises:
            tf.errors.InvalidArgumentError: If a label is out of range or one that the
                sampler never draws. Nothing has changed then. XLA drops the check;
                the expected count of a label out of range is NaN there.
        """
        labels = tf.cast(tf.convert_to_tensor(labels), tf.int64)
        if not self.built:
            self.build(num_classes)
        valid = validation.assert_ids_in_range(labels, num_classes, "labels")
        with tf.control_dependencies([*valid, *self.assertions(labels, label_mask)]):
            labels = tf.identity(labels)
        return self._sample(labels, num_classes, num_sampled, label_mask)

    def _sample(
        self,
        labels: tf.Tensor,
        num_classes: int,
        num_sampled: int,
        label_mask: tf.Tensor | None = None,
    ) -> Candidates:
        """As `sample`, for int64 labels that the caller has validated."""
        candidates = self.draw(labels, num_classes, num_sampled)
        self.update(labels, label_mask)
        return candidates

    def draw(self, labels: tf.Tensor, num_classes: int, num_sampled: int) -> Candidates:
        """Draws for int64 labels that are valid; a subclass implements this."""
        raise NotImplementedError

    def supports(self, labels: tf.Tensor) -> tf.Tensor | None:
        """Returns where labels can be drawn, in their shape; None for everywhere."""
        del labels
        return None

    def assertions(
        self, labels: tf.Tensor, label_mask: tf.Tensor | None
    ) -> list[tf.Tensor | tf.Operation]:
        """Returns ops that fail unless every label can be drawn; XLA drops them."""
        supported = self.supports(labels)
        if supported is None:
            return []
        if label_mask is not None:
            supported |= ~label_mask
        check = validation.Check(
            tf.reduce_all(supported), self.unsupported_label_message, tuple
        )
        return validation.assert_all([check])

    def update(self, labels: tf.Tensor, label_mask: tf.Tensor | None) -> None:
        """Learns from the labels of a step, after its draw."""
        del labels, label_mask

    def state(self) -> dict[str, tf.Variable]:
        """The variables to save, by name."""
        return {} if self.position is None else {"position": self.position}

    def save_own_variables(self, store: Any) -> None:
        """Puts the state into what Keras saves."""
        for name, variable in self.state().items():
            store[name] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Takes the state from what Keras saved.

        Raises:
            ValueError: It is that of another kind of sampler, or of other classes.
        """
        state = self.state()
        saved, own = loading.shapes(store), loading.shapes(state)
        if saved != own:
            raise self._misfit.error(
                saved,
                f"the file has the state {saved} for the sampler {self.name!r}, but "
                f"this {type(self).__name__} has {own}: make the sampler and the "
                "classes that were saved, or load with skip_mismatch=True, which "
                "leaves the sampler as it is.",
            )
        for name, variable in state.items():
            variable.assign(store[name])

    def get_build_config(self) -> None:
        """Nothing: the head prepares its sampler."""
        return None

    def _draw_by(
        self,
        distribution: Callable[..., Candidates],
        labels: tf.Tensor,
        num_classes: int,
        num_sampled: int,
        **options: Any,
    ) -> Candidates:
        """Draws without replacement from one of `_core.candidates`, and moves on."""
        return distribution(
            labels,
            labels.shape[-1],
            num_sampled,
            True,
            num_classes,
            self._seeds,
            position=self.position,
            **options,
        )

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make an equal sampler, without its state."""
        return {"name": self.name, "seed": self.seed}


def variable(value: Any, name: str) -> tf.Variable:
    """A variable that belongs to no gradient and no graph, made even while tracing."""
    with tf.init_scope():
        value = np.asarray(value)
        dtype = tf.float32 if value.dtype == np.float32 else tf.int64
        return tf.Variable(value, dtype=dtype, trainable=False, name=name)

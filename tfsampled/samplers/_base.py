"""The protocol of samplers: a position in a random stream, and state to save."""

from __future__ import annotations

import inspect
import random
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.candidate_sampling import philox, samplers
from tfsampled._core.candidate_sampling.distributions import Distribution
from tfsampled._core.candidate_sampling.samplers import Candidates, Draw
from tfsampled._core.xla import on_host

_NO_GLOBAL_SEED = 87654321  # TensorFlow's own, where only an operation has a seed


class Sampler(keras.layers.Layer):
    """Draws the classes that a head compares its labels with.

    A subclass implements `draw` and, if it does not draw every class, `supports`.
    Variables that it creates in `build` and returns from `state` are saved in `.keras`
    and weights files and in checkpoints. They are not weights of the head:
    `get_weights` and `count_params` leave them out.

    Except under XLA, `draw` and `supports` run on the host, where labels come from.
    Under a distribution strategy, `draw` gets the labels of its own replica. The
    samplers of this package that take or count labels gather those of all replicas.

    Args:
        seed: An int or a `keras.random.SeedGenerator`, of which one seed is taken;
            makes the draws repeatable. With an int in `[0, 2**31 - 1)`, the first calls
            draw what TensorFlow's samplers draw with this operation seed and no global
            one (with `num_sampled` below `2**20`, where TensorFlow's position
            overflows). None starts at a random position; to fix it, call
            `keras.utils.set_random_seed` before.
        per_replica: Whether each replica of a distribution strategy draws classes of
            its own, from another part of the stream. By default all draw the same ones,
            as one device would for all their examples.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: If `seed` is something else.
    """

    unsupported_label_message = "`labels` must be classes that the sampler draws."
    takes_num_sampled = True  # False if it brings its own number of classes
    samples_labels = False  # True if an example's own label is among the classes

    def __init__(
        self,
        seed: int | keras.random.SeedGenerator | None = None,
        per_replica: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.per_replica = bool(per_replica)
        self.seed = _as_int(seed)
        self._start = random.getrandbits(31) if seed is None else 0
        self.position: Any = None
        self._num_classes: int | None = None
        self._mismatch = ""
        self._validated: Any = None

    def validate(self, num_classes: int, num_sampled: int | None) -> None:
        """Checks that so many classes can be drawn; a head calls this when it is made.

        Raises:
            ValueError: If they cannot.
        """
        if self.takes_num_sampled and num_sampled is None:
            raise ValueError(
                f"`num_sampled` must be an int with {type(self).__name__}: None is for "
                "samplers that bring their own number, such as InBatch. Received: "
                "num_sampled=None."
            )
        if self.takes_num_sampled:
            validation.positive_int(num_sampled, "num_sampled", num_classes=num_classes)
        elif num_sampled is not None:
            raise ValueError(
                f"`num_sampled` must be None with {type(self).__name__}, which brings "
                f"its own number of classes. Received: num_sampled={num_sampled}."
            )

    def build(self, num_classes: int) -> None:
        """Creates the variables; called once, by the first head or `sample`."""
        del num_classes
        self.position = variable(self._start, "position")
        self.built = True

    def build_once(self, num_classes: int) -> None:
        """Builds the sampler unless it is built.

        Raises:
            ValueError: If it has state of another number of classes.
        """
        built_for = self._num_classes or num_classes  # None if `build` was called alone
        if not self.built:
            self.build(num_classes)
        elif built_for != num_classes and self.state().keys() - {"position"}:
            raise ValueError(
                "A sampler with state must always have the same number of classes. "
                f"Received: num_classes={num_classes}, after num_classes={built_for}."
            )
        self._num_classes = num_classes

    @tf.autograph.experimental.do_not_convert
    def sample(
        self,
        labels: Any,
        num_classes: int,
        num_sampled: int | None,
        label_mask: tf.Tensor | None = None,
    ) -> Candidates:
        """Validates the labels and draws the classes of one step.

        Args:
            labels: Integers `[batch, num_true]`, ids in `[0, num_classes)`.
            num_classes: How many classes there are.
            num_sampled: How many different ones to draw; None for a sampler that brings
                its own number.
            label_mask: bool, of the labels' shape: False marks padding, which may be
                any class and from which a sampler learns nothing. None: no padding.

        Returns:
            A tuple `(ids, true_expected_count, sampled_expected_count)`: int64
            `[num_sampled]`, float32 `[batch, num_true]`, float32 `[num_sampled]`.

        Raises:
            ValueError: If so many classes cannot be drawn, or `labels` has another
                rank.
            tf.errors.InvalidArgumentError: If a label is out of range or one that the
                sampler never draws. Nothing has changed then. XLA drops the check;
                the expected count of a label out of range is NaN there.
        """
        labels = validation.as_class_ids(labels, "labels")
        if labels.shape.rank not in (None, 2):
            raise ValueError(
                "`labels` must have the shape [batch, num_true]. "
                f"Received: labels.shape={labels.shape}."
            )
        num_classes = validation.positive_int(num_classes, "num_classes")
        if num_sampled is not None:
            num_sampled = validation.positive_int(num_sampled, "num_sampled")
        if self._validated != (num_classes, num_sampled):  # costs what the counts cost
            self.validate(num_classes, num_sampled)
            self._validated = (num_classes, num_sampled)
        self.build_once(num_classes)
        with on_host():
            checks = [validation.ids_check(labels, num_classes, "labels")]
            checks += self._support_checks(labels, label_mask)
            with tf.control_dependencies(validation.assert_all(checks)):
                labels = tf.identity(labels)
            drawn = self.draw(labels, label_mask, num_classes, num_sampled)
            return samplers.with_counts(samplers.as_draw(drawn), labels)

    def draw(
        self,
        labels: tf.Tensor,
        label_mask: tf.Tensor | None,
        num_classes: int,
        num_sampled: Any,
    ) -> Draw | tuple:
        """Draws the classes of one step; a subclass implements this.

        Args:
            labels: int64 `[batch, num_true]`, valid.
            label_mask: bool, of the labels' shape, False for padding; or None.
            num_classes: How many classes there are.
            num_sampled: How many different ones to draw, an int; None for a sampler
                that brings its own number.

        Returns:
            The ids `[num_sampled]`, and a function that takes int64 class ids of any
            shape and returns how often each is expected among them, in float32. If not
            all positions have a class, also a bool `[num_sampled]`, False for those.
        """
        del label_mask
        stream = self._next_stream(labels, num_sampled)
        distribution = self._distribution_over(num_classes)
        return samplers.draw(distribution, num_classes, num_sampled, stream)

    def _distribution_over(self, num_classes: int) -> Distribution:
        """Returns what `draw` draws from, unless a subclass implements `draw`."""
        raise NotImplementedError

    def supports(self, labels: tf.Tensor) -> tf.Tensor | None:
        """Returns whether each label can be drawn, in their shape; None if all can."""
        del labels
        return None

    def state(self) -> dict[str, tf.Variable]:
        """Returns the variables to save, by name."""
        return {} if self.position is None else {"position": self.position}

    def save_own_variables(self, store: Any) -> None:
        """Saves the state."""
        for name, variable in self.state().items():
            store[name] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Loads the state.

        Raises:
            ValueError: If it is that of another kind of sampler, or of other classes.
        """
        state = self.state()
        saved, expected = _shapes(store), _shapes(state)
        if saved != expected:
            # Keras loads from every attribute that leads here, and reports the last
            # one; where that has nothing saved, an earlier mismatch is the reason.
            if saved or not self._mismatch:
                self._mismatch = (
                    f"The file must hold the state {expected} of this "
                    f"{type(self).__name__}. Received: the state {saved} for sampler "
                    f"{self.name!r}. Use the sampler and the number of classes that "
                    "were saved, or load with skip_mismatch=True, which leaves the "
                    "sampler as it is."
                )
            raise ValueError(self._mismatch)
        for name, variable in state.items():
            variable.assign(store[name])

    def get_build_config(self) -> None:
        """Returns None: the head builds its sampler."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs to make an equal sampler, without state.

        Raises:
            NotImplementedError: If the constructor has other arguments, for which a
                subclass must extend the config.
        """
        if type(self).get_config is Sampler.get_config:
            parameters = inspect.signature(type(self).__init__).parameters.values()
            variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
            own = {p.name for p in parameters if p.kind not in variadic}
            own -= {"self", "name", "seed", "per_replica"}
            if own:
                raise NotImplementedError(
                    f"{type(self).__name__} must override `get_config`. Received: a "
                    f"constructor with the arguments {sorted(own)}."
                )
        options = {"per_replica": True} if self.per_replica else {}
        return {"name": self.name, "seed": self.seed, **options}

    def _next_stream(self, labels: tf.Tensor, num_sampled: int) -> philox.Stream:
        """Moves the position on, once the labels are validated."""
        with tf.control_dependencies([labels]):
            seeds = _NO_GLOBAL_SEED, self.seed or 0
            step = 512 * num_sampled
            return samplers.next_stream(self.position, seeds, step, self.per_replica)

    def _support_checks(
        self, labels: tf.Tensor, label_mask: tf.Tensor | None
    ) -> list[validation.Check]:
        supported = self.supports(labels)
        if supported is None:
            return []
        if label_mask is not None:
            supported |= ~label_mask
        condition = tf.reduce_all(supported)
        return [validation.Check(condition, self.unsupported_label_message, tuple)]


def reject_seed(sampler: Any, arguments: dict[str, Any]) -> None:
    """Raises `ValueError` for arguments of samplers that draw at random."""
    if given := sorted(arguments.keys() & {"seed", "per_replica"}):
        raise ValueError(
            f"`{given[0]}` must be given to samplers that draw at random. "
            f"Received: an argument of {type(sampler).__name__}."
        )


def _as_int(seed: int | keras.random.SeedGenerator | None) -> int | None:
    if seed is None:
        return None
    if isinstance(seed, keras.random.SeedGenerator):
        low, high = (int(word) for word in seed.next())
        return low + (high << 32)
    return validation.optional_int(seed, "seed")


def _shapes(store: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of saved or unsaved variables, by name."""
    return {name: tuple(store[name].shape) for name in store.keys()}  # noqa: SIM118


def variable(value: Any, name: str, dtype: Any = np.int64) -> tf.Variable:
    """Makes a variable outside of any graph that is being traced.

    It is placed with the head's variables: XLA compiles for one device and reads no
    other.
    """
    with tf.init_scope():
        return tf.Variable(np.asarray(value, dtype), trainable=False, name=name)

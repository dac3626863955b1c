"""Several samplers at once, under one expected count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.candidate_sampling.samplers import Draw, as_draw
from tfsampled._core.candidate_sampling.union import union
from tfsampled.samplers._base import Sampler, reject_seed
from tfsampled.samplers._in_batch import InBatch


@keras.saving.register_keras_serializable(package="tfsampled")
class Mixed(Sampler):
    """Takes the classes of several samplers.

    A class that two of them draw counts once. Its expected count is that of the union,
    `1 - prod_i (1 - expected_count_i)`: corrected by that of one sampler alone, a class
    that two samplers favor would weigh too much.

    Args:
        samplers: The samplers. One that draws at random comes as a pair with its own
            number of classes, `(Uniform(), 512)`, or else draws the head's
            `num_sampled`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: If `samplers` is something else.

    Example:
        >>> from tfsampled.samplers import InBatch, Mixed, Uniform
        >>> sampler = Mixed([InBatch(), (Uniform(seed=1), 4)])
        >>> ids, of_labels, of_ids = sampler.sample([[1], [2]], 10, None)
        >>> {1, 2} <= set(ids.numpy().tolist())
        True
    """

    unsupported_label_message = (
        "`labels` must be classes that one of the samplers of Mixed draws."
    )

    def __init__(
        self, samplers: Sequence[Sampler | tuple[Sampler, int]], **kwargs: Any
    ) -> None:
        reject_seed(self, kwargs)
        super().__init__(seed=0, **kwargs)
        pairs = [x if isinstance(x, (list, tuple)) else (x, None) for x in samplers]
        if not pairs or not all(
            len(pair) == 2 and isinstance(pair[0], Sampler) for pair in pairs
        ):
            raise ValueError(
                "`samplers` must be a list of samplers, or of pairs of a sampler and "
                f"its number of classes. Received: samplers={samplers!r}."
            )
        self.numbers: list[int | None] = []
        for sampler, number in pairs:
            if number is not None:
                number = validation.positive_int(number, "num_sampled")
                if not sampler.takes_num_sampled:
                    raise ValueError(
                        "`samplers` must have a number for samplers that draw at "
                        f"random alone. Received: ({type(sampler).__name__}, {number})."
                    )
            self.numbers.append(number)
        self.samplers = [sampler for sampler, _ in pairs]
        for index, sampler in enumerate(self.samplers):
            # A checkpoint of TensorFlow does not look into a layer's lists.
            setattr(self, f"_sampler_{index}", sampler)
        self.takes_num_sampled = any(
            sampler.takes_num_sampled and number is None for sampler, number in pairs
        )
        self.samples_labels = any(sampler.samples_labels for sampler in self.samplers)

    def validate(self, num_classes: int, num_sampled: int | None) -> None:
        """See `Sampler.validate`."""
        super().validate(num_classes, num_sampled)
        for sampler, number in zip(self.samplers, self.numbers, strict=True):
            sampler.validate(num_classes, self._number(sampler, number, num_sampled))

    def build(self, num_classes: int) -> None:
        """See `Sampler.build`."""
        self.build_once(num_classes)

    def build_once(self, num_classes: int) -> None:
        """See `Sampler.build_once`."""
        for sampler in self.samplers:
            sampler.build_once(num_classes)
        self.built = True

    def draw(
        self,
        labels: tf.Tensor,
        label_mask: tf.Tensor | None,
        num_classes: int,
        num_sampled: int | None,
    ) -> Draw:
        """See `Sampler.draw`."""
        drawn = self._union(labels, label_mask, num_classes, num_sampled)

        def expected_count(classes: tf.Tensor) -> tf.Tensor:
            # 0 for the only label of a batch, if none but InBatch would draw it.
            counts = drawn.expected_count(classes)
            return tf.where(tf.equal(counts, 0), tf.ones_like(counts), counts)

        return drawn._replace(expected_count=expected_count)

    def _union(
        self,
        labels: tf.Tensor,
        label_mask: tf.Tensor | None,
        num_classes: int,
        num_sampled: int | None,
    ) -> Draw:
        draws = []
        for sampler, number in zip(self.samplers, self.numbers, strict=True):
            if isinstance(sampler, InBatch):  # a single example has the others' classes
                draws.append(sampler.take(labels, label_mask, num_classes, alone=0.0))
            else:
                number = self._number(sampler, number, num_sampled)
                draw = sampler._union if isinstance(sampler, Mixed) else sampler.draw
                drawn = draw(labels, label_mask, num_classes, number)
                draws.append(as_draw(drawn))
        return union(draws)

    def supports(self, labels: tf.Tensor) -> tf.Tensor | None:
        """See `Sampler.supports`: a label that one of the samplers supports."""
        supported = [sampler.supports(labels) for sampler in self.samplers]
        if any(one is None for one in supported):
            return None
        return tf.reduce_any(supported, axis=0)

    def get_config(self) -> dict[str, Any]:
        """See `Sampler.get_config`."""
        pairs = zip(self.samplers, self.numbers, strict=True)
        samplers = [one if number is None else [one, number] for one, number in pairs]
        serialized = keras.saving.serialize_keras_object(samplers)
        return {"name": self.name, "samplers": serialized}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Mixed:
        """Makes an equal sampler."""
        samplers = keras.saving.deserialize_keras_object(config["samplers"])
        return cls(**{**config, "samplers": samplers})

    @staticmethod
    def _number(
        sampler: Sampler, number: int | None, num_sampled: int | None
    ) -> int | None:
        return number or (num_sampled if sampler.takes_num_sampled else None)

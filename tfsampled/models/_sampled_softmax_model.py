"""`SampledSoftmaxModel`: how it is made, called, saved and exported."""

from __future__ import annotations

from typing import Any

import keras

from tfsampled._core import validation
from tfsampled.layers import SampledSoftmax
from tfsampled.models import _structure as structure
from tfsampled.models._fitting import Fitting


@keras.saving.register_keras_serializable(package="tfsampled")
class SampledSoftmaxModel(Fitting):
    """A classifier that trains on the sampled loss and is evaluated on the exact one.

    `fit(x, y)` takes ordinary integer labels and minimizes `head.sampled_loss` of the
    encoder's features; `evaluate(x, y)` and `validation_data` report the exact cross
    entropy; `predict(x)` gives the logits of all the classes, or the `top_k` best.
    Neither training nor evaluation makes a tensor of all the logits. The loss is the
    model's own: `compile(optimizer=...)` is called without one. Metrics are those of
    `tfsampled.metrics`, computed in evaluation and validation.

    Which to take: with the layers of a model at hand, pass the ones before the head as
    `encoder`. With an ordinary functional or Sequential model, put a `SampledSoftmax`
    in the place of its last Dense and wrap it: `SampledSoftmaxModel.from_model(model)`
    shares its layers, and the wrapped model goes on giving the logits. A loss object
    alone cannot do it: Keras hands a loss the model's outputs, and outputs that a
    sampled loss can start from are not the logits that `predict` should give.

    A labels' or features' mask (Keras's, from `mask_zero`) and the head's
    `ignore_class` leave padding out of the loss and of every mean.

    Args:
        encoder: A layer or model that makes the features, `[batch, dim]` or
            `[batch, time, dim]`, from `x`.
        head: The `tfsampled.layers.SampledSoftmax` over the classes.
        top_k: None for logits `[..., num_classes]`; a number for a dict of `classes`
            (`[..., top_k]`, `int32`, best first) and `scores` (their logits).
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError: `head` is not a `SampledSoftmax`, or `top_k` is above its classes.

    Example:
        >>> import keras, numpy as np
        >>> from tfsampled.layers import SampledSoftmax
        >>> encoder = keras.Sequential([keras.layers.Dense(16, "relu")])
        >>> head = SampledSoftmax(num_classes=1000, num_sampled=50)
        >>> model = SampledSoftmaxModel(encoder, head, top_k=3)
        >>> model.compile(optimizer="adam")
        >>> x, y = np.ones((32, 8), "float32"), np.arange(32)
        >>> _ = model.fit(x, y, epochs=2, verbose=0)
        >>> model.predict(x, verbose=0)["classes"].shape
        (32, 3)
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        head: SampledSoftmax,
        top_k: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(head, SampledSoftmax):
            raise ValueError(
                f"head is {head!r}; it must be a tfsampled.layers.SampledSoftmax."
            )
        if top_k is not None:
            top_k = validation.positive_int(top_k, "top_k")
            if top_k > head.num_classes:
                raise ValueError(
                    f"top_k is {top_k}, but the head has only {head.num_classes} "
                    "classes: pass at most num_classes."
                )
        self.encoder = encoder
        self.head = head
        self.top_k = top_k
        self.supports_masking = True
        if (inputs := structure.declared(encoder)) is not None:  # shapes are known
            self(structure.symbols(inputs))

    @classmethod
    def from_model(
        cls, model: keras.Model, top_k: int | None = None, **kwargs: Any
    ) -> SampledSoftmaxModel:
        """Wraps a functional or Sequential model that ends in a `SampledSoftmax`.

        Layers and weights are shared: what this model learns, `model` has learnt.

        Args:
            model: A built model whose only output is a `SampledSoftmax`'s.
            top_k: As in the constructor.
            **kwargs: Arguments of `keras.Model`.

        Raises:
            ValueError: The model does not end in a `SampledSoftmax`.

        Example:
            >>> import keras
            >>> inputs = keras.Input((8,))
            >>> features = keras.layers.Dense(16, "relu")(inputs)
            >>> logits = SampledSoftmax(num_classes=1000, num_sampled=50)(features)
            >>> plain = keras.Model(inputs, logits)  # was: Dense(1000)
            >>> model = SampledSoftmaxModel.from_model(plain)
            >>> model.compile(optimizer="adam")
        """
        layers = getattr(model, "layers", [])
        head = layers[-1] if layers else None
        outputs = getattr(model, "outputs", None)
        if (
            not isinstance(head, SampledSoftmax)
            or not outputs
            or len(outputs) != 1
            or head.output is not outputs[0]
        ):
            raise ValueError(
                f"the last layer of {getattr(model, 'name', model)!r} is {head!r}; "
                "from_model wraps a functional or Sequential model (with its Input) "
                "whose only output is that of a tfsampled.layers.SampledSoftmax."
            )
        inputs, name = structure.declared(model), f"{model.name}_encoder"
        encoder = keras.Model(inputs, head.input, name=name)
        return cls(encoder, head, top_k=top_k, **kwargs)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.__call__`; the first call builds for inputs like these."""
        if not self.built and structure.are_tensors(inputs):
            # `build` is told shapes alone, and an encoder may need the dtypes.
            self._build_parts(structure.symbols(inputs))
        return super().__call__(inputs, *args, **kwargs)

    def build(self, input_shape: Any) -> None:
        """Builds the encoder for floats of `input_shape`, then the head."""
        self._build_parts(structure.floats(input_shape))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """The logits of all the classes, or a dict of the `top_k` best."""
        features = self._features(inputs, training)
        if self.top_k is None:
            return self.head(features)
        scores, classes = self.head.top_k(features, self.top_k)
        return {"classes": classes, "scores": scores}

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.export`: serves what `predict` gives.

        Where the encoder is a functional or Sequential model, what is served takes its
        inputs as it does, in a dict or list where they are several, with their dtypes.
        For other encoders Keras takes every input for floats: pass `input_signature`.
        """
        inputs = structure.declared(self.encoder)
        if "input_signature" not in kwargs and inputs is not None:
            kwargs["input_signature"] = structure.signature(inputs)
        return super().export(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The encoder and the head, serialized, and `top_k`."""
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "head": keras.saving.serialize_keras_object(self.head),
            "top_k": self.top_k,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SampledSoftmaxModel:
        """A model of equal parts, without their weights."""
        encoder = keras.saving.deserialize_keras_object(config["encoder"])
        head = config["head"]
        tied = head["config"].get("tied_to")
        if tied is not None:  # one embedding again, not two of the same name
            for layer in structure.embeddings(encoder):
                if layer.name == tied["config"]["name"]:
                    head = {**head, "config": {**head["config"], "tied_to": layer}}
        head = keras.saving.deserialize_keras_object(head)
        return cls(**{**config, "encoder": encoder, "head": head})

    def _build_parts(self, inputs: Any) -> None:
        if self.encoder.built and self.head.built:
            return
        # A subclassed encoder says what it makes only when it is called.
        features = self.encoder(structure.as_declared(self.encoder, inputs))
        if not self.head.built:
            self.head.build(features.shape)

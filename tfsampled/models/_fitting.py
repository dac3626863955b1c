"""Around the steps: `compile`, `fit`, `evaluate` and what they report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfsampled.metrics import ExactMetric
from tfsampled.models._class_weight import ClassWeight, sample_weight_of
from tfsampled.models._evaluation import Evaluation, set_monitor_modes
from tfsampled.models._labels import Watching
from tfsampled.models._steps import SampledSteps
from tfsampled.optimizers import LossScaleOptimizer
from tfsampled.samplers import LogUniform


class Fitting(SampledSteps):
    """A model without a loss of the user's, evaluated by exact metrics."""

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: None = None,
        loss_weights: None = None,
        metrics: list[ExactMetric] | None = None,
        weighted_metrics: list[ExactMetric] | None = None,
        **kwargs: Any,
    ) -> None:
        """Sets the optimizer, and what else `keras.Model.compile` sets, but no loss.

        Args:
            optimizer: Any Keras optimizer, or its name.
            loss: Must be None: the head has the loss.
            loss_weights: Must be None.
            metrics: Metrics of `tfsampled.metrics`, for evaluation and validation.
            weighted_metrics: The same, but they heed sample and class weights.
            **kwargs: Other arguments of `keras.Model.compile`, such as `jit_compile`.

        Raises:
            ValueError: A loss was given, or a metric that wants all the logits.
        """
        for name, value in {"loss": loss, "loss_weights": loss_weights}.items():
            if value is not None:
                raise ValueError(
                    f"compile got {name}={value!r}; a SampledSoftmaxModel trains on "
                    "the head's sampled loss and evaluates its exact loss, and takes "
                    f"no other: leave {name} out."
                )
        self._evaluation = Evaluation(metrics, weighted_metrics)
        policy = kwargs.get("auto_scale_loss", True) and self.dtype_policy.name
        if policy == "mixed_float16":
            optimizer = keras.optimizers.get(optimizer)
            if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                # Keras's would fill whole tables.
                optimizer = LossScaleOptimizer(optimizer)
        super().compile(optimizer=optimizer, **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        """What `compile_from_config` needs, the metrics among it."""
        config = super().get_compile_config()
        return {**config, **self._evaluation.get_config()} if config else config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as the saved one was compiled."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The loss, then the metrics; training updates the loss alone."""
        return list(self._named_metrics().values())

    @property
    def metrics_names(self) -> list[str]:
        """The names under which `evaluate` reports `metrics`, in the same order."""
        return list(self._named_metrics())

    def get_metrics_result(self) -> dict[str, Any]:
        """The value of each metric so far."""
        named = self._named_metrics()
        return {name: metric.result() for name, metric in named.items()}

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As `keras.Model.fit`, of labels that are class ids.

        Labels that do not suit a `LogUniform` are warned of. `class_weight` weighs each
        label: each time step by itself, and several labels of an example by the mean of
        their weights.

        Raises:
            tf.errors.InvalidArgumentError: A label is no class, or one that the sampler
                never draws. The batch with it changes nothing. Under `jit_compile` this
                is known, and raised, some steps later, at the end of the epoch at the
                latest.
        """
        set_monitor_modes(callbacks, self._named_metrics())
        questions = []
        if isinstance(self.head.sampler, LogUniform):
            questions.append(self.head.sampler.warn_if_unordered)
        if self.jit_compile:
            questions.append(self._check.raise_noted)
        if questions:
            watching = Watching(*questions)
            if isinstance(callbacks, keras.callbacks.CallbackList):
                callbacks.append(watching)
            else:
                callbacks = [*tf.nest.flatten(callbacks or []), watching]
        if class_weight is not None:
            self._weigh_classes(ClassWeight(class_weight, self.head))
        try:
            with self._forgetting_refusals():
                return super().fit(
                    x,
                    y,
                    batch_size,
                    epochs,
                    verbose,
                    callbacks,
                    validation_split,
                    validation_data,
                    shuffle,
                    None,
                    *args,
                    **kwargs,
                )
        finally:
            if class_weight is not None:
                self._weigh_classes(None)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """As `keras.Model.train_on_batch`; errors and `class_weight` as in `fit`."""
        if class_weight is not None:
            weights = ClassWeight(class_weight, self.head)
            sample_weight = sample_weight_of(weights, y, sample_weight)
        with self._forgetting_refusals():
            logs = super().train_on_batch(
                x, y, sample_weight=sample_weight, return_dict=return_dict
            )
        self._raise_noted()
        return logs

    def evaluate(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`, on the exact loss; errors as in `fit`."""
        with self._forgetting_refusals():
            logs = super().evaluate(*args, return_dict=True, **kwargs)
        self._raise_noted()
        logs = keras.tree.map_structure(_number, logs)
        return logs if return_dict else _listed(logs)

    def test_on_batch(
        self, *args: Any, return_dict: bool = False, **kwargs: Any
    ) -> Any:
        """As `keras.Model.test_on_batch`, on the exact loss; errors as in `fit`."""
        with self._forgetting_refusals():
            logs = super().test_on_batch(*args, return_dict=True, **kwargs)
        self._raise_noted()
        return logs if return_dict else _listed(logs)

    def _named_metrics(self) -> dict[str, keras.metrics.Metric]:
        others = {one.name: one for one in super().metrics if one.name != "loss"}
        return {"loss": self._loss_mean, **others, **self._evaluation.named}

    def _weigh_classes(self, class_weight: ClassWeight | None) -> None:
        self._class_weight = class_weight
        self.train_function = None  # the one that is traced has other weights

    @contextlib.contextmanager
    def _forgetting_refusals(self) -> Iterator[None]:
        """Has the steps traced anew after an error: tracing had seen what was refused.

        Otherwise the next labels, of a shape that is right, would be traced as of any.
        """
        try:
            yield
        except ValueError:
            self.train_function = self.test_function = None
            raise

    def _raise_noted(self) -> None:
        if self.jit_compile:
            self._check.raise_noted()


def _listed(logs: dict[str, Any]) -> Any:
    """The values alone, as Keras returns them."""
    values = list(logs.values())
    return values[0] if len(values) == 1 else values


def _number(value: Any) -> Any:
    """A float, also from a Keras that leaves the results of metrics as tensors."""
    return value.numpy().tolist() if tf.is_tensor(value) else value

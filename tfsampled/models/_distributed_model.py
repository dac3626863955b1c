"""A `keras.Model` that `fit` trains under tf.distribute, and that subclasses extend.

Three names are private. If Keras renames them, `tests/models/test_keras.py` fails.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class DistributedModel(keras.Model):
    """A model that is built from the share of the first batch that one replica has.

    Keras takes the mean of all shares, which fails if they differ in size, and with
    several workers.

    As in functional models, layers and metrics may be added once it is built.
    """

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Refuses several steps per execution with several replicas."""
        steps = kwargs.get("steps_per_execution", 1)
        num_replicas = self.distribute_strategy.num_replicas_in_sync
        if steps > 1 and num_replicas > 1:
            # TensorFlow cannot run Keras's loop over the batches of several iterators.
            raise ValueError(
                "`steps_per_execution` must be 1 with several replicas. Received: "
                f"steps_per_execution={steps}, {num_replicas} replicas."
            )
        super().compile(*args, **kwargs)

    def _refuse_compiled_replicas(self) -> None:
        """Raises if XLA compiles the step of several replicas."""
        num_replicas = self.distribute_strategy.num_replicas_in_sync
        if num_replicas > 1:
            raise ValueError(
                "`jit_compile` must be False with several replicas: a compiled step "
                f"cannot refuse labels there. Received: {num_replicas} replicas."
            )

    def _lock_state(self) -> None:
        """Does not lock the attributes when the model is built."""

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> None:
        strategy = self.distribute_strategy
        if iterator is not None and strategy.num_replicas_in_sync > 1:
            for *_, batches in iterator:
                data_batch = tf.nest.map_structure(
                    lambda share: strategy.experimental_local_results(share)[0],
                    next(batches),
                )
                break
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def _get_metrics_result_or_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Reads metrics from their variables, which hold the sums of all replicas.

        Keras takes the mean of the replicas' results if the logs lack some metric.
        """
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return super()._get_metrics_result_or_logs(logs)
        results = self.get_metrics_result()
        return {name: results.get(name, value) for name, value in logs.items()}


def logs_of_step(logs: dict[str, Any]) -> dict[str, Any]:
    """Returns a step's logs as Keras reduces them: of several workers over axis 0."""
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return logs
    if strategy.num_replicas_in_sync == len(strategy.extended.worker_devices):
        return logs
    return tf.nest.map_structure(lambda value: tf.expand_dims(value, 0), logs)

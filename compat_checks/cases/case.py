"""A case: the options of one call. Nothing is computed here."""

from __future__ import annotations

import dataclasses

EAGER, FUNCTION, STATIC, GRAPH = "eager", "function", "function_static", "graph"
JIT = "jit"  # jit_compile=True; TensorFlow's side runs without it
TENSORFLOW_MODES = (EAGER, FUNCTION, STATIC, GRAPH)
MODES = (*TENSORFLOW_MODES, JIT)


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of one public function, or several calls in a row.

    Attributes:
        name: Unique; "family/options".
        kind: "loss", "sampler", or "signature" (which needs `path` only).
        path: The function under test, as an attribute path: "compat.v1.nn.nce_loss".
        mode: One of MODES.
        rows: Rows of the table.
        num_classes: The argument; None for `rows`.
        dim: Columns of the table.
        num_true: The argument.
        num_sampled: The argument.
        batch_sizes: One batch size for each call.
        static_batch: Whether the graph knows the batch size; it always does in the
            modes "eager" and "function_static".
        label_rows: Rows of `labels`, if not the batch size.
        labels: "any", "same" (all rows alike), "repeated" (one class num_true times) or
            "sampled" (sampled classes only).
        label_dtype: Dtype of `labels`.
        numpy_labels: Whether `labels` are passed as a NumPy array.
        remove_hits: The argument `remove_accidental_hits`; None to leave it out.
        partition_strategy: The argument; None to leave it out.
        weight_shards: How many shards `weights` has. 0 passes one tensor, 1 a list of
            one tensor.
        bias_shards: The same for `biases`.
        table_type: "tensor", "variable", "keras", "sharded" or "partitioned".
        sampler: What draws `sampled_values`: the name of a TensorFlow sampler, "numpy",
            or None to leave the argument out.
        unique: Whether that sampler draws without replacement.
        true_count_shape: Shape of the expected counts of the labels: "sampler" (as
            drawn), "scalar", "row" (`[1, n]`), "column" (`[batch, 1]`) or "full".
        sampled_count_shape: The same for the expected counts of the candidates.
        count_scale: Factor of all expected counts.
        seed: The argument.
        global_seed: What `tf.random.set_seed` gets.
        dtype: Dtype of `inputs`.
        table_dtype: Dtype of the tables, if another.
        earlier_calls: How many losses each call computes before this one.
        logit_scale: Size of the logits.
        name_scope: The argument `name`.
        second_order: Whether second derivatives are compared as well.
        expect: "equal" to TensorFlow, "extension" (TensorFlow refuses it) or "error".
        invalid_input: For "error": a key of `invalid_inputs.INVALID_INPUTS`.
        raises: For "error": names of the exception classes that are right.
    """

    name: str
    kind: str = "loss"
    path: str = "nn.sampled_softmax_loss"
    mode: str = EAGER
    rows: int = 23
    num_classes: int | None = None
    dim: int = 4
    num_true: int = 1
    num_sampled: int = 7
    batch_sizes: tuple[int, ...] = (6,)
    static_batch: bool = False
    label_rows: int | None = None
    labels: str = "any"
    label_dtype: str = "int64"
    numpy_labels: bool = False
    remove_hits: bool | None = None
    partition_strategy: str | None = None
    weight_shards: int = 0
    bias_shards: int = 0
    table_type: str = "tensor"
    sampler: str | None = None
    unique: bool = True
    true_count_shape: str = "sampler"
    sampled_count_shape: str = "sampler"
    count_scale: float = 1.0
    seed: int | None = None
    global_seed: int | None = 17
    dtype: str = "float32"
    table_dtype: str | None = None
    earlier_calls: int = 0
    logit_scale: float = 1.0
    name_scope: str | None = None
    second_order: bool = False
    expect: str = "equal"
    invalid_input: str | None = None
    raises: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        return self.name.split("/", 1)[0]

    @property
    def is_nce(self) -> bool:
        return self.path.endswith("nce_loss")

    @property
    def is_v1(self) -> bool:
        return "v1" in self.path

    @property
    def reference_mode(self) -> str:
        """The mode TensorFlow runs in: its losses and samplers fail under XLA."""
        return FUNCTION if self.mode == JIT else self.mode

    @property
    def effective_num_classes(self) -> int:
        return self.rows if self.num_classes is None else self.num_classes

    @property
    def effective_remove_hits(self) -> bool:
        return (not self.is_nce) if self.remove_hits is None else self.remove_hits

    @property
    def effective_partition_strategy(self) -> str:
        if self.table_type == "sharded" and self.mode == EAGER:
            return "div"  # TensorFlow looks rows up in a ShardedVariable itself
        return (self.partition_strategy or "mod") if self.is_v1 else "div"

    def replace(self, **changes: object) -> Case:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

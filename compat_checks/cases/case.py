"""What one case is: a row of options, nothing computed."""

from __future__ import annotations

import dataclasses

EAGER, FUNCTION, STATIC, GRAPH = "eager", "function", "function_static", "graph"
JIT = "jit"  # jit_compile=True, which TensorFlow's side runs without
MODES = (EAGER, FUNCTION, STATIC, GRAPH)
ALL_MODES = (*MODES, JIT)


@dataclasses.dataclass(frozen=True)
class Case:
    """One call (or several, one after the other) of one public function.

    Attributes:
      name: unique, begins with "family/".
      kind: "loss", "draw" (a sampler alone), or "signature" (only `path` counts).
      path: the function under test below the root, "compat.v1.nn.nce_loss".
      mode: one of ALL_MODES; the batch size is unknown to "function", "graph", "jit".
      rows, num_classes: rows of the table; classes named in the call (None: rows).
      dim, num_true, num_sampled: as in the call.
      batches: the batch size of each call; as many calls as entries.
      label_batch: rows of labels where they differ from the rows of inputs.
      labels: "any", "same" (all rows alike), "repeated" (one class num_true times)
        or "sampled" (only classes that were drawn).
      label_dtype: a dtype name; label_numpy hands over the NumPy array itself.
      remove_hits, partition: handed on unless None.
      weight_shards, bias_shards: tables are cut into that many parts; 0 is one
        tensor, 1 a list of one.
      holder: "tensor", "variable", "keras", "sharded", "partitioned".
      sampler: None (the function's own), a sampler's name, or "given".
      unique: whether that sampler draws without replacement.
      true_count, sampled_count: shape of the counts: "drawn", "scalar", "row"
        ([1, n]), "column" ([batch, 1]) or "full".
      count_scale: multiplies both counts.
      seed, global_seed: op seed and global seed.
      dtype, weight_dtype: of inputs; of the tables where it differs.
      before: losses computed, and thrown away, in the same call before this one.
      scale: size of the logits. scope: the `name` argument.
      second: also compare second derivatives.
      expect: "equal" to TensorFlow, "beyond" it (the truth alone decides) or "error".
      spoil: for errors, which argument is made wrong; raises: our exception classes.
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
    batches: tuple[int, ...] = (6,)
    label_batch: int | None = None
    labels: str = "any"
    label_dtype: str = "int64"
    label_numpy: bool = False
    remove_hits: bool | None = None
    partition: str | None = None
    weight_shards: int = 0
    bias_shards: int = 0
    holder: str = "tensor"
    sampler: str | None = None
    unique: bool = True
    true_count: str = "drawn"
    sampled_count: str = "drawn"
    count_scale: float = 1.0
    seed: int | None = None
    global_seed: int | None = 17
    before: int = 0
    dtype: str = "float32"
    weight_dtype: str | None = None
    scale: float = 1.0
    scope: str | None = None
    second: bool = False
    expect: str = "equal"
    spoil: str | None = None
    raises: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        return self.name.split("/", 1)[0]

    @property
    def reference_mode(self) -> str:
        """The mode that TensorFlow can run: it has no losses or samplers under XLA."""
        return FUNCTION if self.mode == JIT else self.mode

    @property
    def nce(self) -> bool:
        return self.path.endswith("nce_loss")

    @property
    def v1(self) -> bool:
        return "v1" in self.path

    @property
    def classes(self) -> int:
        return self.rows if self.num_classes is None else self.num_classes

    @property
    def hits_removed(self) -> bool:
        return (not self.nce) if self.remove_hits is None else self.remove_hits

    @property
    def strategy(self) -> str:
        if self.holder == "sharded" and self.mode == EAGER:
            return "div"  # there TensorFlow reads a ShardedVariable by its own layout
        return (self.partition or "mod") if self.v1 else "div"

    def replace(self, **changes: object) -> Case:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

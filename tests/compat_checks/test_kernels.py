"""What a GPU would run of a function: the analysis, and of this package's functions."""

import collections

import pytest
import tensorflow as tf

from compat_checks.__main__ import main
from compat_checks.kernels import placement, steps
from compat_checks.kernels.placement import GPU_STAND_IN, find_placement

HAS_CUDA = placement.has_gpu_kernels()  # TensorFlow was built with it


@pytest.fixture
def registry(monkeypatch):
    """Kernels as of a small TensorFlow: every operation has one, but for `Min`."""

    def registered(operation):
        host = {
            "Fill": {"dims"},
            "Reshape": {"shape"},
            "Shape": {"output"},
            "Size": {"output"},
        }
        if operation == "Min":
            return []
        return [placement._Kernel({}, frozenset(host.get(operation, ())))]

    monkeypatch.setattr(placement, "_registered", registered)


def place(function, *signature, host_arguments=()):
    with tf.device(GPU_STAND_IN):
        concrete = tf.function(function, autograph=False).get_concrete_function(
            *signature
        )
    return find_placement(concrete, host_arguments)


IDS = tf.TensorSpec([None], tf.int64, "ids")


@pytest.mark.usefixtures("registry")
def test_an_operation_without_a_kernel_reads_and_is_copied():
    found = place(lambda ids: tf.reduce_min(ids * 2) + 1, IDS)
    assert found.without_kernel == {"Min int64 int32": 1}
    assert found.reads == {"Mul -> Min": 1}
    assert found.copies == {"Min -> AddV2": 1}


@pytest.mark.usefixtures("registry")
def test_what_is_placed_on_the_host_needs_no_kernel():
    def function(ids):
        with tf.device("CPU:0"):
            least = tf.reduce_min(ids)
        return ids + least

    found = place(function, IDS, host_arguments=["ids"])
    assert (found.without_kernel, found.reads) == ({}, {})
    assert found.copies == {"Min -> AddV2": 1}
    assert place(function, IDS).reads == {"argument -> Min": 1}


@pytest.mark.usefixtures("registry")
def test_branches_loops_and_calls_are_followed():
    def function(x):
        x = tf.cond(x[0] > 0, lambda: x + 1, lambda: tf.reshape(x, tf.cast(x, "int32")))
        return tf.while_loop(lambda x: x[0] < 9, lambda x: [x * 2], [x])[0]

    found = place(function, tf.TensorSpec([1]))
    assert found.reads == {
        "Greater -> StatelessIf": 1,
        "Cast -> Reshape": 1,
        "Less -> StatelessWhile": 1,
    }


@pytest.mark.usefixtures("registry")
def test_a_value_that_moves_in_a_loop_is_read_in_each_iteration():
    def function(x):
        def body(dims, x):
            dims = tf.ensure_shape(dims + tf.cast(x[:1], tf.int64), [1])
            return dims, tf.fill(dims, 1.0)

        shapes = tf.TensorShape([1]), tf.TensorShape([None])
        dims = tf.constant([2], tf.int64)  # later ones are computed on the GPU
        return tf.while_loop(lambda *_: True, body, (dims, x), shapes)

    found = place(function, tf.TensorSpec([None]))
    assert found.reads == {"EnsureShape -> Fill": 1}


@pytest.mark.usefixtures("registry")
def test_a_size_that_depends_on_data_is_read():
    found = place(lambda ids: tf.unique(ids)[0] + 1, IDS)
    assert found.reads == {"Unique -> its size": 1}


@pytest.mark.usefixtures("registry")
def test_a_branch_that_raises_is_not_taken():
    def function(ids):
        def fail():
            error = tf.raw_ops.Assert(condition=False, data=[tf.reduce_min(ids)])
            with tf.control_dependencies([error]):
                return tf.identity(ids)

        return tf.cond(ids[0] > 0, lambda: ids, fail)

    found = place(function, IDS)
    assert found.without_kernel == {}
    assert found.reads == {"Greater -> If": 1}


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("device", ["CPU:0", GPU_STAND_IN])
def test_a_variable_is_read_where_it_lies(device):
    with tf.device(device):
        variable = tf.Variable([1.0])
    found = place(lambda: variable + 1.0)
    copied = {"ReadVariableOp -> AddV2": 1} if device == "CPU:0" else {}
    assert found.copies == copied


def test_the_command_needs_cuda(capsys):
    if HAS_CUDA:
        assert main(["kernels", "--only", "softmax_top_k float32"]) == 0
        assert "nn.softmax_top_k float32" in capsys.readouterr().out
        assert main(["kernels", "--only", "no such function"]) == 2
    else:
        assert main(["kernels"]) == 2
        assert "TensorFlow must be built with CUDA" in capsys.readouterr().err


# The sampler's position; whether all row ids are in range; how many rows differ, of a
# table and of a bias.
DRAW = {"ReadVariableOp -> Sub": 1}
UPDATE = {"Pack -> Unpack": 1, "Unique -> its size": 2}
KNOWN_READS: dict[str, dict[str, int]] = {
    "tf": {"Cast -> Reshape": 1},
    "nn": {},
    "random": {},
    "layers": {},
    "samplers": {},
    "optimizers": DRAW | UPDATE,
    "models": {},
}
OF_STEPS = {
    "SampledSoftmax.sampled_loss": DRAW,
    ".ranks": {"Cast -> Reshape": 1},  # the result, int32
    # Of the optimizer inside, and of Keras.
    "LossScale": {"Pack -> Unpack": 1, "GreaterEqual -> If": 1, "Equal -> If": 1},
    "train_step": DRAW | UPDATE,
}


@pytest.mark.parametrize(
    "step",
    list(steps.steps()) if HAS_CUDA else [],
    ids=lambda step: getattr(step, "name", None),
)
def test_nothing_waits_for_a_gpu_but_what_is_known(step):
    found = step.placement()
    kind = step.name.split(".")[0]
    assert found.reads == collections.Counter(KNOWN_READS[kind]) + collections.Counter(
        next((reads for name, reads in OF_STEPS.items() if name in step.name), {})
    )
    of_tensorflow = {"ComputeAccidentalHits"}
    of_tensorflow |= {name for name in found.without_kernel if "CandidateS" in name}
    is_function = kind in ("nn", "random", "tf")
    assert set(found.without_kernel) <= (of_tensorflow if is_function else set())

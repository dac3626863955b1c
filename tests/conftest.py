"""Configures TensorFlow, hypothesis and pytest-xdist for every test."""

from __future__ import annotations

import contextlib
import gc
import os
import pathlib
import tempfile
from collections.abc import Iterator

import hypothesis
import pytest

# Read when TensorFlow and Keras are imported, so set before.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ["KERAS_BACKEND"] = "tensorflow"
# `rich` would color and wrap the text that tests compare.
for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
    os.environ.pop(name, None)

SEED = 20160410
WORKERS = 2
# Most of the time of a compiled test is LLVM's. `make test-slow` optimizes fully.
CHEAP_COMPILATION = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

# `too_slow` depends on what else the machine does.
hypothesis.settings.register_profile(
    "default",
    derandomize=True,
    max_examples=20,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "slow",
    max_examples=200,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)


def pytest_addoption(parser: pytest.Parser) -> None:
    help = "where to run every test, such as GPU:0"
    parser.addoption("--device", metavar="DEVICE", help=help)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Runs the whole suite in two processes, and tests named by path in this one."""
    named = config.args_source == pytest.Config.ArgsSource.ARGS
    return 0 if named else WORKERS


def slow_selected(config: pytest.Config) -> bool:
    """Whether slow tests run too, as in `make test-slow`."""
    return config.getoption("markexpr") != "not slow"


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("slow" if slow_selected(config) else "default")
    if not slow_selected(config):
        flags = os.environ.get("XLA_FLAGS", "")
        if CHEAP_COMPILATION not in flags:  # the workers inherit the environment
            os.environ["XLA_FLAGS"] = f"{CHEAP_COMPILATION} {flags}".strip()
    if config.getoption("numprocesses", None) and not config.getoption("device"):
        return  # the workers run the tests

    import tensorflow as tf

    # A collection of all objects takes a second, and tracing would ask for one often.
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)
    threads = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    # "CPU:0" and "CPU:1", so that tests of replicas need no process of their own.
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    # When an iterator goes, TensorFlow may wait for the thread that tunes it until that
    # has slept: about as long as the iterator has lived, up to a minute.
    tf.data.experimental.AutotuneOptions.enabled = False
    tf.config.set_logical_device_configuration(cpu, two)
    device = config.getoption("device")
    present = [d.name.split(":", 1)[1] for d in tf.config.list_logical_devices()]
    if device and device not in present:
        raise pytest.UsageError(f"`--device` must be one of {present}.")


def runs_eagerly(request: pytest.FixtureRequest) -> bool:
    """Whether the test's functions run eagerly: tracing a step takes as long as 20."""
    return (
        not slow_selected(request.config)
        and request.node.get_closest_marker("eager") is not None
        and request.node.get_closest_marker("traced") is None
    )


@pytest.fixture
def runs_slow_tests(request: pytest.FixtureRequest) -> bool:
    return slow_selected(request.config)


@pytest.fixture
def young_iterators() -> Iterator[None]:
    """Lets iterators go while they are young: those of replicas are always tuned."""
    yield
    gc.collect()


@pytest.fixture
def network() -> Iterator[None]:
    """Waits until no other process of the tests sends what this one would count."""
    import fcntl  # not on Windows

    path = pathlib.Path(tempfile.gettempdir()) / f"tfsampled-network-{os.getuid()}"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(autouse=True)
def known_state(request: pytest.FixtureRequest) -> Iterator[None]:
    """Starts every test from the same seeds and restores Keras's settings after it.

    Setting the global seed also restarts TensorFlow's sampling kernels, so the
    candidates that a test draws do not depend on the tests before it.
    """
    import keras
    import tensorflow as tf

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(SEED)
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    tf.config.run_functions_eagerly(runs_eagerly(request))
    device = request.config.getoption("device")
    with tf.device(device) if device else contextlib.nullcontext():
        yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    tf.config.run_functions_eagerly(False)
    if tf.config.optimizer.get_jit():
        tf.config.optimizer.set_jit(False)

"""What holds for every test: a quiet TensorFlow, few threads, a known state."""

import os

# Read once, when TensorFlow is loaded: they have to come before its import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import pytest
import tensorflow as tf

tf.config.threading.set_inter_op_parallelism_threads(2)
tf.config.threading.set_intra_op_parallelism_threads(2)

SEED = 20160410


@pytest.fixture(autouse=True)
def known_state():
    """Every test starts from the same seeds and leaves Keras as it found it.

    Setting the global seed also restarts TensorFlow's sampling kernels, so that no
    test draws other candidates because of the tests before it.
    """
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(SEED)
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    tf.config.run_functions_eagerly(False)
    if tf.config.optimizer.get_jit():
        tf.config.optimizer.set_jit(False)

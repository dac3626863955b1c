"""What the tests call in processes of their own."""

import numpy as np

MIB = 2**20


def shout(word, times=1):
    return {"said": word.upper() * times}


def make_step(inputs, passing, step):
    """Holds `inputs` MiB, after it held `passing` MiB more; the step needs `step`."""
    held = np.ones(inputs * MIB, np.uint8)
    np.ones(passing * MIB, np.uint8)

    def call():
        assert np.ones(step * MIB, np.uint8).sum() > 0 < held[0]

    return call

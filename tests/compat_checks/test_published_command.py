"""`python -m compat_checks.published`: what it swaps, counts and lets fail.

The published tests are not here; a small test file in the same form stands for them.
"""

import io

import pytest
from rich.console import Console

import tfsampled
from compat_checks.published import __main__ as published

LIKE_PUBLISHED = """
import numpy as np
from tensorflow.python.ops import nn_impl
from tensorflow.python.ops.nn_impl import _compute_sampled_logits
from tensorflow.python.platform import test


class LossTest(test.TestCase):
    def arguments(self):
        table = np.eye(4, dtype=np.float32)
        labels = np.array([[1], [3]])
        counts = [0, 2], np.full([2, 1], 0.5, np.float32), np.full([2], 0.5, np.float32)
        zeros = np.zeros([4], np.float32)
        return table, zeros, labels, 3.0 * table[:2], 2, 4, 1, counts

    def testLoss(self):
        got = self.evaluate(nn_impl.sampled_softmax_loss_v2(*self.arguments()))
        l = np.log(2.0)
        rows = np.array([[l, 3 + l, l], [l, l, l]])
        want = np.log(np.exp(rows).sum(1)) - rows[:, 0]
        self.assertAllClose(want, got, 1e-5)

    def testLogits(self):
        logits, labels = self.evaluate(_compute_sampled_logits(*self.arguments()))
        l = np.log(2.0)
        self.assertAllClose([[l, 3 + l, l], [l, l, l]], logits, 1e-5)
        self.assertAllClose([[1, 0, 0], [1, 0, 0]], labels, 1e-5)

    def testOfSomethingElse(self):
        raise AssertionError("names none of the functions: must not be run")
"""


@pytest.fixture
def checkout(tmp_path):
    """The form of a checkout, with the one test file in its place."""
    file = tmp_path / "tensorflow/python/ops/nn_test.py"
    file.parent.mkdir(parents=True)
    # Row 0 has label 1 and inputs 3 e_0; row 1 has label 3 and inputs 3 e_1.
    file.write_text(LIKE_PUBLISHED, encoding="utf-8")
    return tmp_path


def run(*paths):
    out = io.StringIO()
    code = published.main([str(p) for p in paths], Console(file=out, width=200))
    return code, out.getvalue()


def test_every_test_that_names_a_function_runs_and_reaches_ours(checkout):
    code, text = run(checkout)
    assert code == 0, text
    assert "2 published tests concern us; 2 passed" in text
    assert "sampled_softmax_loss_v2 x1" in text
    assert "_compute_sampled_logits x1" in text


def test_a_single_file_will_do(checkout):
    code, _ = run(checkout / "tensorflow/python/ops/nn_test.py")
    assert code == 0


@pytest.mark.parametrize(
    ("namespace", "name", "caught"),
    [
        (tfsampled.nn, "sampled_softmax_loss", "testLoss"),
        (tfsampled.compat.v1.nn, "nce_loss", "testLogits"),
    ],
)
def test_a_wrong_function_is_caught(checkout, monkeypatch, namespace, name, caught):
    right = getattr(namespace, name)
    monkeypatch.setattr(namespace, name, lambda *a, **k: 1.01 * right(*a, **k))
    code, text = run(checkout)
    assert code == 1
    assert "1 passed" in text
    assert "1 FAILED" in text
    (line,) = [line for line in text.splitlines() if "FAILED" in line and "│" in line]
    assert caught in line


def test_nothing_there_to_run(tmp_path):
    code, text = run(tmp_path)
    assert code == 2
    assert "give a checkout of TensorFlow" in text

"""What tests of divided tables share: a table, examples, and losses in float64."""

from typing import Any

import numpy as np
import tensorflow as tf

CLASSES, DIM, SAMPLED, EXAMPLES = 31, 4, 12, 8
RNG = np.random.default_rng(3)
TABLE = RNG.normal(size=(CLASSES, DIM))
BIAS = RNG.normal(size=CLASSES)
X = RNG.normal(size=(EXAMPLES, DIM))
Y = RNG.integers(0, CLASSES, EXAMPLES)
LABELS = RNG.integers(0, CLASSES, (EXAMPLES, 3))

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cosines": {"normalize": True, "temperature": 0.3, "use_bias": False},
    "capped": {"logit_soft_cap": 1.5, "temperature": 0.5},
    "corrected": {"log_q": "corrected"},
    "uncorrected": {"log_q": None},
    "hits kept": {"remove_accidental_hits": False},
    "three labels": {"num_true": 3},
    "padding": {"num_true": 3, "ignore_class": -1},
}


def labels_of(head):
    if head.num_true == 1:
        return Y
    if head.ignore_class is None:
        return LABELS
    labels = LABELS.copy()
    labels[1, 2:], labels[2], labels[6, 1:] = -1, -1, -1
    return labels


def expected_losses(head, candidates, x, variables):
    """Computes the losses from all logits; of no candidates the full softmax.

    Args:
        head: A layer with these options.
        candidates: Ids of all classes, and the expected count of every class.
        x: Inputs.
        variables: The table and the bias of all classes.
    """
    table = variables[0]
    if head.normalize:
        table, x = tf.math.l2_normalize(table, 1), tf.math.l2_normalize(x, 1)
    logits = tf.matmul(x, table, transpose_b=True)
    logits = (logits + sum(variables[1:])) / head.temperature
    if cap := head.logit_soft_cap:
        logits = cap * tf.tanh(logits / cap)
    labels = labels_of(head).reshape(len(x), -1)
    is_label = labels >= 0
    ids, counts = candidates if candidates else (np.arange(CLASSES), np.ones(CLASSES))
    log_q = np.log(counts) if head.log_q else np.zeros(CLASSES)
    label_log_q = log_q if head.log_q == "standard" else np.zeros(CLASSES)
    true = tf.gather(logits - label_log_q, np.maximum(labels, 0), batch_dims=1)
    columns = tf.where(is_label, true, -np.inf)
    sampled = tf.gather(logits - log_q, ids, axis=1)
    if candidates is None or head.remove_accidental_hits:
        hits = (labels[:, :, np.newaxis] == ids).any(axis=1)
        sampled = tf.where(hits, np.float64(-np.inf), sampled)
    if candidates is None:  # a class that is a label twice has one logit
        columns, sampled = logits[:, :0], logits
    weights = is_label / np.maximum(is_label.sum(axis=1, keepdims=True), 1)
    total = tf.reduce_logsumexp(tf.concat([columns, sampled], axis=1), axis=1)
    losses = total - tf.reduce_sum(weights * true, axis=1)
    return tf.where(is_label.any(axis=1), losses, 0)

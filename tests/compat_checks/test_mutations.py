"""The suite can fail: each way of breaking the library is caught by some case.

The library is broken from outside: its public functions are wrapped, their arguments
or results altered.
"""

import inspect

import pytest
import tensorflow as tf

import tfsampled
from compat_checks.cases import BY_NAME
from compat_checks.judge.check import Checker, public_functions

SOUND = public_functions(tfsampled)

GIVEN = "counts/sampled_softmax_loss full full 2 true"
GIVEN_NCE = "counts/nce_loss full full 2 true"
COPIES = "sampled_values/sampled_softmax_loss duplicates sharded eager"
MOD = "shards/sampled_softmax_loss mod 3 sharded biases"
DIV = "shards/nce_loss div 3 sharded biases"
PLAIN = "basic/sampled_softmax_loss v2 2 true hits removed eager"
KEPT = "basic/sampled_softmax_loss v2 2 true hits kept eager"
HITS = "edges/nce_loss v2 all sampled eager"
SEED = "seeds/nn.sampled_softmax_loss op 4 global 17 eager"
GLOBAL = "seeds/nn.sampled_softmax_loss op None global 17 eager"
SCOPE = "traces/nce_loss div head function"
STATIC = "basic/nce_loss v2 1 true hits kept function_static"
HALF = "extensions/sampled_softmax_loss v2 bfloat16 1 true eager"
HALF_HITS = "extensions/sampled_softmax_loss v2 bfloat16 every row hits"
SECOND = "second_order/sampled_softmax_loss v2 1 true 0 shards eager"
TOO_HIGH = "errors/nce_loss label too high eager"
SIGNATURE = "signatures/nn.nce_loss"
DRAWS = "samplers/log_uniform 300 of 1000 unique eager"
JIT_HITS = "jit/sampled_softmax_loss hits removed 1 true duplicates"


def arguments(change):
    """A mutation that alters the arguments of every call."""
    return lambda function: lambda **k: function(**(k | change(k)))


def result(change):
    """A mutation that alters what every call returns."""
    return lambda function: lambda **k: change(function(**k))


def without_log_count(which):
    def change(k):
        values = list(k["sampled_values"])
        values[which] = tf.ones_like(values[which])
        return {"sampled_values": tuple(values)}

    return arguments(change)


def all_copies_masked(k):
    """Every copy of a hit gets a count so large that nothing of it is left."""
    ids, true, sampled = k["sampled_values"]
    hit = tf.reduce_any(k["labels"][:, :, None] == ids, 1)
    return {
        "remove_accidental_hits": False,
        "sampled_values": (ids, true, tf.where(hit, 1e38, sampled)),
    }


def swapped(k):
    return {"partition_strategy": {"mod": "div", "div": "mod"}[k["partition_strategy"]]}


def next_shard(k):
    first, second, *others = k["biases"]
    return {"biases": [second, first, *others]}


def labels_weigh_one(function):
    """The labels' logits count once each instead of 1 / num_true."""

    def broken(**k):
        dots = tf.einsum(
            "bd,btd->bt", k["inputs"], tf.gather(k["weights"], k["labels"])
        )
        logits = dots + tf.gather(k["biases"], k["labels"])
        logits -= tf.math.log(k["sampled_values"][1])
        return function(**k) - (1 - 1 / k["num_true"]) * tf.reduce_sum(logits, 1)

    return broken


def steeper(factor):
    return result(lambda loss: tf.stop_gradient(loss) * (1 - factor) + factor * loss)


def in_half(loss):
    """Through one intermediate of a larger size in the result's own dtype."""
    return (loss + 64) - 64


def tensorflow_in_half(function):
    """TensorFlow's own loss on its own candidates, cast by hand: NaN at hits."""

    def naive(**k):
        options = {name: k[name] for name in ("num_true", "num_sampled")}
        ids, *counts = tf.random.log_uniform_candidate_sampler(
            k["labels"], unique=True, range_max=k["num_classes"], **options
        )
        counts = [tf.cast(count, k["inputs"].dtype) for count in counts]
        return tf.nn.sampled_softmax_loss(**k, sampled_values=(ids, *counts))

    return naive


def seed_used_up(function):
    def broken(**k):
        tf.random.uniform([])
        return function(**k)

    return broken


def no_name(function):
    return lambda **k: function(**{key: k[key] for key in k if key != "name"})


def shape_lost(loss):
    return tf.compat.v1.placeholder_with_default(loss, [None])


def flat_slopes(function):
    """First derivatives of the inputs are right, their derivatives are not."""

    def broken(**k):
        @tf.custom_gradient
        def loss(inputs):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                value = function(**(k | {"inputs": inputs}))
            slope = tf.stop_gradient(tape.gradient(value, inputs))
            return value, lambda upstream: upstream[:, None] * slope

        return loss(k["inputs"])

    return broken


def another_default(function):
    def broken(*args, **kwargs):
        return function(*args, **kwargs)

    signature = inspect.signature(function)
    others = [
        p.replace(default=True) if p.name == "remove_accidental_hits" else p
        for p in signature.parameters.values()
    ]
    changed = signature.replace(parameters=others)
    vars(broken)["__signature__"] = changed
    return broken


def next_ids(drawn):
    return drawn[0] + 1, *drawn[1:]


def larger_counts(drawn):
    return drawn[0], *(count * (1 + 1e-6) for count in drawn[1:])


def first_draw_again(function):
    drawn = []

    def broken(**k):
        drawn.append(function(**k))
        return drawn[0]

    return broken


MUTATIONS = {
    "log count of labels dropped": (without_log_count(1), GIVEN),
    "log count of candidates dropped": (without_log_count(2), GIVEN_NCE),
    "one candidate fewer": (
        arguments(lambda k: {"num_sampled": k["num_sampled"] - 1}),
        PLAIN,
    ),
    "nothing masked": (arguments(lambda k: {"remove_accidental_hits": False}), HITS),
    "masked unasked": (arguments(lambda k: {"remove_accidental_hits": True}), KEPT),
    "all copies masked": (arguments(all_copies_masked), COPIES),
    "mod and div swapped": (arguments(swapped), MOD),
    "off by one shard": (arguments(next_shard), DIV),
    "bias dropped": (arguments(lambda k: {"biases": k["biases"] * 0}), PLAIN),
    "labels weigh one": (labels_weigh_one, GIVEN_NCE),
    "labels weigh one, softmax": (labels_weigh_one, GIVEN),
    "gradient too steep by 1e-5": (steeper(1 + 1e-5), PLAIN),
    "loss too large by 1e-5": (result(lambda loss: loss * (1 + 1e-5)), PLAIN),
    "loss rounded to bfloat16": (
        result(lambda loss: tf.cast(tf.cast(loss, tf.bfloat16), loss.dtype)),
        PLAIN,
    ),
    "intermediate in bfloat16": (result(in_half), HALF),
    "all of it in bfloat16": (tensorflow_in_half, HALF_HITS),
    "other dtype": (result(lambda loss: tf.cast(loss, tf.float64)), PLAIN),
    "summed up": (result(tf.reduce_sum), PLAIN),
    "dense gradient": (arguments(lambda k: {"weights": k["weights"] * 1.0}), PLAIN),
    "no gradient of biases": (
        arguments(lambda k: {"biases": tf.stop_gradient(k["biases"])}),
        PLAIN,
    ),
    "another seed": (arguments(lambda k: {"seed": k["seed"] + 1}), SEED),
    "a seed used up": (seed_used_up, GLOBAL),
    "name ignored": (no_name, SCOPE),
    "static shape lost": (result(shape_lost), STATIC),
    "second derivatives wrong": (flat_slopes, SECOND),
    "bad labels accepted": (
        arguments(lambda k: {"labels": k["labels"] % k["num_classes"]}),
        TOO_HIGH,
    ),
    "another default": (another_default, SIGNATURE),
    "sampled ids off by one": (result(next_ids), DRAWS),
    "expected counts too large by 1e-6": (result(larger_counts), DRAWS),
    "another seed of a sampler": (arguments(lambda k: {"seed": 10}), DRAWS),
    "the first draw each time": (first_draw_again, DRAWS),
    "hits kept under XLA": (
        arguments(lambda k: {"remove_accidental_hits": False}),
        JIT_HITS,
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_library_is_caught(name):
    mutation, case = MUTATIONS[name]
    broken = Checker(lambda path: mutation(SOUND(path)))
    result = broken.check(BY_NAME[case])
    assert not result.passed
    assert result.reasons()
    # The mutation has to reach the numbers, not stumble over its own call.
    assert not any(
        r.startswith(("raised TypeError", "raised KeyError")) for r in result.reasons()
    )

"""The random words that TensorFlow's candidate samplers read, as tensors.

TensorFlow's sampler kernels own a Philox4x32-10 generator: its key is `seed`, its
upper counter words are `seed2`, and its lower counter words number the blocks of
four 32-bit words. Call `k` of a kernel starts at block `512 * num_sampled * k`.
"""

from typing import NamedTuple

import tensorflow as tf

from tfsampled._core.xla import tracing_for_xla

_ALG_PHILOX = 1
_WORDS_PER_BLOCK = 4
_WORD = 1 << 32
# Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


class Stream(NamedTuple):
    """Where one call of a sampler starts to read.

    Attributes:
      key: `[1]` uint64, the generator's key.
      low: `[]` uint64, the block number.
      high: `[]` uint64, the upper half of the 128-bit counter.
    """

    key: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor


def blocks_reserved(num_sampled):
    """How many blocks TensorFlow skips after a call that draws `num_sampled`.

    The kernel multiplies 32-bit integers, so the product wraps from
    `num_sampled = 2**20` on and the step may be negative or zero.
    """
    words = (2048 * num_sampled + 2**31) % _WORD - 2**31
    return int((words + 3) / _WORDS_PER_BLOCK)  # C division: towards zero


def stream(seed, seed2, call, num_sampled):
    """The words that call number `call` of TensorFlow's kernel would read.

    Args:
      seed: Python int, the first of the pair of `tf.compat.v1.random.get_seed`.
      seed2: Python int, the second.
      call: `[]` int64 tensor, how many calls went before.
      num_sampled: Python int.

    Returns:
      A `Stream`.
    """
    step = blocks_reserved(num_sampled)
    high = tf.constant(seed2 % 2**64, tf.uint64)
    if step < 0:
        # The kernel adds the step as an unsigned number. It loses the carry of the
        # first borrow from the upper words and keeps that of every later one.
        borrows = (call * -step + (_WORD - 1)) // _WORD
        high += tf.cast(tf.maximum(borrows - 1, 0), tf.uint64)
    return Stream(
        key=tf.constant([seed % 2**64], tf.uint64),
        low=tf.bitcast(call * step, tf.uint64),
        high=high,
    )


def pairs(source, first, count):
    """The words from `first` on, two by two.

    Args:
      source: A `Stream`.
      first: Where to start, in words, a multiple of four: a Python int or a `[]`
        int64 tensor.
      count: Python int, even: how many pairs.

    Returns:
      The first and the second word of each pair, both `[count]` uint64.
    """
    lanes = _blocks(source, first // _WORDS_PER_BLOCK, count // 2)
    return _interleave(lanes[0::2]), _interleave(lanes[1::2])


def words(source, first, count):
    """The words `first .. first + count - 1`, `[count]` uint64.

    Args:
      source: A `Stream`.
      first: Where to start: a Python int or a `[]` int64 tensor.
      count: Python int, a multiple of four.
    """
    blocks = count // _WORDS_PER_BLOCK
    if isinstance(first, int) and first % _WORDS_PER_BLOCK == 0:
        return _interleave(_blocks(source, first // _WORDS_PER_BLOCK, blocks))
    drawn = _interleave(_blocks(source, first // _WORDS_PER_BLOCK, blocks + 1))
    return tf.slice(drawn, [tf.cast(first % _WORDS_PER_BLOCK, tf.int32)], [count])


def _interleave(lanes):
    return tf.reshape(tf.stack(lanes, axis=1), [-1])


def _blocks(source, first, count):
    """The four words of each of `count` blocks: four lanes, `[count]` uint64 each."""
    first = tf.cast(first, tf.uint64)
    low = source.low + first
    high = source.high + tf.cast(low < source.low, tf.uint64)
    return (_rounds if tracing_for_xla() else _library)(source.key, low, high, count)


def _library(key, low, high, count):
    """TensorFlow's own Philox, the fastest off XLA."""
    drawn = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[count, _WORDS_PER_BLOCK],
        key=key,
        counter=tf.stack([low, high]),
        alg=_ALG_PHILOX,
        dtype=tf.uint32,
    )
    return tf.unstack(tf.cast(drawn, tf.uint64), axis=1)


def _rounds(key, low, high, count):
    """Philox4x32-10 lane by lane, which XLA fuses with whatever reads the words.

    From TensorFlow's op it would make all four words of a block for each one of them.
    """
    index = low + tf.cast(tf.range(count, dtype=tf.int64), tf.uint64)
    above = tf.fill([count], high) + tf.cast(index < low, tf.uint64)
    xor = tf.bitwise.bitwise_xor
    x1, x0 = _halves(index)
    x3, x2 = _halves(above)
    key1, key0 = _halves(key)
    for _ in range(_ROUNDS):
        upper0, lower0 = _halves(x0 * tf.constant(_MULTIPLIERS[0], tf.uint64))
        upper1, lower1 = _halves(x2 * tf.constant(_MULTIPLIERS[1], tf.uint64))
        x0, x1 = xor(xor(upper1, x1), key0), lower1
        x2, x3 = xor(xor(upper0, x3), key1), lower0
        key0 = _halves(key0 + tf.constant(_KEY_STEPS[0], tf.uint64))[1]
        key1 = _halves(key1 + tf.constant(_KEY_STEPS[1], tf.uint64))[1]
    return [x0, x1, x2, x3]


def _halves(x):
    """The upper and the lower word of uint64."""
    upper = tf.bitwise.right_shift(x, tf.constant(32, tf.uint64))
    return upper, tf.bitwise.bitwise_and(x, tf.constant(_WORD - 1, tf.uint64))

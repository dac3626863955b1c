"""The random words that TensorFlow's candidate samplers read, as tensors.

TensorFlow's sampler kernels own a Philox4x32-10 generator: its key is `seed`, its
upper counter words are `seed2`, and its lower counter words number the blocks of
four 32-bit words. Call `k` of a kernel starts at block `512 * num_sampled * k`.
"""

from typing import NamedTuple

import tensorflow as tf

_ALG_PHILOX = 1
_WORDS_PER_BLOCK = 4
_WORD = 1 << 32


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


def words(source, first, count):
    """The words `first .. first + count - 1` of a stream.

    Args:
      source: A `Stream`.
      first: Where to start, in words: a Python int or a `[]` int64 tensor.
      count: Python int, how many words.

    Returns:
      `[count]` uint32.
    """
    aligned = isinstance(first, int) and first % _WORDS_PER_BLOCK == 0
    spare = 0 if aligned else _WORDS_PER_BLOCK
    first = tf.convert_to_tensor(first, tf.int64)
    low = source.low + tf.cast(first // _WORDS_PER_BLOCK, tf.uint64)
    high = source.high + tf.cast(low < source.low, tf.uint64)
    drawn = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[count + spare],
        key=source.key,
        counter=tf.stack([low, high]),
        alg=_ALG_PHILOX,
        dtype=tf.uint32,
    )
    if aligned:
        return drawn
    return tf.slice(drawn, [tf.cast(first % _WORDS_PER_BLOCK, tf.int32)], [count])

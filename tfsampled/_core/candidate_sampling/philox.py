"""The random words that TensorFlow's candidate samplers read, as tensors.

TensorFlow's sampler kernels own a Philox4x32-10 generator: its key is `seed`, the upper
half of its 128-bit counter is `seed2`, and the lower half numbers blocks of four 32-bit
words. Call `k` of a kernel starts at block `512 * num_sampled * k`.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfsampled._core.static_ops import Size
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


def blocks_per_call(num_sampled: int) -> int:
    """Returns how many blocks TensorFlow's kernel skips after each call.

    The kernel multiplies 32-bit integers: from `num_sampled = 2**20` on the product
    wraps, and the step may be negative or zero.
    """
    # num_sampled = 2**20: 2048 * 2**20 = 2**31 wraps to -2**31 words, -2**29 blocks.
    words = (2048 * num_sampled + 2**31) % _WORD - 2**31
    return int((words + 3) / _WORDS_PER_BLOCK)  # C division: towards zero


def stream(seeds: tuple[int, int], call: tf.Tensor, step: int) -> Stream:
    """Returns the words that one call of a sampler reads.

    Args:
        seeds: The pair of `tf.compat.v1.random.get_seed`.
        call: `[]` int64, the number of the call, from 0.
        step: The blocks between two calls; see `blocks_per_call`.
    """
    high = tf.constant(seeds[1] % 2**64, tf.uint64)
    if step < 0:
        # The kernel adds the step as an unsigned number. It loses the carry of the
        # first borrow from the upper half and keeps that of every later one.
        borrows = (call * -step + (_WORD - 1)) // _WORD
        high += tf.cast(tf.maximum(borrows - 1, 0), tf.uint64)
    return Stream(
        key=tf.constant([seeds[0] % 2**64], tf.uint64),
        low=tf.bitcast(call * step, tf.uint64),
        high=high,
    )


def pairs(stream: Stream, offset: int | tf.Tensor, count: int) -> tf.Tensor:
    """Reads words two by two, each pair as one number whose low half is the first word.

    Args:
        offset: The first word, a multiple of four: an int or a `[]` int64 tensor.
        count: How many pairs, an even number.

    Returns:
        `[count]` uint64.
    """
    # words = [1, 2, 3, 4] -> pairs = [1 + 2 * 2**32, 3 + 4 * 2**32]
    if not tracing_for_xla():
        return _tf_philox(stream, offset, count, tf.uint64)
    x0, x1, x2, x3 = _philox_rounds(stream, offset, count // 2)
    word = tf.constant(_WORD, tf.uint64)
    return _interleave([x0 + x1 * word, x2 + x3 * word])


def words(stream: Stream, offset: int | tf.Tensor, count: int) -> tf.Tensor:
    """Reads words one by one.

    Args:
        offset: The first word: an int or a `[]` int64 tensor.
        count: How many words, a multiple of four.

    Returns:
        `[count]` uint64, each below `2**32`.
    """
    # offset = 6, count = 4: blocks 1 and 2 hold words 4 to 11; the slice is 6 to 9.
    aligned = isinstance(offset, int) and offset % _WORDS_PER_BLOCK == 0
    num_blocks = count // _WORDS_PER_BLOCK + (0 if aligned else 1)
    if tracing_for_xla():
        drawn = _interleave(_philox_rounds(stream, offset, num_blocks))
    else:
        num_words = num_blocks * _WORDS_PER_BLOCK
        drawn = tf.cast(_tf_philox(stream, offset, num_words, tf.uint32), tf.uint64)
    if aligned:
        return drawn
    return tf.slice(drawn, [tf.cast(offset % _WORDS_PER_BLOCK, tf.int32)], [count])


def halves(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits uint64 numbers into their low and their high 32 bits, as uint64."""
    low = tf.bitwise.bitwise_and(number, tf.constant(_WORD - 1, tf.uint64))
    return low, tf.bitwise.right_shift(number, tf.constant(32, tf.uint64))


def _interleave(lanes: list[tf.Tensor]) -> tf.Tensor:
    # lanes = [[0, 2], [1, 3]] -> [0, 1, 2, 3]
    return tf.reshape(tf.stack(lanes, axis=1), [-1])


def _tf_philox(stream: Stream, offset: Size, count: int, dtype: tf.DType) -> tf.Tensor:
    """Returns `count` numbers of TensorFlow's own Philox, the fastest without XLA."""
    # Only a stream that wraps around carries into the upper half here. Without XLA none
    # is read that far.
    low = stream.low + tf.cast(offset // _WORDS_PER_BLOCK, tf.uint64)
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[count],
        key=stream.key,
        counter=tf.stack([low, stream.high]),
        alg=_ALG_PHILOX,
        dtype=dtype,
    )


def _philox_rounds(stream: Stream, offset: Size, num_blocks: int) -> list[tf.Tensor]:
    """Returns the words of blocks for XLA: four lanes, `[num_blocks]` uint64 each."""
    blocks = offset // _WORDS_PER_BLOCK + tf.range(num_blocks, dtype=tf.int64)
    index = stream.low + tf.cast(blocks, tf.uint64)
    carry = tf.cast(index < stream.low, tf.uint64)
    lanes = _philox_lanes(index, stream.high + carry, stream.key)
    for lane in lanes:
        lane.set_shape([num_blocks])
    return lanes


# Traced once, for draws of any size: these are most of a draw's operations.
@tf.function(input_signature=[tf.TensorSpec([None], tf.uint64)] * 3, autograph=False)
def _philox_lanes(low: tf.Tensor, high: tf.Tensor, key: tf.Tensor) -> list[tf.Tensor]:
    """Computes Philox4x32-10 lane by lane, which XLA fuses with what reads the words.

    From TensorFlow's op XLA would compute all four words of a block for each of them.

    Args:
        low: `[num_blocks]`, the lower half of each counter.
        high: `[num_blocks]`, the upper half.
        key: `[1]`.
    """
    x0, x1 = halves(low)
    x2, x3 = halves(high)
    key0, key1 = halves(key)
    xor = tf.bitwise.bitwise_xor
    for _ in range(_ROUNDS):
        low0, high0 = halves(x0 * tf.constant(_MULTIPLIERS[0], tf.uint64))
        low1, high1 = halves(x2 * tf.constant(_MULTIPLIERS[1], tf.uint64))
        x0, x1 = xor(xor(high1, x1), key0), low1
        x2, x3 = xor(xor(high0, x3), key1), low0
        key0, _ = halves(key0 + tf.constant(_KEY_STEPS[0], tf.uint64))
        key1, _ = halves(key1 + tf.constant(_KEY_STEPS[1], tf.uint64))
    return [x0, x1, x2, x3]

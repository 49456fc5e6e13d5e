"""BLAKE2b of many texts at once, digests of 8 bytes: `hashlib.blake2b(text, digest_size=8)`, compiled.

For indexes of millions of ids, where a call of Python for each id takes most of the time.

Source: RFC 7693, sections 2 and 3.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lifelong.compiled import jit
from lifelong.dtypes import IntArray

Word = np.uint64
Words = npt.NDArray[np.uint64]
_START = np.array(
    [
        [0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1],
        [0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179],
    ],
    np.uint64,
).ravel()
_PARAMETERS = np.uint64(0x01010008)
"""A tree of one level, no key, digests of 8 bytes."""
_ORDERS = """
0123456789abcdef ea489fd61c02b753 b8c052fdae367194 7931dcbe265a40f8 905724afe1bc683d
2c6a0b834d75fe19 c51fed4a0763928b db7ec13950f4862a 6fe9b308c2d714a5 a2847615fb9e3cd0
"""
_ORDER = np.array([[int(word, 16) for word in order] for order in _ORDERS.split()], np.uint64)
_ORDER = np.concatenate([_ORDER, _ORDER[:2]])
"""Which word of a block each step of a round takes. Unsigned: compiled code then skips the check for places from the
end, which takes a fifth of the time."""
_BLOCK, _BYTE = 128, 8


def text_hashes(text: npt.NDArray[np.uint8], offset: IntArray) -> Words:
    """The digest of each text, as a little-endian number.

    Args:
        text: all texts one after another.
        offset: where each begins, and the end: n + 1.

    >>> text_hashes(np.frombuffer(b"i1", np.uint8), np.array([0, 2])).tolist()
    [778860755400141486]
    """
    hashes = np.empty(len(offset) - 1, np.uint64)
    # Arrays that can be written would be compiled for once more.
    for values in (text := text.view(), offset := offset.view()):
        values.flags.writeable = False
    _hash(text, offset, _ORDER, hashes)
    return hashes


@jit
def _hash(text: npt.NDArray[np.uint8], offset: IntArray, order: Words, hashes: Words) -> None:
    state, block = np.empty(8, np.uint64), np.empty(16, np.uint64)
    for at in range(len(hashes)):
        state[:] = _START
        state[0] ^= _PARAMETERS
        start, end = offset[at], offset[at + 1]
        # An empty text is one block of zeros, too.
        while True:
            stop = min(start + _BLOCK, end)
            block[:] = 0
            for place in range(stop - start):
                byte = np.uint64(text[start + place])
                block[place // _BYTE] |= byte << np.uint64(place % _BYTE * 8)
            start = stop
            _compress(state, block, order, np.uint64(start - offset[at]), start == end)
            if start == end:
                break
        hashes[at] = state[0]


@jit
def _compress(state: Words, m: Words, order: Words, done: Word, last: bool) -> None:
    """Take one block; names as in the RFC."""
    v0, v1, v2, v3, v4, v5, v6, v7 = state
    v8, v9, v10, v11, v12, v13, v14, v15 = _START
    v12 ^= done
    if last:
        v14 = ~v14
    # In sixteen variables and not in an array, so that they stay in registers.
    for s in order:
        v0, v4, v8, v12 = _mix(v0, v4, v8, v12, m[s[0]], m[s[1]])
        v1, v5, v9, v13 = _mix(v1, v5, v9, v13, m[s[2]], m[s[3]])
        v2, v6, v10, v14 = _mix(v2, v6, v10, v14, m[s[4]], m[s[5]])
        v3, v7, v11, v15 = _mix(v3, v7, v11, v15, m[s[6]], m[s[7]])
        v0, v5, v10, v15 = _mix(v0, v5, v10, v15, m[s[8]], m[s[9]])
        v1, v6, v11, v12 = _mix(v1, v6, v11, v12, m[s[10]], m[s[11]])
        v2, v7, v8, v13 = _mix(v2, v7, v8, v13, m[s[12]], m[s[13]])
        v3, v4, v9, v14 = _mix(v3, v4, v9, v14, m[s[14]], m[s[15]])
    low, high = (v0, v1, v2, v3, v4, v5, v6, v7), (v8, v9, v10, v11, v12, v13, v14, v15)
    for at in range(8):
        state[at] ^= low[at] ^ high[at]


@jit
def _mix(a: Word, b: Word, c: Word, d: Word, x: Word, y: Word) -> tuple[Word, Word, Word, Word]:
    a = a + b + x
    d = _turned(d ^ a, 32)
    c = c + d
    b = _turned(b ^ c, 24)
    a = a + b + y
    d = _turned(d ^ a, 16)
    c = c + d
    return a, _turned(b ^ c, 63), c, d


@jit
def _turned(word: Word, right: int) -> Word:
    return (word >> np.uint64(right)) | (word << np.uint64(64 - right))

"""One seed, many named streams of counter-based random numbers.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", SC11) maps (key, counter) to four 32-bit
words. The counter of a uniform is (neuron // 4, bin, trial, 0) and the word is neuron % 4, so that any block of any chunk can be drawn
alone: spikes do not depend on chunk size, backend or device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_LOW_32, _SHIFT_32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox4x32(counter: tuple[np.ndarray, ...], key: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Return four arrays of uint32 words, Philox4x32 with ten rounds.

    Parameters
    ----------
    counter : four arrays of uint32 that broadcast against each other
    key : two 32-bit integers
    """
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(c, dtype=np.uint32) for c in counter))
    k0, k1 = np.uint32(key[0]), np.uint32(key[1])
    with np.errstate(over="ignore"):
        for _ in range(10):
            product_0 = _MULTIPLIER_0 * c0.astype(np.uint64)
            product_1 = _MULTIPLIER_1 * c2.astype(np.uint64)
            high_0, low_0 = (product_0 >> _SHIFT_32).astype(np.uint32), (product_0 & _LOW_32).astype(np.uint32)
            high_1, low_1 = (product_1 >> _SHIFT_32).astype(np.uint32), (product_1 & _LOW_32).astype(np.uint32)
            c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
            k0, k1 = np.uint32(k0 + _WEYL_0), np.uint32(k1 + _WEYL_1)
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Stream:
    """A named stream of one seed. Two streams of different names are independent."""

    seed: int
    name: str

    @property
    def key(self) -> tuple[int, int]:
        """Return the Philox key: the first 64 bits of the SHA-256 of seed and name."""
        digest = hashlib.sha256(f"{self.seed}/{self.name}".encode()).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")

    def child(self, name: str) -> Stream:
        """Return the stream called "parent/name" of the same seed."""
        return Stream(self.seed, f"{self.name}/{name}")

    def uniforms(self, trials: np.ndarray | int, bins: range, n_neurons: int) -> np.ndarray:
        """Return the uniforms of some trials, a range of bins and all neurons.

        Parameters
        ----------
        trials : trial numbers (n_trials,), or how many (then 0, 1, ...)
        bins : consecutive bin numbers within the trial
        n_neurons : neurons 0 .. n_neurons - 1

        Returns
        -------
        ndarray, (n_trials, n_bins, n_neurons), float64, strictly between 0 and 1, on the grid (k + 1/2) / 2**32.
        """
        trials = np.arange(trials) if np.isscalar(trials) else np.asarray(trials)
        block = np.arange((n_neurons + 3) // 4, dtype=np.uint32)
        bin_number = np.arange(bins.start, bins.stop, dtype=np.uint32)
        words = philox4x32(
            (block[None, None, :], bin_number[None, :, None], trials.astype(np.uint32)[:, None, None], np.uint32(0)),
            self.key,
        )
        stacked = np.stack(words, axis=-1).reshape(len(trials), len(bin_number), -1)[..., :n_neurons]
        return (stacked.astype(np.float64) + 0.5) * 2.0**-32

    def numpy(self) -> np.random.Generator:
        """Return a fresh numpy generator keyed by this stream, for draws that are not indexed by trial, bin and neuron."""
        return np.random.Generator(np.random.Philox(key=self.key[0] + (self.key[1] << 32)))

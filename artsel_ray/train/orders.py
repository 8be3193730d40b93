"""The order in which an epoch shows the examples: by length, or a title's users side by side.

An order depends on seed and epoch alone, not on the number of workers, and a resumed run has that of an uninterrupted
one. (The Trainer's own `group_by_length` draws from torch's global generator, whose state a resumed run has not.) The
last optimizer step of an epoch is filled up with the epoch's first examples: otherwise each number of workers would
fill its last batches with other ones.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler
from transformers import TrainerCallback
from transformers.trainer_pt_utils import get_length_grouped_indices

from artsel_ray.train.examples import GROUP_STREAM

Positions = NDArray[np.int64]


class Order(Sampler[int]):
    """Random, but with examples of similar length side by side, so that little is padded."""

    def __init__(self, length_n: Sequence[int], batch_size: int, seed: int) -> None:
        self._length_n, self._batch_size, self._seed = list(length_n), batch_size, seed
        self.epoch = 0

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-len(self._length_n) // self._batch_size)

    def __len__(self) -> int:
        return self.steps * self._batch_size

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(itertools.cycle(self._positions()), len(self))

    def _positions(self) -> list[int]:
        """Returns the examples' positions in the dataset in this epoch's order."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        return list(get_length_grouped_indices(self._length_n, self._batch_size, generator=generator))

    def shuffle_key(self, index: int) -> int:
        """Returns what the order of an example's candidates is drawn by in this epoch; equal keys, equal orders."""
        return index


class SetEpoch(TrainerCallback):
    """Tells an order its epoch.

    The Trainer and accelerate do not where several workers resume in the middle of an epoch: their data loader's
    `set_epoch` does not reach a sampler that is wrapped both to be sharded and to skip batches (accelerate 1.15).
    """

    def __init__(self, order: Order) -> None:
        self._order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called before an epoch's first batch is rendered, with the step from a checkpoint if there is one."""
        self._order.epoch = state.global_step // self._order.steps


class GroupOrder(Order):
    """Groups of a title's examples, so that what their prompts share is computed once; what is left fills groups too.

    A title's groups are spread over the epoch, so that a step sees other titles next to it.
    """

    def __init__(
        self, indices: Sequence[int], title_n: Sequence[int], group_size: int, batch_size: int, seed: int
    ) -> None:
        """Orders the examples with these `indices`, of which the dataset has its rows.

        Args:
            title_n: [len(indices)] the title of each.
        """
        super().__init__([1] * len(indices), batch_size, seed)
        self._index_n, self._title_n, self._group_size = np.array(indices), np.array(title_n), group_size
        self._keys: tuple[int, dict[int, int]] = (-1, {})

    def _positions(self) -> list[int]:
        return [position for group in self._groups() for position in group.tolist()]

    def shuffle_key(self, index: int) -> int:
        """Returns the first example of this one's title in its group."""
        if self._keys[0] != self.epoch:
            self._keys = self.epoch, self._first_of_title()
        return self._keys[1][index]

    def _first_of_title(self) -> dict[int, int]:
        first: dict[int, int] = {}
        for group in self._groups():
            in_group: dict[int, int] = {}
            for index, title in zip(self._index_n[group].tolist(), self._title_n[group].tolist(), strict=True):
                first[index] = in_group.setdefault(title, index)
        return first

    def _groups(self) -> list[Positions]:
        """Returns this epoch's groups of positions in the dataset; only the last may be smaller than the others."""
        rng, size = np.random.default_rng([self._seed, GROUP_STREAM, self.epoch]), self._group_size
        complete: list[Positions] = []
        left: list[Positions] = []
        when: list[float] = []
        for positions in self._by_title(rng):
            count = len(positions) // size
            complete += [positions[start : start + size] for start in range(0, count * size, size)]
            left.append(positions[count * size :])
            when += [(each + phase) / count for phase in [rng.random()] for each in range(count)]
        rest = np.concatenate(left)
        mixed = [rest[start : start + size] for start in range(0, len(rest), size)]
        when += [rng.random() if len(group) == size else 1.0 for group in mixed]
        groups = complete + mixed
        return [groups[each] for each in np.argsort(when, kind="stable")]

    def _by_title(self, rng: np.random.Generator) -> list[Positions]:
        """Returns each title's positions, both titles and positions in random order."""
        titles, title_n = np.unique(self._title_n, return_inverse=True)
        shuffled = rng.permutation(len(title_n))
        turn = rng.permutation(len(titles))[title_n[shuffled]]
        shuffled = shuffled[np.argsort(turn, kind="stable")]
        return np.split(shuffled, np.flatnonzero(np.diff(np.sort(turn))) + 1)

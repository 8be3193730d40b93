"""Packs rows of token ids into one sequence that stores each prefix that rows share once.

The prompts of a title's users begin with the same options, and DPO's two answers follow the same prompt. Packed, such
rows are a forest: title, below it its users, below each user its answers. A token attends to the tokens before it in
its own node and in the nodes above. So it sees what it sees in a row of its own, and is computed once for all rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Shorter shared prefixes are stored once for each row: another level of the forest would cost more than it saves.
MIN_SHARED_TOKENS = 16

Index = NDArray[np.int64]


@dataclass(frozen=True)
class PackedRows:
    """R rows as a forest of K nodes with N tokens, depth first: each node before the nodes below it."""

    ids: Index
    """[N] tokens."""
    positions: Index
    """[N] position of each token in its rows."""
    subtree_ends: Index
    """[N] where the nodes below each token's own end. The token itself and all up to there attend to it."""
    starts: Index
    """[K] index of each node's first token."""
    lengths: Index
    """[K] number of each node's own tokens."""
    parents: Index
    """[K] index of the node above, -1 for a root."""
    tails: Index
    """[R, longest tail] index of each row's last tokens, in order; 0 after a shorter tail."""


def pack(rows: Sequence[Sequence[int] | NDArray[np.integer]], tails: Sequence[int]) -> PackedRows:
    """Returns rows packed; their hidden states are wanted at the last `tails` tokens of each.

    Raises:
        ValueError: if there is no row, an empty one, or one that is shorter than its tail.
    """
    if not rows or any(not 0 < tail <= len(row) for row, tail in zip(rows, tails, strict=True)):
        raise ValueError("each row needs at least one token, and as many as its tail")
    packer = _Packer([np.asarray(row, dtype=np.int64) for row in rows])
    packer.add(packer.sorted_rows(), 0, -1, np.empty(0, dtype=np.int64))
    tail = np.zeros((len(rows), max(tails)), dtype=np.int64)
    for row, count in enumerate(tails):
        tail[row, :count] = packer.paths[row][-count:]
    return packer.packed(tail)


@dataclass
class _Packer:
    rows: list[Index]
    ids: list[Index] = field(default_factory=list)
    """The nodes' tokens."""
    positions: list[int] = field(default_factory=list)
    """Position of each node's first token."""
    parents: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """End of the nodes below each node."""
    paths: dict[int, Index] = field(default_factory=dict)
    """Index of all tokens of each row."""
    count: int = 0
    """Number of tokens."""

    def sorted_rows(self) -> list[int]:
        # Big-endian bytes compare as the ids do, and 30 times as fast as lists.
        return sorted(range(len(self.rows)), key=lambda row: self.rows[row].astype(">i8").tobytes())

    def add(self, members: list[int], offset: int, parent: int, path: Index) -> None:
        """Adds the nodes of sorted rows below the node that holds the end of their first `offset` tokens."""
        for group, shared in self._groups(members, offset):
            node, start = len(self.ids), self.count
            self.ids.append(self.rows[group[0]][offset:shared])
            self.positions.append(offset)
            self.parents.append(parent)
            self.ends.append(0)
            self.count += shared - offset
            below = np.concatenate((path, np.arange(start, self.count)))
            self.paths |= {row: below for row in group if len(self.rows[row]) == shared}
            self.add([row for row in group if len(self.rows[row]) > shared], shared, node, below)
            self.ends[node] = self.count

    def _groups(self, members: list[int], offset: int) -> Iterator[tuple[list[int], int]]:
        """Yields runs of rows that share enough tokens after the first `offset`, with the end of what they share."""
        group: list[int] = []
        shared = 0
        for row in members:
            common = _common(self.rows[group[-1]], self.rows[row]) if group else 0
            if group and common - offset < MIN_SHARED_TOKENS:
                yield group, shared
                group = []
            shared = min(shared, common) if group else len(self.rows[row])
            group.append(row)
        if group:
            yield group, shared

    def packed(self, tails: Index) -> PackedRows:
        lengths = np.array([len(ids) for ids in self.ids], dtype=np.int64)
        positions = [np.arange(length) + first for first, length in zip(self.positions, lengths, strict=True)]
        return PackedRows(
            np.concatenate(self.ids), np.concatenate(positions), np.repeat(self.ends, lengths),
            np.cumsum(lengths) - lengths, lengths, np.array(self.parents, dtype=np.int64), tails,
        )  # fmt: skip


def _common(one: Index, other: Index) -> int:
    """Returns the number of tokens that two rows share at their beginning."""
    length = min(len(one), len(other))
    differs = one[:length] != other[:length]
    return int(differs.argmax()) if differs.any() else length

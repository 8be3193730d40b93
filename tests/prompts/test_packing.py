import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.prompts.packing import MIN_SHARED_TOKENS, PackedRows, pack

# Few tokens and long common beginnings, so that rows share some of them, all, or nothing.
BASE = [number * 7 % 5 for number in range(60)]
ROW = st.tuples(st.integers(0, 60), st.lists(st.integers(0, 4), max_size=40)).map(
    lambda each: BASE[: each[0]] + each[1]
)
ROWS = st.lists(ROW.filter(bool), min_size=1, max_size=9)


def path_to(packed: PackedRows, token: int) -> list[int]:
    """Returns the tokens that one attends to, by going up from its node."""
    node = int(np.flatnonzero((packed.starts <= token) & (token < packed.starts + packed.lengths))[0])
    seen = list(range(packed.starts[node], token + 1))
    while (node := int(packed.parents[node])) >= 0:
        seen = [*range(packed.starts[node], packed.starts[node] + packed.lengths[node]), *seen]
    return seen


@given(ROWS)
def test_each_row_is_what_its_last_token_attends_to(rows: list[list[int]]) -> None:
    packed = pack(rows, [1] * len(rows))
    for row, last in zip(rows, packed.tails[:, 0], strict=True):
        seen = path_to(packed, last)
        assert packed.ids[seen].tolist() == row
        assert packed.positions[seen].tolist() == list(range(len(row)))


@given(ROWS)
def test_ends_of_subtrees_tell_what_a_token_attends_to(rows: list[list[int]]) -> None:
    packed = pack(rows, [1] * len(rows))
    for token in range(len(packed.ids)):
        keys = np.arange(token + 1)
        assert keys[token < packed.subtree_ends[keys]].tolist() == path_to(packed, token)


@given(ROWS, st.data())
def test_tails_are_the_last_tokens_of_rows_in_their_order(rows: list[list[int]], data: st.DataObject) -> None:
    tails = [data.draw(st.integers(1, len(row))) for row in rows]
    packed = pack(rows, tails)
    for row, tail, found in zip(rows, tails, packed.tails, strict=True):
        assert packed.ids[found[:tail]].tolist() == row[-tail:]
        assert not found[tail:].any()


def test_a_shared_prefix_is_stored_once() -> None:
    title, users = list(range(100)), [[1] * 20, [2] * 20, [3] * 30]
    answers = [[title + user + [answer] for answer in (7, 8)] for user in users]
    packed = pack([row for pair in answers for row in pair], [1] * 6)
    assert len(packed.ids) == 100 + 70 + 6
    assert packed.parents.tolist() == [-1, 0, 1, 1, 0, 4, 4, 0, 7, 7]
    # Titles have nothing in common, and what two rows share by chance makes no node.
    other = [[9] * 4 + [8] * 90, [9] * 4 + [7] * 90]
    assert pack(other, [1, 1]).parents.tolist() == [-1, -1]
    assert len(pack([[5] * MIN_SHARED_TOKENS + [each] for each in (1, 2)], [1, 1]).ids) == MIN_SHARED_TOKENS + 2


def test_equal_rows_and_rows_that_begin_others_need_no_token() -> None:
    prompt = list(range(30))
    packed = pack([prompt, [*prompt, 4], prompt], [1, 2, 1])
    assert packed.ids.tolist() == [*prompt, 4]
    assert packed.tails.tolist() == [[29, 0], [29, 30], [29, 0]]


@pytest.mark.parametrize(("rows", "tails"), [([], []), ([[]], [1]), ([[1, 2]], [3]), ([[1]], [0])])
def test_rows_without_a_tail_are_refused(rows: list[list[int]], tails: list[int]) -> None:
    with pytest.raises(ValueError, match="each row needs at least one token"):
        pack(rows, tails)

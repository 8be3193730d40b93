from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from artsel_ray.decoding.base import Questions
from artsel_ray.decoding.freetext import FreeText, match, ngrams, overlap
from tests.support.engines import END, WritingEngine, ids, word_tokenizer
from tests.support.hostile import HOSTILE


def test_overlap_by_hand() -> None:
    # "a b" has the n-grams a, b, ab; "a b c" has a, b, c, ab, bc, abc: three are shared, 2*3/(3+6).
    assert overlap(ngrams("A b"), ngrams("a, b! c")) == 6 / 9


def test_the_most_similar_candidate_wins() -> None:
    assert match("two friends laughing by the sea", ["A red tower", "Two friends laugh by the sea"]) == 1


def test_a_tie_goes_to_the_first() -> None:
    assert match("tower", ["red tower", "old tower"]) == 0


def test_nothing_in_common_matches_nothing() -> None:
    assert match("", ["red tower"]) is None
    assert match("sea", ["red tower", ""]) is None
    assert match("sea", []) is None


def test_numbers_match_whole() -> None:
    assert match(" 1", [" 11", " 1"]) == 1


@given(st.lists(st.text(alphabet="abc ", max_size=12), min_size=1, max_size=6), st.data())
def test_a_candidate_written_out_is_found(candidates: list[str], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(candidates) - 1))
    found = match(candidates[index], candidates)
    assert found == (None if not candidates[index].split() else found)
    if found is not None:
        assert ngrams(candidates[found]) == ngrams(candidates[index])


@given(st.text(max_size=30), st.text(max_size=30))
def test_overlap_is_symmetric_and_bounded(first: str, second: str) -> None:
    assert 0 <= overlap(ngrams(first), ngrams(second)) == overlap(ngrams(second), ngrams(first)) <= 1


@settings(max_examples=500, deadline=None)
@given(HOSTILE, st.lists(HOSTILE, max_size=5))
def test_whatever_is_written_matches_a_candidate_or_nothing(written: str, candidates: list[str]) -> None:
    found = match(written, candidates)
    assert found is None or found in range(len(candidates))
    assert (found is None) == (not any(ngrams(written) & ngrams(candidate) for candidate in candidates))


def test_decode_asks_each_prompt_once_and_counts_what_matches_nothing() -> None:
    engine, shared = WritingEngine([[1, 2], [9], [2, 3]]), [[1, 2], [2, 3, 4]]
    images: list[Any] = [["a"], ["b"], ["c"]]
    choices = FreeText().decode(engine, Questions(word_tokenizer(), [ids(5), ids(6), ids(7)], [shared] * 3, images))
    assert (choices.candidates, choices.probabilities, choices.unmatched) == ([0, 0, 1], [None] * 3, 1)
    assert ([prompt for prompt, _ in engine.questions], engine.images) == ([[5], [6], [7]], images)
    assert FreeText().cost(shared, END) == (len(engine.questions) / 3, 0, 0)


def test_an_answer_may_be_as_long_as_the_longest_candidate_and_its_end() -> None:
    engine = WritingEngine([[1, 2, 3, 4, 5]])
    # Four tokens fit: the longest answer's three and an end. The cut text matches the second candidate.
    choices = FreeText().decode(engine, Questions(word_tokenizer(), [ids(5)], [[[5], [1, 2, 3]]]))
    assert choices.candidates == [1]


def test_what_is_written_does_not_depend_on_the_other_titles_of_a_shard() -> None:
    short, long = [[1, 2], [3, 4]], [[5], [5, 6, 7, 8, 9, 10, 11]]
    # Three tokens are the short title's own: what follows would be its second candidate.
    texts = [[1, 2, 9, 3, 4, 3, 4], [5]]
    alone = FreeText().decode(WritingEngine(texts[:1]), Questions(word_tokenizer(), [ids(5)], [short]))
    together = FreeText().decode(WritingEngine(texts), Questions(word_tokenizer(), [ids(5), ids(6)], [short, long]))
    assert alone.candidates == together.candidates[:1] == [0]

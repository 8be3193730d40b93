import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.data.images import ArtworkImage
from artsel_ray.engines import vllm as engines
from artsel_ray.engines.vllm import FakeEngine, Usage


def test_the_null_engine_answers_every_question_and_counts() -> None:
    engine = FakeEngine()
    short, long = np.array([1, 2], dtype=np.int32), np.array([1, 2, 3], dtype=np.int32)
    first = engine.logprobs([short, long], [[5, 6], [7]])
    assert [len(answer) for answer in first] == [2, 1]
    assert all((answer < 0).all() for answer in first)
    again = engine.logprobs([short], [[5, 6]])
    assert again[0].tolist() == first[0].tolist()
    assert engine.write([long], 2, []) == [[2, 3]]
    assert engine.take_usage() == Usage(prompt_tokens=2 + 3 + 2 + 3, decoded_tokens=4)
    assert engine.take_usage() == Usage()


def test_the_null_engine_can_take_the_time_that_what_is_new_would_take() -> None:
    engine = FakeEngine(tokens_per_second=1000.0)
    shared = np.arange(100, dtype=np.int32)
    prompts = [shared, np.append(shared[:90], -1), np.array([7], dtype=np.int32)]
    engine.logprobs(prompts, [[1]] * 3)
    usage = engine.take_usage()
    # The second prompt shares 90 tokens, of which 80 fill whole blocks.
    assert (usage.prompt_tokens, usage.cached_tokens) == (192, 80)
    assert usage.seconds >= 0.112


@given(st.lists(st.lists(st.integers(0, 600), min_size=1, max_size=200), max_size=60))
def test_a_part_of_the_prompts_shows_no_more_pictures_than_are_held(shown: list[list[int]]) -> None:
    pixels = np.zeros((1, 1, 3), dtype=np.uint8)
    images = [[ArtworkImage(pixels, str(number)) for number in each] for each in shown]
    parts = [shown[part] for part in engines._parts(images)]
    assert [each for part in parts for each in part] == shown
    for part in parts:
        assert len(part) == 1 or len({number for each in part for number in each}) <= engines._PICTURES_AT_ONCE

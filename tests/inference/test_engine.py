import numpy as np

from artsel_ray.inference.engine import NullEngine, Usage


def test_the_null_engine_answers_every_question_and_counts() -> None:
    engine = NullEngine()
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
    engine = NullEngine(tokens_per_second=1000.0)
    shared = np.arange(100, dtype=np.int32)
    prompts = [shared, np.append(shared[:90], -1), np.array([7], dtype=np.int32)]
    engine.logprobs(prompts, [[1]] * 3)
    usage = engine.take_usage()
    # The second prompt shares 90 tokens, of which 80 fill whole blocks.
    assert (usage.prompt_tokens, usage.cached_tokens) == (192, 80)
    assert usage.seconds >= 0.112

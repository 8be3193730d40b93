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

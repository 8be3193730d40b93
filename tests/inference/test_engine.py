from artsel_ray.inference.engine import NullEngine, Usage


def test_the_null_engine_answers_every_question_and_counts() -> None:
    engine = NullEngine()
    first = engine.logprobs([[1, 2], [1, 2, 3]], [[5, 6], [7]])
    assert [len(answer) for answer in first] == [2, 1]
    assert all((answer < 0).all() for answer in first)
    again = engine.logprobs([[1, 2]], [[5, 6]])
    assert again[0].tolist() == first[0].tolist()
    assert engine.write([[1, 2, 3]], 2, []) == [[2, 3]]
    assert engine.take_usage() == Usage(prompt_tokens=2 + 3 + 2 + 3, decoded_tokens=4)
    assert engine.take_usage() == Usage()

import numpy as np

from artsel_ray.engines.base import Usage
from artsel_ray.engines.fake import FakeEngine
from tests.support.engines import ids


def test_every_question_is_answered_and_counted() -> None:
    engine = FakeEngine()
    short, long = ids(1, 2), ids(1, 2, 3)
    first = engine.logprobs([short, long], [[5, 6], [7]])
    assert [len(answer) for answer in first] == [2, 1]
    assert all((answer < 0).all() for answer in first)
    again = engine.logprobs([short], [[5, 6]])
    assert again[0].tolist() == first[0].tolist()
    assert engine.generate([long], 2, []) == [[2, 3]]
    assert FakeEngine().generate([long], 1, []) == [[2]]
    usage = engine.usage.take()
    assert usage.seconds < 1
    usage.seconds = 0.0
    assert usage == Usage(prompt_tokens=2 + 3 + 2 + 3, decoded_tokens=4)
    assert engine.usage.take() == Usage()


def test_simulated_time_is_that_of_tokens_not_in_the_cache() -> None:
    engine = FakeEngine(tokens_per_second=1000.0)
    shared = np.arange(100, dtype=np.int32)
    prompts = [shared, np.append(shared[:90], -1).astype(np.int32), ids(7)]
    engine.logprobs(prompts, [[1]] * 3)
    usage = engine.usage.take()
    # The second prompt shares 90 tokens, of which 80 fill pages of 16.
    assert (usage.prompt_tokens, usage.cached_tokens) == (192, 80)
    assert usage.seconds >= 0.112

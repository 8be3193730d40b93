import time

from artsel_ray.engines.base import Usage, UsageCounter


def test_usage_adds_up_until_it_is_taken() -> None:
    counter = UsageCounter()
    for tokens in (2, 3):
        with counter.timed() as usage:
            usage.prompt_tokens += tokens
            usage.cached_tokens += 1
            time.sleep(0.01)
    taken = counter.take()
    assert (taken.prompt_tokens, taken.cached_tokens, taken.decoded_tokens) == (5, 2, 0)
    assert 0.02 <= taken.seconds < 1
    assert counter.take() == Usage()


def test_time_outside_of_calls_does_not_count() -> None:
    counter = UsageCounter()
    with counter.timed():
        pass
    time.sleep(0.05)
    assert counter.take().seconds < 0.05


def test_usage_taken_does_not_change_later() -> None:
    counter = UsageCounter()
    taken = counter.take()
    with counter.timed() as usage:
        usage.decoded_tokens += 1
    assert taken == Usage()

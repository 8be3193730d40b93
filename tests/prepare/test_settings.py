from typing import Any

import pytest

from artsel_ray.errors import InputError
from artsel_ray.prepare.settings import PrepareConfig


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"history_length": 0}, "--history-length is 0; it must be at least 1"),
        ({"train_size": 0}, "--train-size is 0; it must be at least 1"),
        ({"test_size": -1}, "--test-size is -1; it must be at least 0"),
        ({"buckets": 0}, "--buckets is 0; it must be at least 1"),
        ({"max_reject_rate": 10.0}, "--max-reject-rate is 10.0; it must be at most 1"),
        ({"max_reject_rate": -0.1}, "--max-reject-rate is -0.1; it must be at least 0"),
        ({"new_titles": 0.0}, "--new-titles is 0.0; it must be more than 0"),
        ({"new_titles": 1.0}, "--new-titles is 1.0; it must be less than 1"),
        ({"timezone": "Mars/Olympus"}, "--timezone is 'Mars/Olympus'; it must be an IANA time zone"),
        ({"timezone": "../etc"}, "--timezone is '../etc'; it must be an IANA time zone"),
    ],
)
def test_wrong_flags_are_named(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PrepareConfig(input="world", output="out", **flags)

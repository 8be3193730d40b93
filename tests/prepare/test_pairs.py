"""Pairs and histories equal those of a plain Python loop."""

from hypothesis import given, settings
from hypothesis import strategies as st

from artsel_ray.prepare.pairs import find_pairs
from tests.prepare.events import CATALOG, FILES, impressions_table, interactions_table

# user, title, time, watch; few values, so that ties and repeated rows are frequent.
_INTERACTION = st.tuples(st.sampled_from("xy"), st.integers(0, 1), st.integers(0, 6), st.sampled_from([None, 1.0, 2.0]))
# user, title, label, time, engaged, propensity
_IMPRESSION = st.tuples(
    st.sampled_from("xyz"),
    st.integers(0, 1),
    st.integers(0, 1),
    st.integers(0, 6),
    st.booleans(),
    st.sampled_from([None, 0.5]),
)


def _by_hand(interactions: list[tuple], impressions: list[tuple], length: int) -> tuple[dict, int, int, int]:
    """Returns history by pair with label, and the numbers of repeated, empty and duplicate impressions."""
    events = list(dict.fromkeys(interactions))
    shown = list(dict.fromkeys(impressions))
    found: dict[tuple, tuple] = {}
    seen, repeated, empty = set(), 0, 0
    for user, title, label, time, engaged, _ in sorted(shown, key=lambda row: row[3]):
        if not engaged:
            continue
        if (user, title) in seen:
            repeated += 1
            continue
        seen.add((user, title))
        before = sorted((e for e in events if e[0] == user and e[2] < time), key=lambda e: e[2])[-length:]
        if before:
            found[user, title] = (label, time, [(e[2], e[1], e[3]) for e in before])
        else:
            empty += 1
    return found, repeated, empty, len(impressions) - len(shown)


@settings(max_examples=300, deadline=None)
@given(st.lists(_INTERACTION, max_size=25), st.lists(_IMPRESSION, max_size=15), st.integers(1, 4))
def test_pairs_equal_a_plain_loop(interactions: list[tuple], impressions: list[tuple], length: int) -> None:
    found = find_pairs(interactions_table(interactions), impressions_table(impressions), FILES, CATALOG, length)
    expected, repeated, empty, duplicates = _by_hand(interactions, impressions, length)
    events = [
        (row["timestamp"].microsecond, row["title"], row["watch_seconds"]) for row in found.interactions.to_pylist()
    ]
    pairs = {
        (row["user_id"], row["title"]): (row["label"], row["timestamp"].microsecond, events[row["start"] : row["end"]])
        for row in found.pairs.to_pylist()
    }
    assert pairs == expected
    assert found.repeated == repeated
    reasons = [(row["table"], row["column"]) for row in found.invalid.to_pylist()]
    assert reasons.count(("impressions", "timestamp")) == empty
    assert reasons.count(("impressions", "row")) == duplicates
    assert reasons.count(("interactions", "row")) == len(interactions) - len(set(interactions))
    accounted = len(pairs) + repeated + found.not_engaged + empty + duplicates
    assert accounted == len(impressions)


def test_interaction_at_the_time_of_the_impression_is_not_history() -> None:
    impressions = impressions_table([("x", 0, 1, 3, True, 0.5)])
    found = find_pairs(interactions_table([("x", 1, 3, 1.0)]), impressions, FILES, CATALOG, 5)
    assert found.pairs.num_rows == 0
    (row,) = found.invalid.to_pylist()
    assert (row["file"], row["row"], row["column"]) == ("e.parquet", 0, "timestamp")
    assert (row["user_id"], row["title_id"], row["artwork_id"]) == ("x", "t0", "a1")

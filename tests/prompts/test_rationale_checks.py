import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.prompts.rationale_checks import OTHER_CANDIDATE, OTHER_HISTORY, Names, find_fault

NAMES = Names(["Heat", "It", "The Third Man", "Alien", "Alien Resurrection", "¿Qué?", "the lobster", "<b>Up</b>", " "])
OWN = "New title: Up (Comedy)\nAvailable artworks:\n\nWatch history:\n- 2024-05-01: The Third Man (Film-Noir)"
CAPTIONS = ["A lone rider crosses a rope bridge over a deep canyon.", "Two lovers share one umbrella in the rain."]
WORD = st.text(string.ascii_lowercase, min_size=2, max_size=8)


def fault(reason: str, chosen: int = 0) -> str | None:
    return find_fault(reason, OWN, CAPTIONS, chosen, NAMES)


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        (None, "They like quiet films."),
        (None, "They watched The Third Man, so shadows suit them."),
        (None, "It shows an adventure. It is bright. Heat matters little to them."),
        (None, "They like heat and the third man in a line."),
        (OTHER_HISTORY, "They liked Heat, so crime suits them."),
        (OTHER_HISTORY, "They enjoyed It (2017)."),
        (OTHER_HISTORY, "Alien Resurrection shows that they like fear."),
        (OTHER_HISTORY, "After The Third Man, Alien."),
        (None, "The rider fits: a lone rider crosses a rope bridge, as in their films."),
        (OTHER_CANDIDATE, "They prefer this to two lovers share one umbrella in the rain."),
        (OTHER_CANDIDATE, "Option 2 is for romantics."),
        (OTHER_CANDIDATE, "The second artwork is for romantics."),
    ],
)
def test_what_must_not_be_shown(expected: str | None, reason: str) -> None:
    assert fault(reason) == expected


def test_what_a_caption_says_may_be_said_of_the_one_that_was_chosen() -> None:
    reason = "They like how two lovers share one umbrella."
    assert (fault(reason, chosen=1), fault(reason, chosen=0)) == (None, OTHER_CANDIDATE)


def test_no_names_and_no_words() -> None:
    assert Names([]).found("Anything At All") == set()
    assert find_fault("", "", ["a"], 0, NAMES) is None


@given(st.lists(WORD, max_size=8), st.lists(WORD.map(str.title), min_size=2, max_size=4), st.lists(WORD, max_size=8))
def test_a_strangers_title_is_found_wherever_it_stands_and_ones_own_never(
    before: list[str], title: list[str], after: list[str]
) -> None:
    name = " ".join(title)
    reason = " ".join([*before, name, *after])
    assert find_fault(reason, "nothing", ["x", "y"], 0, Names([name])) == OTHER_HISTORY
    assert find_fault(reason, f"- 2024-05-01: {name} (Drama)", ["x", "y"], 0, Names([name])) is None

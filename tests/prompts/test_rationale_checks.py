import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.prompts.rationale_checks import OTHER_CANDIDATE, OTHER_HISTORY, Names, find_fault

NAMES = Names(["Heat", "It", "The Third Man", "Alien", "Alien Resurrection", "¿Qué?", "the lobster", "<b>Up</b>", " "])
SHOWN = "New title: Up (Comedy)\nAvailable artworks:\n\nWatch history:\n- 2024-05-01: The Third Man (Film-Noir)"
CAPTIONS = ["A lone rider crosses a rope bridge over a deep canyon.", "Two lovers share one umbrella in the rain."]
WORD = st.text(string.ascii_lowercase, min_size=2, max_size=8)


def fault(rationale: str, chosen: int = 0) -> str | None:
    return find_fault(rationale, SHOWN, CAPTIONS, chosen, NAMES)


@pytest.mark.parametrize(
    ("expected", "rationale"),
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
def test_faults_by_example(expected: str | None, rationale: str) -> None:
    assert fault(rationale) == expected


def test_the_chosen_caption_may_be_quoted() -> None:
    rationale = "They like how two lovers share one umbrella."
    assert (fault(rationale, chosen=1), fault(rationale, chosen=0)) == (None, OTHER_CANDIDATE)


def test_empty_names_and_texts() -> None:
    assert Names([]).found("Anything At All") == set()
    assert find_fault("", "", ["a"], 0, NAMES) is None


@given(st.lists(WORD, max_size=8), st.lists(WORD.map(str.title), min_size=2, max_size=4), st.lists(WORD, max_size=8))
def test_another_users_title_is_found_anywhere_and_the_users_own_never(
    before: list[str], title: list[str], after: list[str]
) -> None:
    name = " ".join(title)
    rationale = " ".join([*before, name, *after])
    assert find_fault(rationale, "nothing", ["x", "y"], 0, Names([name])) == OTHER_HISTORY
    assert find_fault(rationale, f"- 2024-05-01: {name} (Drama)", ["x", "y"], 0, Names([name])) is None

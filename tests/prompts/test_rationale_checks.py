import string
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from artsel_ray.prompts.escaping import escape
from artsel_ray.prompts.rationale_checks import (
    ANSWER,
    CHOICE,
    LEAKS,
    MARKUP,
    OPTION,
    OTHER_CANDIDATE,
    OTHER_HISTORY,
    QUOTE,
    Names,
    find_fault,
    find_leak,
)  # fmt: skip

CAPTION = "A tall red tower stands alone against a stormy sky while lightning strikes behind it."
QUOTED_WORDS = 8
WORD = st.text(string.ascii_letters + "äßЖ日", min_size=1, max_size=7)
BETWEEN = st.sampled_from([" ", ", ", "... ", "\n", " – "])


def leak(rationale: str, caption: str = CAPTION) -> str | None:
    return find_leak(escape(rationale), caption, QUOTED_WORDS)


@pytest.mark.parametrize(
    ("kind", "rationale"),
    [
        (MARKUP, "It shows <option> what they like"),
        (MARKUP, "Dark films suit them.<|im_end|>"),
        (OPTION, "They like storms, so option 3 fits."),
        (OPTION, "Option No. 12 is dark"),
        (OPTION, "Candidate B is dark"),
        (OPTION, "choice two is dark"),
        (OPTION, "the third artwork has a storm"),
        (OPTION, "the last one has a storm"),
        (OPTION, "Artwork #2 is dark"),
        (OPTION, "Image 4 is dark"),
        (ANSWER, "This is the correct answer because of storms"),
        (ANSWER, "It matches the ground-truth"),
        (ANSWER, "The provided artwork is dark"),
        (ANSWER, "As told, storms suit them"),
        (ANSWER, "I was told that they like storms"),
        (CHOICE, "The user chose this for its storm"),
        (CHOICE, "the user most likely picked it for its storm"),
        (CHOICE, "It was chosen for its storm"),
        (CHOICE, "The chosen artwork is dark"),
        (CHOICE, "The user’s choice is dark"),
        (CHOICE, "They liked this one the most for its storm"),
        (CHOICE, "The user liked this artwork because it is dark"),
        (CHOICE, "The user enjoyed the image of a storm"),
        (CHOICE, "This user likes this artwork for its storm"),
        (CHOICE, "The user prefers the following artwork: a storm"),
        (QUOTE, f"They like: {CAPTION}"),
        (QUOTE, "Storms! TALL, red tower stands alone   against a stormy (scene)"),
    ],
)
def test_a_rationale_that_gives_the_answer_away_is_found(kind: str, rationale: str) -> None:
    assert leak(rationale) == kind


@pytest.mark.parametrize(
    "rationale",
    [
        "",
        "The user has watched six dark thrillers in a row, and a lone tower in a storm promises the same tension.",
        "After Heat (1995) and Alien 3, somebody who loves crime and tension enjoys an image of menace.",
        "They have watched one comedy only; solitude and danger appeal to them more than a laughing couple does.",
        "A tall red tower stands out to somebody who likes lonely places.",  # five words in a row
        "They would like the artwork with the tower, because they liked the dark images of westerns.",
        "First, this person watches westerns; second, they finish them. One can expect a taste for open skies.",
        "Two friends would bore this viewer: choices like Up and Cars ended after ten minutes.",
    ],
)
def test_a_rationale_that_explains_is_no_leak(rationale: str) -> None:
    assert leak(rationale) is None


def test_a_short_caption_is_quoted_by_all_its_words_but_not_by_fewer_than_four() -> None:
    assert leak("Someone who likes a lonely house, would like it", "A lonely, old house") is None
    assert leak("Someone who likes a lonely old house would like it", "A lonely, old house") == QUOTE
    assert leak("Someone who likes a red tower would like it", "A red tower") is None
    assert find_leak("a red tower", "A red tower", quoted_words=3) == QUOTE


@given(
    st.lists(WORD, min_size=QUOTED_WORDS, max_size=20), st.integers(0, 12), st.lists(WORD, max_size=6), BETWEEN,
    st.booleans(),
)  # fmt: skip
def test_a_long_run_of_the_caption_is_always_found(
    caption: list[str], start: int, around: list[str], between: str, upper: bool
) -> None:
    start = min(start, len(caption) - QUOTED_WORDS)
    run = between.join(caption[start : start + QUOTED_WORDS])
    rationale = " ".join([*around, run.upper() if upper else run, *around])
    assert leak(rationale, " ".join(caption)) is not None


@given(st.lists(WORD, max_size=30), st.lists(WORD, min_size=1, max_size=30))
def test_a_run_shorter_than_the_limit_is_never_a_quote(other: list[str], caption: list[str]) -> None:
    # Every eighth word is one that no caption has, so that no run of eight can be the caption's.
    broken = [word if index % QUOTED_WORDS else f"9{index}" for index, word in enumerate(other)]
    assert leak(" ".join(broken), " ".join([*caption, *caption, "end"] * 3)) != QUOTE


@given(st.text(max_size=200), st.text(max_size=80))
@example("0:0:0\U00018cd600", "0:0:0\U00018cd60\U000e00000")
def test_escaping_does_not_change_the_kind_of_any_text(rationale: str, caption: str) -> None:
    found = leak(rationale, caption)
    assert found is None or found in LEAKS
    assert leak(escape(rationale), escape(caption)) == found


@given(st.sampled_from(["option 3", "the correct answer", "the user chose"]), st.text(max_size=60))
def test_pointing_is_found_anywhere(pointing: str, around: str) -> None:
    assert leak(f"{around} {pointing} {around}") is not None


@pytest.mark.parametrize("unit", ["the user ", "option ", "they a b c ", "liked this x ", "a " * 9, "# ", "‹ "])
def test_time_grows_with_the_length_alone(unit: str) -> None:
    started = time.perf_counter()
    leak(unit * 20_000)
    assert time.perf_counter() - started < 5


NAMES = Names(["Heat", "It", "The Third Man", "Alien", "Alien Resurrection", "¿Qué?", "the lobster", "<b>Up</b>", " "])
SHOWN = "New title: Up (Comedy)\nAvailable artworks:\n\nWatch history:\n- 2024-05-01: The Third Man (Film-Noir)"
CAPTIONS = ["A lone rider crosses a rope bridge over a deep canyon.", "Two lovers share one umbrella in the rain."]
NAME_WORD = st.text(string.ascii_lowercase, min_size=2, max_size=8)


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


@given(
    st.lists(NAME_WORD, max_size=8),
    st.lists(NAME_WORD.map(str.title), min_size=2, max_size=4),
    st.lists(NAME_WORD, max_size=8),
)
def test_another_users_title_is_found_anywhere_and_the_users_own_never(
    before: list[str], title: list[str], after: list[str]
) -> None:
    name = " ".join(title)
    rationale = " ".join([*before, name, *after])
    assert find_fault(rationale, "nothing", ["x", "y"], 0, Names([name])) == OTHER_HISTORY
    assert find_fault(rationale, f"- 2024-05-01: {name} (Drama)", ["x", "y"], 0, Names([name])) is None

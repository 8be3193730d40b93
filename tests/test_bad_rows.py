"""Every kind of invalid row of every table, among valid rows in a Parquet file, through the reader of each job."""

import datetime
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray import schema, storage
from artsel_ray.config import DEFAULT_LIMITS, RowLimits
from artsel_ray.data import shuffle
from artsel_ray.data.catalog import read_catalog
from artsel_ray.data.checked_reader import group_ranges, read_table, row_ranges
from artsel_ray.data.footers import read_footers
from artsel_ray.distill.prompts import TeacherPrompts
from artsel_ray.distill.questions import TeacherSettings, prepare_shard
from artsel_ray.distill.rationales import explain_shard
from artsel_ray.engines.base import UsageCounter
from artsel_ray.errors import InputError
from artsel_ray.evaluate.choices import read_choices
from artsel_ray.evaluate.example_table import read_examples
from artsel_ray.models.load import Model
from artsel_ray.network.example_arrays import read_example_arrays
from artsel_ray.prepare import splits
from artsel_ray.prepare.examples import bucket_examples
from artsel_ray.prepare.pairs import bucket_pairs, partition_slice
from artsel_ray.prepare.plan import Counts, Plan, Slice
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.score.answer_spec import AnswerSpec
from artsel_ray.score.assignment import assign_titles, count_titles
from artsel_ray.score.rendering import ShardSource, prompt_tokenizer, render_shard
from artsel_ray.score.requests import shuffle_previous, shuffle_requests
from artsel_ray.train.reading import read_train
from artsel_ray.train.validation import read_validation

Row = dict[str, Any]
Outcome = tuple[Any, list[Row], int]
"""The valid rows as read, the invalid rows, and the number of all rows (for requests: pairs)."""
Read = Callable[[Path], Outcome]

# Replaced in the file by as many bytes that are not UTF-8.
BROKEN, BYTES = "@@broken@@", b"\xff\xc3(oken\xed\xa0\x80"
DAY = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
LATE = datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC)
NAN = float("nan")
ITEM: Row = {"timestamp": DAY, "title_name": "Heat", "genres": ["Crime"], "watch_seconds": 60.0}
CANDIDATES = [{"artwork_id": f"t0-{i}", "caption": caption} for i, caption in enumerate(["A red tower.", "The sea."])]
CHOSEN = [{"artwork_id": f"t0-{i}", "probability": 0.5} for i in (0, 1)]


def title(number: int = 9, **changes: Any) -> Row:
    return {
        "title_id": f"t{number}",
        "name": f"Name {number}",
        "year": 1999,
        "genres": ["Crime"],
        "synopsis": None,
    } | changes


def artwork(number: int = 9, **changes: Any) -> Row:
    row = {"artwork_id": f"t0-{number}", "title_id": "t0", "caption": f"Caption {number}.", "image_uri": None}
    return row | changes


def watched(number: int = 9, **changes: Any) -> Row:
    return {"user_id": f"u{number}", "title_id": "t1", "timestamp": DAY, "watch_seconds": 60.0} | changes


def shown(number: int = 9, **changes: Any) -> Row:
    later = DAY + datetime.timedelta(days=1)
    row = {"user_id": f"u{number}", "title_id": "t0", "artwork_id": "t0-1", "timestamp": later, "engaged": True}
    return row | {"propensity": 0.5} | changes


def request(number: int = 9, **changes: Any) -> Row:
    return {"user_id": f"u{number}", "history": [ITEM, ITEM], "title_ids": ["t0"]} | changes


def example(number: int = 9, **changes: Any) -> Row:
    return {
        "example_id": f"e{number}", "user_id": f"u{number}", "title_id": "t0", "title_name": "Up",
        "title_genres": ["Comedy"], "history": [ITEM], "candidates": CANDIDATES, "label": 1, "propensity": 0.5,
        "timestamp": DAY, "rationale": None,
    } | changes  # fmt: skip


def prediction(number: int = 9, **changes: Any) -> Row:
    return {
        "user_id": f"u{number}", "title_id": "t0", "artwork_id": "t0-1", "probability": 0.5, "propensity": None,
        "candidates": CHOSEN, "rationale": None, "model_id": "m", "fingerprint": "f", "scored_at": DAY,
    } | changes  # fmt: skip


MAKE: dict[str, Callable[..., Row]] = {
    "titles": title, "artworks": artwork, "interactions": watched, "impressions": shown, "requests": request,
    "examples": example, "predictions": prediction,
}  # fmt: skip


def item(**changes: Any) -> Row:
    return {"history": [ITEM, ITEM | changes]}


def candidate(**changes: Any) -> Row:
    return {"candidates": [CANDIDATES[0], CANDIDATES[1] | changes]}


TEXT, MISSING, UNKNOWN = "not valid UTF-8", "missing", "unknown title"
WATCH, LABEL = "an item's watch time is negative or not a number", "not one of the candidates"
NO_CANDIDATES, REPEATED, LONG = (
    "the title has no candidate with a caption",
    "the pair was asked for before",
    "without any history the prompt exceeds 512 tokens",
)
# Reasons that a pair of a request is invalid, not the complete row.
PAIRS = (UNKNOWN, NO_CANDIDATES, REPEATED, LONG)
BAD_HISTORIES: list[tuple[Row, str, str]] = [
    (item(title_name=BROKEN), "history", TEXT),
    (item(genres=["Crime", BROKEN]), "history", TEXT),
    (item(title_name=None), "history", "an item without a title's name"),
    ({"history": [ITEM, None]}, "history", "an item without a title's name"),
    (item(genres=["Crime", None]), "history", "an item with null among the genres"),
    (item(watch_seconds=-1.0), "history", WATCH),
    (item(watch_seconds=NAN), "history", WATCH),
]
BAD_EXAMPLES: list[tuple[Row, str, str]] = [
    *(({name: BROKEN}, name, TEXT) for name in ("user_id", "title_id")),
    (candidate(artwork_id=BROKEN), "candidates", TEXT),
    ({"user_id": None}, "user_id", MISSING),
    ({"title_id": " "}, "title_id", MISSING),
    ({"label": -1}, "label", LABEL),
    ({"label": 2}, "label", LABEL),
    ({"label": None}, "label", LABEL),
]
KINDS: dict[str, list[tuple[Row, str, str]]] = {
    "titles": [
        *(({name: BROKEN}, name, TEXT) for name in ("title_id", "name")),
        ({"genres": ["Crime", BROKEN]}, "genres", TEXT),
        *(({name: None}, name, MISSING) for name in ("title_id", "name", "genres")),
        ({"name": "\u3000"}, "name", MISSING),
        ({"genres": ["Crime", None]}, "genres", "null among the genres"),
        ({"title_id": "t0"}, "title_id", "repeated id; the first row is kept"),
    ],
    "artworks": [
        *(({name: BROKEN}, name, TEXT) for name in ("artwork_id", "title_id", "caption")),
        *(({name: None}, name, MISSING) for name in ("artwork_id", "title_id", "caption")),
        ({"caption": " \n"}, "caption", MISSING),
        ({"title_id": "t7"}, "title_id", UNKNOWN),
        ({"artwork_id": "t0-0"}, "artwork_id", "repeated id; the first row is kept"),
    ],
    "interactions": [
        *(({name: BROKEN}, name, TEXT) for name in ("user_id", "title_id")),
        *(({name: None}, name, MISSING) for name in ("user_id", "title_id", "timestamp")),
        ({"title_id": "t7"}, "title_id", UNKNOWN),
        ({"timestamp": LATE}, "timestamp", "later than now"),
        *(({"watch_seconds": value}, "watch_seconds", "negative or not a number") for value in (-1.0, NAN, 1e300)),
        (watched(0), "row", "the same as an earlier row"),
    ],
    "impressions": [
        *(({name: BROKEN}, name, TEXT) for name in ("user_id", "title_id", "artwork_id")),
        *(({name: None}, name, MISSING) for name in ("user_id", "title_id", "artwork_id", "timestamp", "engaged")),
        ({"title_id": "t7"}, "title_id", UNKNOWN),
        ({"title_id": "t2"}, "title_id", "the title has no candidates"),
        ({"artwork_id": "t1-0"}, "artwork_id", "not among the title's candidates"),
        ({"timestamp": LATE}, "timestamp", "later than now"),
        *(({"propensity": value}, "propensity", "not in (0, 1]") for value in (0.0, -0.5, 1.5, NAN)),
        (shown(0), "row", "the same as an earlier row"),
        ({}, "timestamp", "empty history: no interaction before the impression"),
    ],
    "requests": [
        ({"user_id": BROKEN}, "user_id", TEXT),
        ({"title_ids": ["t0", BROKEN]}, "title_ids", TEXT),
        *BAD_HISTORIES,
        ({"user_id": None}, "user_id", MISSING),
        ({"title_ids": None}, "title_ids", "no title is asked for"),
        ({"title_ids": []}, "title_ids", "no title is asked for"),
        (item(timestamp=LATE), "history", "an interaction later than now"),
        (item(timestamp=DAY - datetime.timedelta(1)), "history", "not in order of time, newest last"),
        *(({"title_ids": [value]}, "title_ids", UNKNOWN) for value in ("t7", None)),
        ({"title_ids": ["t2"]}, "title_ids", NO_CANDIDATES),
        (request(0), "title_ids", REPEATED),
        ({"title_ids": ["t3"]}, "title_ids", LONG),
    ],
    "examples, evaluate": [
        *BAD_EXAMPLES,
        ({"candidates": None}, "candidates", "no candidate"),
        ({"candidates": []}, "candidates", "no candidate"),
        (candidate(artwork_id=None), "candidates", "a candidate without an id"),
    ],
    "examples, baseline": [
        *BAD_EXAMPLES,
        (candidate(artwork_id=None), "candidates", "a candidate without an id"),
        ({"title_name": BROKEN}, "title_name", TEXT),
        ({"title_name": ""}, "title_name", MISSING),
        ({"timestamp": None}, "timestamp", MISSING),
        ({"title_genres": [None]}, "title_genres", "null among the genres"),
        (candidate(caption=BROKEN), "candidates", TEXT),
        *BAD_HISTORIES,
    ],
    "examples, distill": [
        *(each for each in BAD_EXAMPLES if each[0] != {"label": None}),
        *(({name: BROKEN}, name, TEXT) for name in ("example_id", "title_name", "rationale")),
        *(({name: None}, name, MISSING) for name in ("example_id", "title_name", "title_genres", "history", "label")),
        ({"candidates": None}, "candidates", MISSING),
        ({"title_genres": ["Comedy", BROKEN]}, "title_genres", TEXT),
        ({"title_genres": [None]}, "title_genres", "null among the genres"),
        ({"propensity": 1.5}, "propensity", "not in (0, 1]"),
        (candidate(caption=BROKEN), "candidates", TEXT),
        (candidate(caption=None), "candidates", "a candidate without a caption"),
        *BAD_HISTORIES,
    ],
    "predictions, evaluate": [
        *(({name: BROKEN}, name, TEXT) for name in ("user_id", "title_id", "artwork_id")),
        *(({name: None}, name, MISSING) for name in ("user_id", "title_id", "artwork_id")),
        *(({"probability": value}, "probability", "not in [0, 1]") for value in (-0.1, 1.1, NAN)),
    ],
    "predictions, previous": [
        *(({name: BROKEN}, name, TEXT) for name in ("user_id", "artwork_id", "rationale", "model_id", "fingerprint")),
        *(({name: None}, name, MISSING) for name in ("user_id", "title_id", "artwork_id", "model_id", "fingerprint")),
        ({"scored_at": None}, "scored_at", MISSING),
        ({"probability": NAN}, "probability", "not in [0, 1]"),
        ({"propensity": 0.0}, "propensity", "not in (0, 1]"),
        ({"candidates": [{"artwork_id": BROKEN, "probability": 0.5}]}, "candidates", TEXT),
        ({"candidates": [{"artwork_id": None, "probability": 0.5}]}, "candidates", "a candidate without an id"),
        ({"candidates": [{"artwork_id": "t0-0", "probability": NAN}]}, "candidates", "a probability not in [0, 1]"),
    ],
}  # fmt: skip


def write(folder: Path, name: str, rows: list[Row]) -> None:
    """Writes one uncompressed file, in which BROKEN becomes text that is not UTF-8."""
    fields = [field.with_nullable(True) for field in schema.TABLES[name]]
    if name == "interactions":  # a double that no float holds comes as one
        fields[3] = fields[3].with_type(pa.float64())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), sink, compression="none", row_group_size=3)
    content = sink.getvalue().to_pybytes().replace(BROKEN.encode(), BYTES)
    storage.write_object(str(folder / name / "part-0.parquet"), content)


def write_world(folder: Path, bad: dict[str, Row]) -> None:
    """Writes all tables with four valid rows, and in some an invalid row after the first."""
    rows = {name: [make(number) for number in range(4)] for name, make in MAKE.items()}
    rows["artworks"] = [artwork(0), artwork(1), artwork(0, artwork_id="t1-0", title_id="t1")]
    rows["artworks"].append(artwork(0, artwork_id="t3-0", title_id="t3", caption="word " * 600))
    for name, row in bad.items():
        rows[name].insert(1, row)
    for name, each in rows.items():
        write(folder, name, each)


def files(folder: Path, name: str) -> list[str]:
    return storage.list_files(str(folder / name))


def catalog_of(folder: Path) -> Any:
    return read_catalog(files(folder, "titles"), files(folder, "artworks"))


def read_titles(folder: Path) -> Outcome:
    catalog, invalid = catalog_of(folder)
    kept = [each.to_pylist() for each in (catalog.title_ids, catalog.names, catalog.genres)]
    return kept, invalid.to_pylist(), len(kept[0]) + invalid.num_rows


def read_artworks(folder: Path) -> Outcome:
    catalog, invalid = catalog_of(folder)
    kept = [catalog.artwork_ids.to_pylist(), catalog.contents.to_pylist()]
    return kept, invalid.to_pylist(), len(kept[0]) + invalid.num_rows


def invalid_rows(folder: Path) -> list[Row]:
    return [row for file in storage.find_files(str(folder)) for row in read_table(file, "invalid_rows").to_pylist()]


def read_logs(folder: Path, table: str) -> Outcome:
    """Runs the three stages of prepare, one after the other."""
    logs = {name: files(folder, name) for name in ("interactions", "impressions")}
    slices = [
        *(Slice("interactions", (part,)) for part in group_ranges(read_footers(logs["interactions"]), 1 << 20)),
        *(Slice("impressions", (part,)) for part in group_ranges(read_footers(logs["impressions"]), 1 << 20)),
    ]
    now_us = int(datetime.datetime.now(datetime.UTC).timestamp() * 1e6)
    plan = Plan(str(folder / "out"), logs, slices, 1, 5, "hash", 0, now_us)
    catalog, _ = catalog_of(folder)
    counts = Counts()
    for number in range(len(slices)):
        counts.update(partition_slice(plan, catalog, number)[0])
    found, keys_g = bucket_pairs(plan, catalog, 0)
    sizes_g = splits.allot_groups([found["pairs"], 0, 0], 100, 0, 0)
    last_g = [splits.last_keys(keys, sizes) for keys, sizes in zip(keys_g, sizes_g, strict=True)]
    counts.update(found)
    counts.update(bucket_examples(plan, catalog, last_g, 0))
    invalid = invalid_rows(folder / "out/rejected")
    kept = read_table(str(folder / "out/examples/train"), "examples").to_pylist()
    assert len(invalid) == sum(counts[name] for name in counts if name.startswith("rejected/"))
    impressions = len(kept) + sum(counts[name] for name in counts if name.startswith("rejected/impressions"))
    interactions = 4 + sum(counts[name] for name in counts if name.startswith("rejected/interactions"))
    return kept, invalid, {"interactions": interactions, "impressions": impressions}[table]


RENDERING = AnswerSpec("smollm2", "smollm2@x", PromptSpec(), 512, "choose")


def read_requests(folder: Path) -> Outcome:
    """Shuffles and renders, as scoring does before its engine."""
    asked = files(folder, "requests")
    assignment = assign_titles(count_titles(asked[0]), 100, {})
    shuffled = shuffle_requests(asked, range(0, 1), assignment, str(folder / "work"), str(folder / "rejected"))
    catalog, _ = catalog_of(folder)
    shard = render_shard(0, ShardSource(shuffled.uris, [], asked, catalog), RENDERING)
    rows = invalid_rows(folder / "rejected")
    kept = [shard.sources["user_id"].to_pylist(), shard.histories.to_pylist(), shard.fingerprints]
    assert shuffled.rejected_rows == len(rows)
    pairs = int(shard.counts["pairs"] + shard.counts["rejected"]) + shuffled.rejected_pairs
    return kept, rows + shard.invalid.to_pylist(), pairs


def read_evaluated(folder: Path) -> Outcome:
    table = read_examples(str(folder / "examples"))
    kept = [table.users.to_pylist(), table.examples.position_n.tolist(), table.examples.candidates_n.tolist()]
    return kept, table.invalid.to_pylist(), len(table.pair_n) + table.invalid.num_rows


def read_features(folder: Path) -> Outcome:
    rows = read_example_arrays(str(folder / "examples"))
    kept = [rows.user_ids.to_pylist(), rows.label_n.tolist(), rows.captions.to_pylist(), rows.genres.to_pylist()]
    return kept, rows.invalid.to_pylist(), len(rows.label_n) + rows.invalid.num_rows


class Teacher:
    """Generates the same rationale for every prompt, and prefers the last candidate."""

    usage = UsageCounter()

    def generate(
        self, prompts: Any, max_tokens: int, stop: Any, sampling: Any = None, images: Any = ()
    ) -> list[list[int]]:
        rationale = "Calm films about open water suit somebody with this history."
        return prompt_tokenizer("smollm2", PromptSpec(reason=True)).encode([rationale] * len(prompts))

    def logprobs(self, prompts: Any, allowed: Sequence[list[int]], images: Any = ()) -> list[np.ndarray]:
        tokenizer = prompt_tokenizer("smollm2", PromptSpec(reason=True)).tokenizer
        words = [[str(tokenizer.decode(token)) for token in ids] for ids in allowed]
        return [np.array([float("sea" in word or " The" in word) for word in each]) for each in words]


def read_explained(folder: Path) -> Outcome:
    teacher = TeacherSettings(
        "smollm2", "m", PromptSpec(reason=True), 0.6, 0.95, 0, 7, 64, 2048, min_words=5, quoted_words=6
    )
    asked = files(folder, "examples")
    prompts = TeacherPrompts(prompt_tokenizer("smollm2", teacher.spec))
    (rows,) = row_ranges(asked, "examples", 10_000)
    explained = explain_shard(prepare_shard(asked, rows, prompts, teacher), asked, Teacher(), prompts, teacher)
    examples = int(explained.counts["kept"] + explained.counts["rejected"])
    return explained.rows.to_pylist(), explained.invalid.to_pylist(), examples


def read_predicted(folder: Path) -> Outcome:
    write(folder / "of", "examples", [example(number) for number in range(4)])
    choices = read_choices(str(folder / "predictions"), read_examples(str(folder / "of/examples")))
    kept = [choices.artwork_n.tolist(), choices.probability_n.tolist(), choices.missing_n.tolist()]
    return kept, choices.invalid.to_pylist(), len(choices.artwork_n) + choices.other + choices.invalid.num_rows


def read_previous(folder: Path) -> Outcome:
    uri, invalid = str(folder / "previous.arrow"), str(folder / "rejected.parquet")
    assignment = assign_titles(count_titles(files(folder, "requests")[0]), 100, {})
    left_out = shuffle_previous(files(folder, "predictions"), uri, assignment, invalid, DEFAULT_LIMITS)
    kept = shuffle.read_partition([uri], 0).to_pylist()
    return kept, invalid_rows(Path(invalid)), len(kept) + left_out


READ: dict[str, Read] = {
    "titles": read_titles,
    "artworks": read_artworks,
    "interactions": lambda folder: read_logs(folder, "interactions"),
    "impressions": lambda folder: read_logs(folder, "impressions"),
    "requests": read_requests,
    "examples, evaluate": read_evaluated,
    "examples, baseline": read_features,
    "examples, distill": read_explained,
    "predictions, evaluate": read_predicted,
    "predictions, previous": read_previous,
}
CASES = [
    pytest.param(reader, *kind, id=f"{reader}, {kind[1]}: {kind[2]} {number}")
    for reader, kinds in KINDS.items()
    for number, kind in enumerate(kinds)
]


@pytest.fixture(scope="module")
def good_rows(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome]:
    """What each reader returns for a world without invalid rows, read once."""
    folder = tmp_path_factory.mktemp("good")
    write_world(folder, {})
    return lru_cache(lambda reader: READ[reader](folder))


@pytest.mark.parametrize(("reader", "changes", "column", "reason"), CASES)
def test_invalid_row_is_rejected_and_valid_rows_are_kept(
    tmp_path: Path,
    smollm2: Model,
    good_rows: Callable[[str], Outcome],
    reader: str,
    changes: Row,
    column: str,
    reason: str,
) -> None:
    table, bad = reader.partition(",")[0], MAKE[reader.partition(",")[0]](**changes)
    if table == "impressions" and "empty history" not in reason:
        bad = MAKE[table](**({"user_id": "u3"} | changes))  # a user with a history
    write_world(tmp_path, {table: bad})
    kept, nothing, count = good_rows(reader)
    kept_again, invalid, count_of_all = READ[reader](tmp_path)
    assert nothing == []
    assert kept_again == kept
    assert count_of_all == count + max(1, len(bad.get("title_ids") or []))
    source = {"table": table, "file": files(tmp_path, table)[0], "row": 1, "column": column, "reason": reason}
    ids = {name: bad.get(name) for name in ("user_id", "title_id", "artwork_id")}
    if table == "requests" and reason in PAIRS:
        ids["title_id"] = bad["title_ids"][0] or ""
    assert invalid == [source | {name: None if value == BROKEN else value for name, value in ids.items()}]


TRAINED = [kind for kind in KINDS["examples, distill"] if not {"user_id", "title_id", "rationale"} & set(kind[0])]


@pytest.mark.parametrize(("changes", "column", "reason"), TRAINED)
def test_training_stops_at_a_row_that_other_jobs_reject(
    tmp_path: Path, smollm2: Model, changes: Row, column: str, reason: str
) -> None:
    write(tmp_path, "examples", [example(0), example(**changes)])
    with pytest.raises(InputError) as caught:
        read_train(str(tmp_path / "examples"), prompt_tokenizer("smollm2", PromptSpec()), 2048, 0, False)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/examples/part-0.parquet: row 1 (from 0), ")
    assert f"column '{column}'" in message
    assert "\n" not in message


def test_at_least_twenty_kinds_of_invalid_rows_are_covered() -> None:
    assert len({(reader, column, reason) for reader, kinds in KINDS.items() for _, column, reason in kinds}) >= 20


def test_examples_under_raised_limits_are_read_by_every_later_job(tmp_path: Path, smollm2: Model) -> None:
    genres, long = ["Crime"] * 101, "A red tower. " * 20_000
    wide = example(0, title_genres=genres, candidates=[{"artwork_id": "a", "caption": long}, CANDIDATES[1]], label=0)
    write(tmp_path, "examples", [wide, example(1)])
    uri, asked = str(tmp_path / "examples"), files(tmp_path, "examples")
    raised = RowLimits(max_text_bytes=10**6, max_genres=101)
    teacher = TeacherSettings("smollm2", "m", PromptSpec(reason=True), 0.6, 0.95, 0, 7, 64, 2048, 5, 6)
    teacher_prompts = TeacherPrompts(prompt_tokenizer("smollm2", teacher.spec))
    prompts = prompt_tokenizer("smollm2", PromptSpec())
    (rows,) = row_ranges(asked, "examples", 10)
    reads: list[Callable[[RowLimits], int]] = [
        lambda limits: len(read_example_arrays(uri, limits).label_n),
        lambda limits: len(prepare_shard(asked, rows, teacher_prompts, teacher, limits).questions),
        lambda limits: len(read_train(uri, prompts, 2048, 0, False, limits=limits)),
        lambda limits: len(read_validation(uri, prompts, 2048, 9, limits=limits)),
    ]
    assert [read(raised) for read in reads] == [2, 2, 2, 2]
    assert [read(DEFAULT_LIMITS) for read in reads[:2]] == [1, 1]
    for read in reads[2:]:
        with pytest.raises(InputError, match=r"'title_genres': more than 100 items \(--max-genres\); fix the row"):
            read(DEFAULT_LIMITS)

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray import storage
from artsel_ray.data.catalog import Catalog
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.score import job
from artsel_ray.score.scoring_run import ScoringRun
from tests.support.scoring_world import score_config


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ScoringRun]]:
    """The runs that the entry point hands on, and to which function."""
    calls: list[tuple[str, ScoringRun]] = []
    monkeypatch.setattr(job, "score_requests", lambda run: calls.append(("score", run)))
    monkeypatch.setattr(job, "estimate_cost", lambda run: calls.append(("estimate", run)))
    return calls


def test_flags_become_a_run(world: Path, smollm2: Model, called: list[tuple[str, ScoringRun]]) -> None:
    config = score_config(world, decoding="rank", explore="epsilon", epsilon=0.25, seed=3, permutation=2, engines=2)
    job.score(config)
    ((name, run),) = called
    assert name == "score"
    assert run.files == storage.list_files(str(world / "requests"))
    assert run.config == config
    serving = run.config.serving
    assert (serving.explore, serving.epsilon, serving.seed) == ("epsilon", 0.25, 3)
    assert (run.config.permutation, run.config.engine_pool.engines, run.answer_spec.decoding) == (2, 2, "rank")
    # In the order of the permutation, not of the ids.
    assert sorted(run.catalog.artwork_ids.to_pylist()) != run.catalog.artwork_ids.to_pylist()


def test_date_that_the_template_writes_is_part_of_the_identity(
    world: Path, smollm2: Model, called: list[tuple[str, ScoringRun]]
) -> None:
    dated, dated_otherwise = (shutil.copytree(smollm2.path, world / name) for name in ("dated", "otherwise"))
    for folder, form in ((dated, "%d %b %Y"), (dated_otherwise, "%d %B %Y")):
        template = f"{{{{ strftime_now('{form}') }}}} {{{{ messages[0].content }}}} "
        (folder / "chat_template.jinja").write_text(template)
    for model in ("smollm2", "smollm2", str(dated), str(dated_otherwise)):
        job.score(score_config(world, model=model))
    frames = [run.identity()["frame"] for _, run in called]
    assert (frames[0] == frames[1], frames[2] == frames[3], len(set(frames))) == (True, False, 3)
    # A run of an earlier version, which wrote today's date, is not resumed.
    assert [run.prompted.has_clock for _, run in called] == [False, False, True, True]


def test_estimate_cost_scores_nothing(world: Path, smollm2: Model, called: list[tuple[str, ScoringRun]]) -> None:
    job.score(score_config(world, estimate_cost=True))
    assert [name for name, _ in called] == ["estimate"]


def test_absent_table_is_an_input_error(world: Path) -> None:
    with pytest.raises(InputError, match=r"no \.parquet file there"):
        job.score(score_config(world, requests=str(world / "nowhere")))


def test_casts_of_requests_are_reported_before_ray_reads_them(
    world: Path, smollm2: Model, called: list[tuple[str, ScoringRun]], capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (world / "requests").iterdir():
        table = pq.read_table(file)
        users = pa.array(range(table.num_rows), pa.int64())
        pq.write_table(table.set_column(0, "user_id", users), file)
    job.score(score_config(world))
    line = "requests: column 'user_id' is cast from int64 to string\n"
    assert capsys.readouterr().out.count(line) == 1


def test_candidates_beyond_the_label_prior_are_a_warning(
    world: Path, smollm2: Model, called: list[tuple[str, ScoringRun]], capsys: pytest.CaptureFixture[str]
) -> None:
    job._warn_beyond_prior((2.0, 0.5), catalog_of(world, called))
    assert "covers the numbers 1 to 2, and a title has 3 candidates" in capsys.readouterr().out
    job._warn_beyond_prior((2.0, 0.5, 1.0), called[0][1].catalog)
    assert capsys.readouterr().out == ""


def catalog_of(world: Path, called: list[tuple[str, ScoringRun]]) -> Catalog:
    job.score(score_config(world))
    return called[0][1].catalog

"""The skeleton with stages of a toy job: shard n has n + 1 titles, of which an engine scores the first token."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from artsel_ray import schema, storage
from artsel_ray.config import EngineSettings
from artsel_ray.data.checked_reader import read_table
from artsel_ray.engines.fake import FakeEngine
from artsel_ray.errors import InputError
from artsel_ray.runtime import sharded_job
from artsel_ray.runtime.engine_pool import ActorError, EngineActor, EngineStage, GetEngine, Item, Processed
from artsel_ray.runtime.run import begin
from artsel_ray.runtime.sharded_job import PrepareActor, PrepareStage, ShardedJob, WriteActor, stage_seconds
from artsel_ray.runtime.shards import INVALID_FOLDER, MEMORY, RESTARTS, Shard, done_shards, read_statistics, write_shard
from artsel_ray.runtime.starts import Starts
from artsel_ray.runtime.task_result import unwrap, wrap
from tests.support.canary import CANARY, logged

pytestmark = pytest.mark.usefixtures("ray_cluster")
SHARDS = 3


def make_prepare() -> Callable[[int], list[str]]:
    return lambda index: [f"t{index}{number} {CANARY}" for number in range(index + 1)]


def make_process() -> Callable[[list[str], GetEngine], Processed]:
    def process(titles: list[str], get_engine: GetEngine) -> Processed:
        get_engine().logprobs([np.array([1], dtype=np.int32) for _ in titles], [[1, 2] for _ in titles])
        columns = {"title_id": titles, "name": titles, "genres": [[]] * len(titles)}
        invalid = pa.Table.from_pylist(
            [{"table": "titles", "file": "f", "row": 0, "column": "name", "reason": "missing"}] * (len(titles) == 1),
            schema=schema.INVALID_ROWS,
        )
        return Processed(pa.table(columns), invalid, {"titles": len(titles), "rejected": invalid.num_rows})

    return process


def toy_job(output: Path, **changes: Any) -> ShardedJob:
    job = ShardedJob(
        run=begin(str(output), {}, {}),
        table="titles",
        unit="titles",
        shards=SHARDS,
        rows=6,
        model_id="m@1",
        started=time.perf_counter(),
        prepare=PrepareStage("prepare", make_prepare),
        engine=EngineStage("ask", make_process, FakeEngine),
        pool=EngineSettings(),
    )
    return replace(job, **changes)


def title_ids(output: Path) -> list[str]:
    return [name.split()[0] for name in read_table(str(output), "titles", ["name"])["name"].to_pylist()]


def set_genre(rows: pa.Table) -> pa.Table:
    """What `finish` does here."""
    genres = pa.array([["Drama"]] * rows.num_rows, pa.list_(pa.string()))
    return rows.set_column(rows.column_names.index("genres"), "genres", genres)


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """Output of a job whose shards are all written; copy it to change it."""
    output = tmp_path_factory.mktemp("completed")
    toy_job(output, finish=set_genre).process([0, 1, 2])
    return output


@pytest.fixture
def copied(completed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(completed, tmp_path / "copied"))


def test_all_shards_are_written_with_their_invalid_rows_and_statistics(completed: Path) -> None:
    assert done_shards(str(completed)) == {0, 1, 2}
    assert title_ids(completed) == ["t00", "t10", "t11", "t20", "t21", "t22"]
    assert read_table(str(completed / INVALID_FOLDER), "invalid_rows")["reason"].to_pylist() == ["missing"]
    assert read_statistics(str(completed), 1)["prompt_tokens"] == 2
    totals = toy_job(completed).totals()
    assert {name: totals[name] for name in ("titles", "rejected", "prompt_tokens", "decoded_tokens")} == {
        "titles": 6, "rejected": 1, "prompt_tokens": 6, "decoded_tokens": 6,
    }  # fmt: skip
    assert totals[MEMORY] > 0.01
    assert set(stage_seconds(totals)) == {"prepare", "load", "engine", "ask"}


def test_finish_changes_rows_just_before_they_are_written(completed: Path) -> None:
    assert read_table(str(completed), "titles", ["genres"])["genres"].to_pylist() == [["Drama"]] * 6


def test_nothing_that_travels_between_stages_is_logged(completed: Path) -> None:
    assert CANARY in read_table(str(completed), "titles")["name"][0].as_py()
    assert logged() == []


def test_manifest_comes_last_and_lists_the_parts(copied: Path) -> None:
    assert storage.read_manifest(str(copied)) is None
    job = toy_job(copied)
    job.publish(job.summary({"titles": 6}, job.totals()), {"titles": 6})
    parts = [f"part-00000{index}.parquet" for index in range(SHARDS)]
    assert storage.read_manifest(str(copied)) == {"parts": parts, "titles": 6}
    summary = storage.read_json(str(copied / "summary.json"))
    assert summary.pop("seconds")["total"] > 0
    assert summary == {"titles": 6, "model_id": "m@1", RESTARTS: 0}


def test_resume_reports_done_shards_and_repeats_those_with_invalid_rows_on_request(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def share() -> int:
        read.append(1)
        return 1

    def make(offset: int) -> Callable[[int], list[str]]:
        return lambda index: make_prepare()(index + offset - 1)

    read: list[int] = []
    stage = PrepareStage("prepare", make, share)
    parts = [copied / f"part-00000{index}.parquet" for index in range(SHARDS)]
    first, last = parts[0].stat().st_mtime_ns, parts[2].stat().st_mtime_ns
    parts[1].unlink()
    toy_job(copied, prepare=stage).resume()
    assert "6 titles in 3 shards, 2 done; model m@1" in capsys.readouterr().out
    assert title_ids(copied) == ["t00", "t10", "t11", "t20", "t21", "t22"]
    assert (len(read), parts[0].stat().st_mtime_ns) == (1, first)
    # Every shard is done: nothing is read for the actors.
    toy_job(copied, prepare=stage).resume()
    assert (len(read), parts[0].stat().st_mtime_ns) == (1, first)
    # Shard 0 has an invalid row.
    toy_job(copied, prepare=stage, redo_transient=True).resume()
    assert parts[0].stat().st_mtime_ns > first
    assert parts[2].stat().st_mtime_ns == last
    # Its statistics do not say why, as those of earlier versions. Where they do, only passing reasons count.
    for transient, done in ((0, 3), (1, 2)):
        statistics = read_statistics(str(copied), 0) | {"transient": transient}
        rows = read_table(str(parts[0]), "titles")
        write_shard(str(copied), "titles", Shard(0, rows, schema.INVALID_ROWS.empty_table(), statistics))
        toy_job(copied, prepare=stage, redo_transient=True).resume()
        assert f"in 3 shards, {done} done" in capsys.readouterr().out


def refuse(*_: Any) -> Any:
    raise InputError("row 3 is wrong; fix it")


@pytest.mark.parametrize(
    "changes",
    [
        {"prepare": PrepareStage("prepare", lambda: refuse)},
        {"prepare": PrepareStage("prepare", refuse)},
        {"engine": EngineStage("ask", lambda: refuse, FakeEngine)},
        {"engine": EngineStage("ask", refuse, FakeEngine)},
        {"finish": refuse},
    ],
    ids=["prepare", "make prepare", "process", "make process", "finish"],
)
def test_input_error_of_a_stage_is_the_result_of_its_shard(tmp_path: Path, changes: dict[str, Any]) -> None:
    job, starts = toy_job(tmp_path, **changes), Starts.remote()
    batch: Any = {"shard": np.array([0])}
    for actor in (
        PrepareActor(starts, 9, job.prepare.name, job.prepare.make, []),
        EngineActor(job.engine, starts, 9, None, str(tmp_path)),
        WriteActor(starts, 9, str(tmp_path), job.table, job.finish),
    ):
        batch = actor(batch)
    error = unwrap(batch)
    assert isinstance(error, InputError)
    assert str(error) == "row 3 is wrong; fix it"
    assert not done_shards(str(tmp_path))


def test_input_error_of_a_stage_ends_the_run_with_its_message(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^row 3 is wrong; fix it$"):
        toy_job(tmp_path, prepare=PrepareStage("prepare", refuse)).process([0, 1])


def test_engine_that_does_not_load_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded_job, "MAX_STARTS", 2)  # each takes some seconds

    def load() -> FakeEngine:
        raise RuntimeError("no memory left")

    engine = EngineStage("ask", make_process, load)
    with pytest.raises(InputError, match=r"^the engine does not start: no memory left$"):
        toy_job(tmp_path, engine=engine).process([0])


def test_too_many_invalid_rows_stop_the_run_and_name_where_they_are(tmp_path: Path) -> None:
    message = (
        f"1 of 6 titles were rejected, more than --max-reject-rate 0.1 allows; the reasons are in {tmp_path}/rejected"
    )
    with pytest.raises(InputError, match=message):
        toy_job(tmp_path, max_reject_rate=0.1).process([0, 1, 2])
    # The rows are kept; a higher limit finishes the run.
    assert done_shards(str(tmp_path))
    job = toy_job(tmp_path, max_reject_rate=0.2)
    job.resume()
    assert job.totals()["rejected"] == 1
    with pytest.raises(InputError, match="2 of 6 titles"):
        toy_job(tmp_path, max_reject_rate=0.2, rows=5, known_invalid=1).totals()
    with pytest.raises(InputError, match="2 of 7 titles"):
        toy_job(tmp_path, max_reject_rate=0.2, rows=5, known_invalid=2).resume()


def test_another_driver_stops_this_one(tmp_path: Path) -> None:
    job = toy_job(tmp_path)
    toy_job(tmp_path)
    with pytest.raises(InputError, match="another job has taken over"):
        job.process([0, 1, 2])


def test_engine_that_dies_or_fails_is_restarted_in_another_process_and_its_shard_repeated(tmp_path: Path) -> None:
    def load() -> FakeEngine:
        fail_once(tmp_path / "at the start")
        return FakeEngine()

    def make() -> Callable[[list[str], GetEngine], Processed]:
        process, died = make_process(), tmp_path / "died"

        def fail(titles: list[str], get_engine: GetEngine) -> Processed:
            fail_once(tmp_path / "in the middle")
            if not died.exists():
                died.touch()
                os._exit(1)
            return process(titles, get_engine)

        return fail

    job = toy_job(tmp_path / "out", engine=EngineStage("ask", make, load))
    job.process([0, 1, 2])
    assert title_ids(tmp_path / "out") == ["t00", "t10", "t11", "t20", "t21", "t22"]
    assert job.summary({}, job.totals())[RESTARTS] == 3
    processes = [(tmp_path / name).read_text() for name in ("at the start", "in the middle")]
    assert processes[0] != processes[1]


def fail_once(file: Path) -> None:
    """Fails as CUDA does, the first time."""
    if not file.exists():
        file.write_text(str(os.getpid()))
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_shards_of_an_engine_that_stays_broken_go_to_others_in_another_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, rounds = sharded_job.results, []

    def results(dataset: Any) -> Iterator[Any]:
        found = whole(dataset)
        yield next(found)
        rounds.append(dataset)
        if len(rounds) == 1:  # the second shard is on the engine that fails at each start
            raise ActorError("the engine does not start: CUDA error: uncorrectable ECC error")
        yield from found

    monkeypatch.setattr(sharded_job, "results", results)
    toy_job(tmp_path).process([0, 1, 2])
    assert title_ids(tmp_path) == ["t00", "t10", "t11", "t20", "t21", "t22"]
    assert "uncorrectable ECC error; 2 shards go to other processes\n" in capsys.readouterr().out
    assert len(rounds) == 2


def test_processes_that_prepare_and_write_start_again_if_they_die(tmp_path: Path) -> None:
    """As Ray's memory monitor kills a process."""

    def die_once(stage: str) -> None:
        if not (tmp_path / stage).exists():
            (tmp_path / stage).touch()
            os._exit(1)

    def make() -> Callable[[int], list[str]]:
        def prepare(index: int) -> list[str]:
            die_once("prepare")
            return make_prepare()(index)

        return prepare

    def finish(rows: pa.Table) -> pa.Table:
        die_once("write")
        return rows

    toy_job(tmp_path / "out", prepare=PrepareStage("prepare", make), finish=finish).process([0, 1])
    assert title_ids(tmp_path / "out") == ["t00", "t10", "t11"]


def test_processes_that_prepare_and_write_nothing_are_not_started_forever(tmp_path: Path) -> None:
    starts, item = Starts.remote(), {"shard": np.array([0])}

    def prepared() -> Any:
        return unwrap(PrepareActor(starts, 4, "prepare", make_prepare, [])(item))

    # Ray makes an actor that died again: each of these is such a restart.
    assert [isinstance(prepared(), Item) for _ in range(4)] == [True] * 4
    refused = prepared()
    assert isinstance(refused, ActorError)
    assert str(refused).startswith("preparing shards does not work: its process crashed again and again")
    # They count together, and a written shard clears the count.
    shard = wrap(Shard(0, schema.TITLES.empty_table(), schema.INVALID_ROWS.empty_table(), {}))
    writer = WriteActor(starts, 4, str(tmp_path), "titles", None)
    assert str(unwrap(writer(shard))).startswith("writing shards does not work")
    assert unwrap(WriteActor(starts, 7, str(tmp_path), "titles", None)(shard)) == (0, {})
    assert isinstance(prepared(), Item)


def test_engine_over_its_memory_limit_restarts_between_shards(tmp_path: Path) -> None:
    # Less than any process holds: a process ends itself at every shard after its first, so that each loads an engine.
    job = toy_job(tmp_path, max_memory_gib=0.01)
    job.process([0, 1, 2])
    assert title_ids(tmp_path) == ["t00", "t10", "t11", "t20", "t21", "t22"]
    assert all(read_statistics(str(tmp_path), index)["load_seconds"] > 0 for index in range(SHARDS))

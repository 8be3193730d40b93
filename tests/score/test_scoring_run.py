import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest

from artsel_ray import schema, storage
from artsel_ray.config import flag, resolved
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.score.job import score
from artsel_ray.score.settings import ScoreConfig
from tests.support.scoring_world import CAPTIONS, PAIRS, score_config, write_scoring_world

ROOT = Path(__file__).parent.parent.parent


def config_for(world: Path, model: str, **flags: object) -> ScoreConfig:
    return score_config(world, **{"model": model, "shard_pairs": 4, **flags})


def command(config: ScoreConfig) -> list[str]:
    names = ["requests", "titles", "artworks", "output", "model", "decoding", "shard_pairs", "engine"]
    values = resolved(config)
    return [sys.executable, str(ROOT / "jobs/score.py"), *(f"{flag(name)}={values[name]}" for name in names)]


def predictions(output: Path) -> pa.Table:
    """A run's rows without the time of scoring, in the order of the shards."""
    return read_table(str(output), "predictions").drop(["scored_at"])


def best_of(row: dict[str, Any]) -> tuple[str, float]:
    """The first candidate of the most likely caption, which candidates that read the same have in common."""
    captions = CAPTIONS[row["title_id"]]
    mass = Counter[str]()
    for caption, each in zip(captions, row["candidates"], strict=True):
        mass[caption] += each["probability"]
    best = row["candidates"][captions.index(max(mass, key=lambda caption: mass[caption]))]
    return best["artwork_id"], best["probability"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None, smollm2: Model) -> Path:
    """A world whose predictions by `rank` are in P/. Its tests change copies."""
    folder = tmp_path_factory.mktemp("scored")
    write_scoring_world(folder)
    score(config_for(folder, "smollm2", decoding="rank"))
    return folder


@pytest.fixture
def rescored(scored: Path, tmp_path: Path) -> ScoreConfig:
    """The config of `scored` with a copy of its predictions as its output."""
    output = shutil.copytree(scored / "P", tmp_path / "copied")
    return config_for(scored, "smollm2", decoding="rank", output=str(output))


def test_every_pair_is_scored_once_and_the_manifest_lists_the_parts(scored: Path) -> None:
    rows = predictions(scored / "P").to_pylist()
    assert sorted((row["user_id"], row["title_id"]) for row in rows) == PAIRS
    for row in rows:
        assert sum(each["probability"] for each in row["candidates"]) == pytest.approx(1)
        assert (row["artwork_id"], row["probability"]) == best_of(row)
    manifest = storage.read_manifest(str(scored / "P"))
    assert manifest is not None
    assert manifest["pairs"] == 24
    assert [f"{scored}/P/{part}" for part in manifest["parts"]] == storage.list_files(str(scored / "P"))
    summary = storage.read_json(str(scored / "P/summary.json"))
    assert (summary["pairs"], summary["rejected"]) == (24, 0)
    assert not (scored / "P/_work").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_permutation_changes_the_order_and_its_label_prior_can_be_divided_out(world: Path, smollm2: Model) -> None:
    shown = {}
    for number in (0, 3):
        score(config_for(world, "smollm2", decoding="labels", permutation=number, output=str(world / f"P{number}")))
        rows = predictions(world / f"P{number}").sort_by([("user_id", "ascending"), ("title_id", "ascending")])
        shown[number] = rows.to_pylist()
    orders = [{tuple(each["artwork_id"] for each in row["candidates"]) for row in shown[n]} for n in (0, 3)]
    assert {tuple(sorted(order)) for order in orders[1]} == orders[0] != orders[1]
    assert all(
        a["fingerprint"] != b["fingerprint"] for a, b in zip(*shown.values(), strict=True) if a["title_id"] == "t1"
    )
    with pytest.raises(InputError):
        score(config_for(world, "smollm2", decoding="labels", permutation=4, output=str(world / "P3")))
    uris = tuple(str(world / f"P{number}") for number in (0, 3))
    score(config_for(world, "smollm2", decoding="labels", label_prior=uris))
    assert len(storage.read_json(str(world / "P/config.json"))["run"]["label_prior"]) == 3
    score(config_for(world, "smollm2", decoding="labels", label_prior=uris))  # the same run, which is complete
    with pytest.raises(InputError, match="has a prior divided out already"):
        score(config_for(world, "smollm2", decoding="labels", label_prior=(*uris, str(world / "P")), output=uris[0]))


def test_resume_redoes_a_lost_shard_and_nothing_else(rescored: ScoreConfig) -> None:
    output = Path(rescored.output)
    before = predictions(output)
    (output / "part-000001.parquet").unlink()
    kept = (output / "part-000000.parquet").stat().st_mtime_ns
    config = storage.read_json(str(output / "config.json"))
    assert config["run"].pop("frame")
    storage.write_json(str(output / "config.json"), config)  # as an earlier version wrote it
    score(rescored)
    assert predictions(output).equals(before)
    assert (output / "part-000000.parquet").stat().st_mtime_ns == kept


@pytest.mark.usefixtures("ray_cluster")
def test_incremental_run_scores_what_changed_and_nothing_else(
    world: Path, rescored: ScoreConfig, write_requests: Callable[..., None], history: Callable[..., list]
) -> None:
    first = config_for(world, "smollm2", decoding="rank")  # of the same world
    rows = [(f"u1{i}", history(i + 20 * (i == 3)), ["t1", ("t2", "t3")[i % 2]]) for i in range(6)]
    write_requests(str(world / "requests/part-1.parquet"), [*rows, ("new", [], ["t1"])])
    second = replace(first, output=str(world / "P2"), previous=rescored.output)
    score(second)
    summary = storage.read_json(str(world / "P2/summary.json"))
    assert (summary["pairs"], summary["reused"]) == (25, 22)
    before, after = (
        {(row["user_id"], row["title_id"]): row for row in predictions(Path(run.output)).to_pylist()}
        for run in (rescored, second)
    )
    assert {pair for pair in after if after[pair] != before.get(pair)} == {("u13", "t1"), ("u13", "t3"), ("new", "t1")}
    # Another number format may answer otherwise; on CPUs auto is float32.
    for dtype, reused in (("float32", 25), ("bfloat16", 0)):
        pool = replace(second.engine_pool, dtype=dtype)  # type: ignore[arg-type]
        score(replace(second, output=f"{world}/{dtype}", previous=second.output, engine_pool=pool))
        assert storage.read_json(f"{world}/{dtype}/summary.json")["reused"] == reused
    # A changed caption affects only its title's pairs.
    artworks = read_table(str(world / "artworks"), "artworks").to_pylist()
    artworks[0]["caption"] = "A green tower."
    table = pa.Table.from_pylist(artworks, schema=schema.ARTWORKS)
    storage.write_table(str(world / "artworks/a.parquet"), table, "artworks")
    score(replace(second, output=str(world / "P3"), previous=second.output))
    reused = storage.read_json(str(world / "P3/summary.json"))["reused"]
    assert reused == sum(title != "t1" for _, title in after) == 12


def test_invalid_earlier_prediction_is_rejected_and_its_pair_scored_and_all_are_drawn_with_propensities(
    rescored: ScoreConfig, scored: Path, tmp_path: Path
) -> None:
    part = f"{rescored.output}/part-000000.parquet"
    rows = read_table(part, "predictions").to_pylist()
    rows[2]["probability"] = float("nan")
    storage.write_table(part, pa.Table.from_pylist(rows, schema=schema.PREDICTIONS), "predictions")
    flags = {"decoding": "rank", "explore": "epsilon", "epsilon": 0.5, "previous": rescored.output}
    score(config_for(scored, "smollm2", output=str(tmp_path / "P2"), **flags))
    summary = storage.read_json(str(tmp_path / "P2/summary.json"))
    found = [summary[name] for name in ("pairs", "reused", "rejected", "rejected_previous_rows")]
    assert found == [24, 23, 0, 1]
    (invalid,) = read_table(str(tmp_path / "P2/rejected"), "invalid_rows").to_pylist()
    assert (invalid["table"], invalid["file"], invalid["row"]) == ("predictions", part, 2)
    drawn = predictions(tmp_path / "P2")
    assert np.isfinite(drawn["probability"].to_numpy()).all()
    are_best = []
    for row in drawn.to_pylist():
        best = best_of(row)[0] == row["artwork_id"]
        assert row["propensity"] == pytest.approx(0.5 / len(row["candidates"]) + 0.5 * best)
        are_best.append(best)
    assert set(are_best) == {True, False}  # though all were the best before


def test_previous_run_must_have_finished(world: Path, smollm2: Model) -> None:
    with pytest.raises(InputError, match=r"nowhere has no _manifest\.json: that run is not finished"):
        score(config_for(world, "smollm2", previous=str(world / "nowhere")))


@pytest.mark.usefixtures("ray_cluster")
def test_auto_layout_is_the_cheaper_one_and_part_of_the_identity(world: Path, smollm2: Model) -> None:
    score(score_config(world, decoding="rank", layout="auto"))
    assert storage.read_json(str(world / "P/summary.json"))["layout"] == "user_first"
    with pytest.raises(InputError, match="differs in: prompt"):
        score(score_config(world, decoding="rank"))


def test_output_of_another_run_is_refused(rescored: ScoreConfig) -> None:
    with pytest.raises(InputError, match="differs in: decoding"):
        score(replace(rescored, decoding="choose"))


def test_choices_depend_neither_on_the_shard_size_nor_on_engines_restarted_for_their_memory(
    scored: Path, tmp_path: Path
) -> None:
    # Less memory than any process holds: one ends itself between the two shards.
    flags = {"decoding": "rank", "shard_pairs": 12, "engine_memory": 0.1}
    score(config_for(scored, "smollm2", output=str(tmp_path / "P"), **flags))
    by_pair = [
        predictions(output).drop_columns("fingerprint").sort_by([("user_id", "ascending"), ("title_id", "ascending")])
        for output in (scored / "P", tmp_path / "P")
    ]
    assert by_pair[0].to_pylist() == by_pair[1].to_pylist()
    summary = storage.read_json(str(tmp_path / "P/summary.json"))
    assert summary["engine_memory_gib"] > 0.1
    assert summary["engine_restarts"] == 1


@pytest.mark.usefixtures("ray_cluster")
def test_too_many_invalid_pairs_stop_the_run(world: Path, smollm2: Model, write_requests: Callable[..., None]) -> None:
    write_requests(str(world / "requests/part-2.parquet"), [(f"v{i}", [], ["t9"]) for i in range(9)])
    with pytest.raises(InputError, match=r"more than --max-reject-rate 0\.05 allows; the reasons are in"):
        score(config_for(world, "smollm2"))
    assert storage.read_manifest(str(world / "P")) is None
    score(config_for(world, "smollm2", max_reject_rate=0.5))
    reasons = read_table(str(world / "P/rejected"), "invalid_rows")["reason"].to_pylist()
    assert reasons == ["unknown title"] * 9


@pytest.mark.usefixtures("ray_cluster")
def test_more_gpus_than_the_cluster_has_are_refused(world: Path, smollm2: Model) -> None:
    with pytest.raises(InputError, match="--tensor-parallel 2 needs 2 GPUs on one node, and the nodes have 0"):
        score(config_for(world, "smollm2", tensor_parallel=2))


@pytest.mark.usefixtures("ray_cluster")
def test_requests_without_titles_are_an_error(world: Path, smollm2: Model, write_requests: Callable[..., None]) -> None:
    for file in (world / "requests").iterdir():
        file.unlink()
    write_requests(str(world / "requests/a.parquet"), [("u", [], [])])
    with pytest.raises(InputError, match="asks for no title; 1 rows were rejected"):
        score(config_for(world, "smollm2"))


@pytest.mark.usefixtures("ray_cluster")
def test_broken_file_found_in_a_task_is_an_input_error(world: Path, smollm2: Model) -> None:
    (world / "requests/part-1.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"part-1\.parquet as Parquet"):
        score(config_for(world, "smollm2"))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_resume_after_kill_9_gives_the_same_result(world: Path, tiny_llama: Callable[[bool], str]) -> None:
    import ray

    # One pair a shard: two dozen shards, so that no run ends between the first object and the kill.
    changes = {"engine": "transformers", "decoding": "rank", "shard_pairs": 1}
    config = config_for(world, tiny_llama(False), output=str(world / "killed"), **changes)
    score(replace(config, output=str(world / "whole")))
    # At the first object; tests/test_faults.py kills at other moments.
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    driver = subprocess.Popen(command(config), env=environment, start_new_session=True)
    while not storage.find_files(config.output):
        assert driver.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert storage.read_manifest(config.output) is None
    score(config)
    got, expected = predictions(world / "killed"), predictions(world / "whole")
    left_out = ["probability", "candidates", "fingerprint"]  # each run has a key of its own
    assert got.drop(left_out).equals(expected.drop(left_out))
    np.testing.assert_allclose(got["probability"], expected["probability"], atol=1e-3)


@pytest.mark.slow
def test_ctrl_c_twice_is_one_line_and_leaves_no_process(world: Path, tiny_llama: Callable[[bool], str]) -> None:
    config = config_for(world, tiny_llama(True), shard_pairs=1, engine="fake")
    # What a working folder may hold: workers must import neither.
    (world / "numpy.py").write_text("raise SystemError")
    (world / "artsel_ray.py").write_text("raise SystemError")
    log = world / "log"
    with log.open("w") as stream:
        slow = [*command(config), "--tokens-per-second=500"]
        job = subprocess.Popen(slow, cwd=world, stdout=stream, stderr=stream, start_new_session=True)
    while not storage.find_files(config.output):
        assert job.poll() is None, log.read_text()
        time.sleep(0.05)
    started = psutil.Process(job.pid).children(recursive=True)
    for _ in range(2):  # as a terminal does, to the job and what it has started
        os.killpg(job.pid, signal.SIGINT)
        time.sleep(0.5)
    assert job.wait(timeout=15) == 130
    _, alive = psutil.wait_procs(started, timeout=15)
    assert alive == []
    lines = log.read_text().splitlines()
    assert lines[-1] == "interrupted; run the same command again"
    assert not [line for line in lines if "Traceback" in line or "    @ " in line]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_engine_that_keeps_dying_ends_the_run(world: Path, smollm2: Model) -> None:
    ended, deaths = threading.Event(), []

    def kill() -> None:
        while not ended.wait(0.1):
            for process in psutil.Process().children(recursive=True):  # the session's Ray and no other
                with contextlib.suppress(psutil.Error):
                    old = time.time() - process.create_time() > 4  # and processing its first shard
                    if old and "(EngineActor)" in " ".join(process.cmdline()) and process.pid not in deaths:
                        deaths.append(process.pid)
                        process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        # So slow that no shard is completed before its engine is found.
        with pytest.raises(
            InputError, match="the engine does not start: it crashed at every start before completing a shard"
        ):
            score(config_for(world, "smollm2", tokens_per_second=1.0))
    finally:
        ended.set()
        killer.join()
    assert len(deaths) >= 4
    assert storage.read_manifest(str(world / "P")) is None
    score(config_for(world, "smollm2"))
    assert predictions(world / "P").num_rows == 24


def test_invalid_request_rows_count_for_the_reject_rate(
    world: Path, smollm2: Model, ray_cluster: None, write_requests: Callable[..., None], history: Callable[..., list]
) -> None:
    future = history(1)
    future[0]["timestamp"] = future[0]["timestamp"].replace(year=2100)
    write_requests(str(world / "requests/wrong.parquet"), [(f"w{i}", future, ["t1", "t2"]) for i in range(12)])
    # All twelve other users are rejected as rows.
    with pytest.raises(InputError, match=r"12 of 24 requests were rejected, more than --max-reject-rate 0.05"):
        score(config_for(world, "smollm2"))

"""Every row is accounted for, and the same input and flags write the same output."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray import schema, storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from artsel_ray.prepare import job
from artsel_ray.prepare.job import make_plan, prepare
from artsel_ray.prepare.settings import PrepareConfig
from artsel_ray.simulate.job import simulate
from artsel_ray.simulate.settings import SimulateConfig
from benchmarks.prepare import prepare_with_polars, write_world

NOW_US = 1_760_000_000_000_000
FAR_FUTURE_US = 4_000_000_000_000_000
LONG_CAPTION = "длинная подпись 🎬 " * 4_000
CAPTIONS = {"a0": "a man <option> in rain", "a1": LONG_CAPTION, "a2": "雨の中の男", "b0": "مطر", "b1": "two 🐈‍⬛"}


def _write(folder: Path, name: str, rows: list[dict[str, Any]], **types: pa.DataType) -> None:
    fields = [field.with_type(types.get(field.name, field.type)).with_nullable(True) for field in schema.TABLES[name]]
    (folder / name).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), folder / name / "part-0.parquet", row_group_size=7)


def _good_world(folder: Path, users: int = 12) -> None:
    names = {"t0": "Ночь", "t1": "夜 🌃", "t2": "Plain", "bare": "No artwork"}
    _write(folder, "titles", [{"title_id": t, "name": n, "genres": ["Drama"]} for t, n in names.items()])
    _write(
        folder,
        "artworks",
        [{"artwork_id": a, "title_id": "t0" if a[0] == "a" else "t1", "caption": c} for a, c in CAPTIONS.items()],
    )
    _write(folder, "interactions", [_watch(f"u{n}", "t2", NOW_US + n) for n in range(users)])
    _write(folder, "impressions", [_show(f"u{n}", "t0", "a1", NOW_US + 100 + n) for n in range(users)])


def _watch(user: str | None, title: str | None, time_us: int | None, seconds: float | None = 60.0) -> dict[str, Any]:
    return {"user_id": user, "title_id": title, "timestamp": time_us, "watch_seconds": seconds}


def _show(
    user: str | None,
    title: str | None,
    artwork: str | None,
    time_us: int | None,
    engaged: bool | None = True,
    propensity: float | None = 0.5,
) -> dict[str, Any]:
    row = {"user_id": user, "title_id": title, "artwork_id": artwork, "timestamp": time_us}
    return {**row, "engaged": engaged, "propensity": propensity}


def _bad_world(folder: Path) -> dict[tuple[str, int], tuple[str, str]]:
    """Writes a world with invalid rows of each kind; returns (table, row) -> (column, start of the reason)."""
    _good_world(folder)
    expected: dict[tuple[str, int], tuple[str, str]] = {}

    def write(name: str, good: list[dict[str, Any]], bad: list[tuple[dict[str, Any], str, str]]) -> None:
        for row, (_, column, reason) in enumerate(bad, start=len(good)):
            expected[name, row] = (column, reason)
        _write(folder, name, good + [row for row, _, _ in bad])

    titles = pq.read_table(folder / "titles").to_pylist()
    write(
        "titles",
        titles,
        [
            ({"title_id": "t0", "name": "Again", "genres": []}, "title_id", "repeated id"),
            ({"title_id": "t9", "name": " ", "genres": []}, "name", "missing"),
            ({"title_id": None, "name": "x", "genres": []}, "title_id", "missing"),
            ({"title_id": "t8", "name": "x", "genres": None}, "genres", "missing"),
            ({"title_id": "t7", "name": "x", "genres": ["a", None]}, "genres", "null among"),
        ],
    )
    write(
        "artworks",
        pq.read_table(folder / "artworks").to_pylist(),
        [
            ({"artwork_id": "b0", "title_id": "t0", "caption": "again"}, "artwork_id", "repeated id"),
            ({"artwork_id": "c0", "title_id": "bare", "caption": None}, "caption", "missing"),
            ({"artwork_id": "c1", "title_id": "t9", "caption": "x"}, "title_id", "unknown title"),
            ({"artwork_id": "", "title_id": "t0", "caption": "x"}, "artwork_id", "missing"),
        ],
    )
    write(
        "interactions",
        [*(_watch(f"u{n}", "t2", NOW_US + n) for n in range(12)), _watch("late", "t2", NOW_US + 500)],
        [
            (_watch("u0", "t2", NOW_US), "row", "the same as an earlier row"),
            (_watch("u0", "nowhere", NOW_US), "title_id", "unknown title"),
            (_watch("u0", "t2", None), "timestamp", "missing"),
            (_watch("u0", "t2", FAR_FUTURE_US), "timestamp", "later than now"),
            (_watch("u0", "t2", NOW_US, -1.0), "watch_seconds", "negative"),
            (_watch("u0", "t2", NOW_US, float("nan")), "watch_seconds", "negative or not a number"),
            (_watch(None, "t2", NOW_US), "user_id", "missing"),
        ],
    )
    after = NOW_US + 400
    write(
        "impressions",
        [
            *(_show(f"u{n}", "t0", "a1", NOW_US + 100 + n) for n in range(12)),
            _show("u0", "t1", "b1", after, propensity=None),
            _show("u1", "t1", "b0", after, engaged=False),
            _show("u0", "t0", "a2", after),
        ],
        [
            (_show("u0", "t0", "a1", NOW_US + 100), "row", "the same as an earlier row"),
            (_show("u2", "nowhere", "a1", after), "title_id", "unknown title"),
            (_show("u2", "bare", "c0", after), "title_id", "no candidates"),
            (_show("u2", "t1", "a1", after), "artwork_id", "not among the title's candidates"),
            (_show("u2", "t1", "b0", None), "timestamp", "missing"),
            (_show("u2", "t1", "b0", after, engaged=None), "engaged", "missing"),
            (_show("u2", "t1", None, after), "artwork_id", "missing"),
            (_show("u2", "t1", "b0", after, propensity=float("nan")), "propensity", "not in (0, 1]"),
            (_show("u2", "t1", "b0", after, propensity=0.0), "propensity", "not in (0, 1]"),
            (_show("u2", "t1", "b0", after, propensity=1.5), "propensity", "not in (0, 1]"),
            (_show("u2", "t1", "b0", FAR_FUTURE_US), "timestamp", "later than now"),
            (_show("stranger", "t1", "b0", after), "timestamp", "empty history"),
            (_show("late", "t1", "b0", after), "timestamp", "empty history"),
        ],
    )
    return expected


def _config(tmp_path: Path, **flags: Any) -> PrepareConfig:
    return PrepareConfig(**{"input": str(tmp_path / "world"), "output": str(tmp_path / "out"), **flags})


def _examples(tmp_path: Path, split: str) -> list[dict[str, Any]]:
    return read_table(str(tmp_path / "out" / "examples" / split), "examples").to_pylist()


def test_number_of_buckets_follows_the_interactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _good_world(tmp_path / "world", users=26)
    assert make_plan(_config(tmp_path)).buckets == 1
    assert make_plan(_config(tmp_path, buckets=5)).buckets == 5
    monkeypatch.setattr(job, "BUCKET_INTERACTIONS", 10)
    assert make_plan(_config(tmp_path)).buckets == 3


def test_clocks_may_differ_by_a_day(tmp_path: Path) -> None:
    _good_world(tmp_path / "world", users=26)
    assert make_plan(_config(tmp_path)).now_us == pytest.approx((time.time() + 86_400) * 1e6, abs=60e6)


def test_every_invalid_row_has_its_source_and_no_row_is_lost(tmp_path: Path, ray_cluster: None) -> None:
    expected = _bad_world(tmp_path / "world")
    prepare(_config(tmp_path, max_reject_rate=0.6, validation_size=2, test_size=3, train_size=100, buckets=3))
    invalid = read_table(str(tmp_path / "out" / "rejected"), "invalid_rows").to_pylist()
    assert {(row["table"], row["row"]): row["column"] for row in invalid} == {k: v[0] for k, v in expected.items()}
    for row in invalid:
        assert expected[row["table"], row["row"]][1] in row["reason"]
        assert row["file"] == str(tmp_path / "world" / row["table"] / "part-0.parquet")
    summary = storage.read_json(str(tmp_path / "out" / "summary.json"))
    outcomes = [
        summary["not_engaged"],
        summary["repeated"],
        summary["not_selected"],
        summary["rejected"]["impressions"],
    ]
    assert outcomes == [1, 1, 0, 13]
    assert sum(summary["examples"].values()) + sum(outcomes) == summary["impressions"] == 28
    found = [row for split in ("train", "validation", "test") for row in _examples(tmp_path, split)]
    assert len(found) == len({(row["user_id"], row["title_id"]) for row in found}) == 13
    for row in found:
        candidates = {item["artwork_id"]: item["caption"] for item in row["candidates"]}
        assert candidates == {
            key: text for key, text in CAPTIONS.items() if (key[0] == "a") == (row["title_id"] == "t0")
        }
        shown = "a1" if row["title_id"] == "t0" else "b1"
        assert row["candidates"][row["label"]]["artwork_id"] == shown
        assert [item["title_name"] for item in row["history"]] == ["Plain"]
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out" / "rejected").iterdir())
    assert b"Again" not in everything


def test_second_run_writes_the_same_bytes_and_leaves_no_old_part(tmp_path: Path, ray_cluster: None) -> None:
    _good_world(tmp_path / "world")
    files = []
    for buckets in (1, 3, 1):
        prepare(_config(tmp_path, buckets=buckets, validation_size=2, test_size=3))
        paths = list((tmp_path / "out").rglob("*.parquet"))
        files.append({path.relative_to(tmp_path): path.read_bytes() for path in paths})
        assert not (tmp_path / "out" / "_work").exists()
        manifest = storage.read_manifest(str(tmp_path / "out"))
        assert manifest is not None
        listed = [*manifest["examples"], *manifest["requests"], *manifest["rejected"]]
        assert sorted(listed) == sorted(str(path.relative_to(tmp_path / "out")) for path in paths)
    assert files[0] == files[2] != files[1]


def test_requests_are_those_of_the_test_examples(tmp_path: Path, ray_cluster: None) -> None:
    _good_world(tmp_path / "world")
    prepare(_config(tmp_path, split="time", train_size=5, validation_size=2, test_size=3))
    test = _examples(tmp_path, "test")
    # The newest three of u0 to u11; of the others the next two are validation, and of the remaining 7 train has 5.
    assert {row["user_id"] for row in test} == {"u9", "u10", "u11"}
    assert {row["user_id"] for row in _examples(tmp_path, "validation")} == {"u7", "u8"}
    assert {row["user_id"] for row in _examples(tmp_path, "train")} == {"u2", "u3", "u4", "u5", "u6"}
    requests = read_table(str(tmp_path / "out" / "requests" / "test"), "requests").to_pylist()
    histories = {row["user_id"]: row["history"] for row in test}
    assert {row["user_id"]: (row["history"], row["title_ids"]) for row in requests} == {
        user: (history, ["t0"]) for user, history in histories.items()
    }


def test_examples_equal_those_of_one_polars_process(tmp_path: Path, ray_cluster: None) -> None:
    write_world(tmp_path / "world", 30_000, 3_000, titles=60)
    prepare(_config(tmp_path, buckets=3, history_length=20))
    prepare_with_polars(tmp_path / "world", tmp_path / "polars", (110_000, 1_000, 5_000), 20)
    # Not the ids, whose hashes differ, nor which split a pair is in.
    columns = [name for name in schema.EXAMPLES.names if name != "example_id"]
    ours, theirs = (
        pl.read_parquet(tmp_path / side / "examples" / "*" / "*.parquet", columns=columns).sort("user_id", "title_id")
        for side in ("out", "polars")
    )
    assert len(ours) > 500
    assert ours.equals(theirs)


def test_tables_of_other_tools_make_the_same_examples(tmp_path: Path, ray_cluster: None) -> None:
    _good_world(tmp_path / "world", users=40)
    prepare(_config(tmp_path, test_size=8, validation_size=4))
    expected = {name: _examples(tmp_path, name) for name in ("train", "validation", "test")}
    world, other = tmp_path / "world", tmp_path / "other/world"
    tables = {name: pq.read_table(world / name / "part-0.parquet") for name in schema.TABLES if (world / name).exists()}
    naive = pl.col("timestamp").dt.convert_time_zone("Asia/Tokyo").dt.replace_time_zone(None)
    # Spark: INT96, and files without a suffix. Polars: Hive folders of small files, times without a zone, decimals.
    for name, more in (("titles", {"year": pa.array([1999.0, None, 2001.0, None])}), ("artworks", {})):
        (other / name).mkdir(parents=True)
        columns = {column: tables[name][column] for column in tables[name].column_names if column != "asset_kind"}
        pq.write_table(pa.table({**columns, **more}), other / name / "000000_0")
    (other / "artworks/asset_kind=artwork").mkdir()
    (other / "artworks/000000_0").rename(other / "artworks/asset_kind=artwork/000000_0")
    synopsis = {"artwork_id": ["s"], "title_id": ["t0"], "caption": ["A keeper waits."]}
    (other / "artworks/asset_kind=synopsis").mkdir()
    pq.write_table(pa.table(synopsis), other / "artworks/asset_kind=synopsis/part-0.parquet")
    watched = pl.DataFrame(tables["interactions"]).with_columns(naive, pl.col("watch_seconds").cast(pl.Decimal(9, 2)))
    watched.write_parquet(other / "interactions", partition_by="user_id", mkdir=True)
    shown = pl.DataFrame(tables["impressions"]).with_columns(
        pl.col("engaged").cast(pl.Int8), pl.lit(0.5, pl.Decimal(3, 2)).alias("propensity")
    )
    (other / "impressions").mkdir()
    pq.write_table(shown.to_arrow(), other / "impressions/part-0.parquet", use_deprecated_int96_timestamps=True)
    prepare(_config(tmp_path / "other", test_size=8, validation_size=4, timezone="Asia/Tokyo"))
    assert {name: _examples(tmp_path / "other", name) for name in expected} == expected


def test_too_many_invalid_rows_stop_the_run_with_the_most_frequent_reason(tmp_path: Path, ray_cluster: None) -> None:
    _bad_world(tmp_path / "world")
    message = (
        r"13 of 28 impressions were rejected.*--max-reject-rate 0\.1.*"
        r"'propensity: not in \(0, 1\]' \(3\).*out/rejected"
    )
    with pytest.raises(InputError, match=message):
        prepare(_config(tmp_path))
    assert storage.list_files(str(tmp_path / "out" / "rejected"))
    assert storage.read_manifest(str(tmp_path / "out")) is None
    assert not (tmp_path / "out" / "examples").exists()


def test_log_without_engagement_is_an_error(tmp_path: Path, ray_cluster: None) -> None:
    _good_world(tmp_path / "world")
    _write(tmp_path / "world", "impressions", [_show("u0", "t0", "a1", NOW_US + 100, engaged=False)])
    with pytest.raises(InputError, match="none of 1 impressions can become an example: 1 were not engaged"):
        prepare(_config(tmp_path))


def _wrong_table(tmp_path: Path) -> str:
    with pytest.raises(InputError) as caught:
        prepare(_config(tmp_path))
    return str(caught.value)


def test_wrong_or_broken_table_is_named_before_anything_is_written(tmp_path: Path) -> None:
    _good_world(tmp_path / "world")
    impressions = tmp_path / "world" / "impressions" / "part-0.parquet"
    good = impressions.read_bytes()
    pq.write_table(pq.read_table(impressions).drop_columns(["engaged"]), impressions)
    assert "column 'engaged' (bool) is missing" in _wrong_table(tmp_path)
    _write(tmp_path / "world", "impressions", [], timestamp=pa.string())
    assert "column 'timestamp' is string, expected timestamp[us, tz=UTC]" in _wrong_table(tmp_path)
    impressions.write_bytes(good[: len(good) // 2])
    assert f"cannot read {impressions} as Parquet" in _wrong_table(tmp_path)
    _write(tmp_path / "world", "impressions", [])
    assert "impressions has no rows" in _wrong_table(tmp_path)
    impressions.unlink()
    assert "no .parquet file there" in _wrong_table(tmp_path)
    assert not (tmp_path / "out").exists()


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_wrong_input_leaves_the_earlier_output(tmp_path: Path, ray_cluster: None) -> None:
    _good_world(tmp_path / "world")
    prepare(_config(tmp_path))
    written = _files(tmp_path / "out")
    (tmp_path / "world/artworks/part-0.parquet").write_bytes(b"broken")
    assert "cannot read" in _wrong_table(tmp_path)
    assert _files(tmp_path / "out") == written


def test_only_files_of_prepare_are_deleted(tmp_path: Path, ray_cluster: None) -> None:
    _good_world(tmp_path / "world")
    out = tmp_path / "out"
    mine = {out / "P/part-000000.parquet": b"predictions", out / "examples/train/notes.txt": b"my notes"}
    prepare(_config(tmp_path))
    for path, content in mine.items():
        storage.write_object(str(path), content)
    prepare(_config(tmp_path, seed=1))
    assert mine.items() <= _files(out).items()
    storage.write_object(str(out / "examples/train/mine.parquet"), b"")
    written = _files(out)
    assert "examples/train/mine.parquet was not written by prepare" in _wrong_table(tmp_path)
    assert _files(out) == written


def test_output_of_another_job_is_refused_unchanged(tmp_path: Path) -> None:
    _good_world(tmp_path / "world")
    storage.write_object(str(tmp_path / "out/examples/train/part-000000-000.parquet"), b"mine")
    written = _files(tmp_path / "out")
    assert "out holds Parquet files but no config.json of prepare; give another --output" in _wrong_table(tmp_path)
    assert _files(tmp_path / "out") == written
    storage.write_json(str(tmp_path / "out/config.json"), {"run": {}, "config": {}})
    assert "holds another job's config.json" in _wrong_table(tmp_path)
    assert written.items() <= _files(tmp_path / "out").items()


def test_unfinished_world_is_refused(tmp_path: Path) -> None:
    _good_world(tmp_path / "world")
    storage.write_json(str(tmp_path / "world/config.json"), {"run": {}, "config": {}})
    assert "world is incomplete: it has a config.json but no _manifest.json" in _wrong_table(tmp_path)
    assert not (tmp_path / "out").exists()


def test_unreachable_bucket_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "K")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    # Port 9 of this machine: nothing listens there.
    world = "s3://bucket/world?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    with pytest.raises(InputError, match=r"cannot reach s3://bucket/world/config.json") as caught:
        prepare(PrepareConfig(input=world, output=str(tmp_path / "out")))
    assert "\n" not in str(caught.value)


def test_page_broken_inside_a_file_is_one_line(tmp_path: Path, ray_cluster: None) -> None:
    _good_world(tmp_path / "world", users=500)
    path = tmp_path / "world" / "interactions" / "part-0.parquet"
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read .*interactions/part-0\.parquet as Parquet"):
        prepare(_config(tmp_path))
    assert not (tmp_path / "out" / "_work").exists()


def test_job_exits_with_one_line_for_a_wrong_input(tmp_path: Path) -> None:
    job = Path(__file__).parents[2] / "jobs" / "prepare.py"
    command = [sys.executable, str(job), "--input", str(tmp_path / "absent"), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == f"error: {tmp_path}/absent/titles: no .parquet file there; check the path"


def test_split_by_title_trains_on_no_new_title(tmp_path: Path, ray_cluster: None) -> None:
    world = str(tmp_path / "world")
    simulate(SimulateConfig(output=world, users=200, titles=20, interactions_per_user=10, caption_tokens=12))
    prepare(_config(tmp_path, split="title", new_titles=0.3, validation_size=30, test_size=60, buckets=3))
    shown = read_table(f"{world}/impressions", "impressions").group_by("title_id").aggregate([("timestamp", "min")])
    newest = shown.sort_by("timestamp_min")["title_id"].to_pylist()
    # Of 20 titles the newest 6 are new: 2 for validation, 4 for test.
    groups = {"train": set(newest[:14]), "validation": set(newest[14:16]), "test": set(newest[16:])}
    examples = {split: _examples(tmp_path, split) for split in groups}
    assert {row["title_id"] for row in examples["train"]} <= groups["train"]
    summary = storage.read_json(str(tmp_path / "out" / "summary.json"))
    for split, size in (("validation", 30), ("test", 60)):
        titles = [row["title_id"] for row in examples[split]]
        known, new = (sum(title in groups[name] for title in titles) for name in ("train", split))
        assert known + new == len(titles)
        assert known == size
        assert 0 < new <= size
        assert summary["new_titles"][split] == {"titles": len(groups[split]), "examples": new}
    requests = read_table(str(tmp_path / "out" / "requests/test"), "requests").to_pylist()
    asked = {(row["user_id"], title) for row in requests for title in row["title_ids"]}
    assert asked == {(row["user_id"], row["title_id"]) for row in examples["test"]}

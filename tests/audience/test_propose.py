from pathlib import Path
from typing import Any

import pytest

from artsel_ray import storage
from artsel_ray.audience.propose import propose
from artsel_ray.audience.settings import ProposeConfig
from artsel_ray.config import from_flags
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from tests.support.canary import logged
from tests.support.scored_runs import serve_only_lovers, write_scored_run


def config(folder: Path, **flags: Any) -> ProposeConfig:
    inputs = {name: str(folder / name) for name in ("predictions", "requests", "titles", "artworks", "output")}
    return from_flags(ProposeConfig, model="smollm2", **inputs | flags)


def test_run_without_probabilities_is_refused(tmp_path: Path, smollm2: Model) -> None:
    write_scored_run(tmp_path, 4, lambda *_: {"fear": 1.0})
    run = read_table(str(tmp_path / "predictions"), "predictions")
    index = run.schema.get_field_index("candidates")
    none = run.from_pylist([{}] * 4, run.schema.remove_metadata())["candidates"]
    bare = run.set_column(index, run.schema.field(index), none)
    storage.write_table(str(tmp_path / "predictions/part-000000.parquet"), bare, "predictions")
    with pytest.raises(InputError, match=r"row 0 .* has no candidates' probabilities; score with --decoding rank"):
        propose(config(tmp_path))


def test_wrong_flags_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--share is 2\.0; it must be less than 1"):
        config(tmp_path, share=2.0)


def test_run_without_gaps_is_published_without_an_engine(tmp_path: Path, smollm2: Model) -> None:
    write_scored_run(tmp_path, 40, lambda *_: {"fear": 0.6, "love": 0.4})
    propose(config(tmp_path))
    assert storage.read_manifest(str(tmp_path / "output")) == {"parts": [], "proposals": 0}
    assert "Missing artwork" in (tmp_path / "output/report.html").read_text()
    summary = storage.read_json(str(tmp_path / "output/summary.json"))
    assert (summary["pairs"], summary["titles"], summary["proposals"], summary["users"]) == (40, 1, 0, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_briefs_are_written_once_and_shown(tmp_path: Path, smollm2: Model, capfd: pytest.CaptureFixture[str]) -> None:
    write_scored_run(tmp_path, 200, serve_only_lovers)
    made = config(tmp_path, max_tokens=24, share=0.4, max_model_length=1024)
    propose(made)
    part = tmp_path / "output/part-000000.parquet"
    (row,) = read_table(str(part), "proposals").to_pylist()
    assert (row["title_id"], row["users"], row["model_id"]) == ("t", 80, smollm2.model_id)
    assert len(row["brief"].split()) > 4
    summary = storage.read_json(str(tmp_path / "output/summary.json"))
    assert set(summary["seconds"]["stages"]) == {"prepare", "load", "engine", "generate"}
    before = part.stat().st_mtime_ns
    page = tmp_path / "output/report.html"
    page.unlink()
    propose(made)
    assert part.stat().st_mtime_ns == before
    assert "The &lt;i&gt;House&lt;/i&gt;" in page.read_text()
    assert "Horror" in page.read_text()
    assert "u1" not in capfd.readouterr().out
    assert not any(logged(word=word) for word in ("lovers <b>kiss", "The <i>House"))

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.evaluate.job import evaluate
from artsel_ray.evaluate.settings import EvaluateConfig
from tests.support.evaluation_tables import prediction, write

ROOT = Path(__file__).parent.parent.parent


def config(path: Path, **changes: Any) -> EvaluateConfig:
    default = EvaluateConfig(
        examples=str(path / "examples/test"),
        predictions=str(path / "predictions"),
        output=str(path / "E"),
        resamples=200,
    )
    return dataclasses.replace(default, **changes)


def metrics(path: Path, **changes: Any) -> dict[str, Any]:
    evaluate(config(path, **changes))
    text = (path / "E/metrics.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    return json.loads(text)


def test_metrics_by_hand(small: Path) -> None:
    # Weights hit·m: 2, 4, 0, 0 of 12; hit/p: 1.25, 10, 0, 0 of 18.25.
    found = metrics(small)
    assert (found["examples"], found["users"], found["missing"], found["other_predictions"]) == (4, 2, 1, 1)
    values = [found[name]["value"] for name in ("accuracy", "ips", "snips", "ips_logged", "snips_logged")]
    assert values == pytest.approx([0.5, 1.5, 0.5, 11.25 / 4, 11.25 / 18.25])
    assert found["headline"] == "snips_logged"
    # Two users, one always right and one always wrong: the resamples are 0, 1/2 and 1.
    assert (found["accuracy"]["low"], found["accuracy"]["high"]) == (0, 1)
    assert found["references"]["random"]["accuracy"]["value"] == pytest.approx(0.375)
    assert found["references"]["random"]["ips"] == {"value": 1, "low": 1, "high": 1}
    assert found["relative"]["random"]["ips"]["value"] == pytest.approx(50)
    assert not found["simulated"]
    assert "popularity is absent" in found["note"]
    assert {name.name for name in (small / "E").iterdir()} == {
        *("metrics.json", "report.html", "config.json", "summary.json")
    }


def test_titles_are_not_told_apart_without_train_examples_or_new_titles(small: Path) -> None:
    assert metrics(small)["titles"] is None
    assert metrics(small, train=str(small / "examples/test"))["titles"] is None


def test_logged_metrics_are_null_without_propensities(small: Path) -> None:
    file = small / "examples/test/part-0.parquet"
    pq.write_table(pq.read_table(file).drop_columns("propensity"), file)
    found = metrics(small)
    assert found["ips_logged"] == found["snips_logged"] == {"value": None, "low": None, "high": None}
    assert found["headline"] == "ips"
    assert "no example has a propensity" in found["note"]
    # Kish of hit·m: (2 + 4)² / (4 + 16)
    assert found["effective_sample_size"] == pytest.approx(1.8)


def test_world_with_all_references(tmp_path: Path, write_world: Callable[[Path, int, int], None]) -> None:
    write_world(tmp_path, 60, 0)
    found = metrics(tmp_path, baseline=str(tmp_path / "baseline"), oracle=str(tmp_path / "oracle"))
    assert list(found["references"]) == ["random", "popularity", "oracle", "baseline"]
    assert found["relative"].keys() == found["references"].keys()
    accuracy = {name: row["accuracy"] for name, row in found["references"].items()}
    # The oracle's own expectation is within the interval of what it reached on the examples drawn from it.
    expected = found["references"]["oracle"]["expected_best"]["accuracy"]["value"]
    assert accuracy["oracle"]["low"] <= expected <= accuracy["oracle"]["high"]
    assert accuracy["random"]["value"] < found["accuracy"]["value"] < accuracy["oracle"]["value"]
    assert accuracy["random"]["value"] < accuracy["popularity"]["value"] < accuracy["oracle"]["value"]
    ratio = found["accuracy"]["value"] / accuracy["baseline"]["value"]
    assert found["relative"]["baseline"]["accuracy"]["value"] == pytest.approx(100 * (ratio - 1))
    assert found["references"]["baseline"]["missing"] > 0
    assert sum(row["examples"] for row in found["by_position"]) == found["examples"]
    assert "Simulated" in (tmp_path / "E/report.html").read_text()


def test_titles_without_train_examples_are_reported_apart(
    tmp_path: Path, write_world: Callable[[Path, int, int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write_world(tmp_path, 60, 0)
    file = tmp_path / "examples/train/part-0.parquet"
    train = pq.read_table(file)
    new = [f"title-{number}" for number in range(15)]
    pq.write_table(train.filter(pc.invert(pc.is_in(train["title_id"], pa.array(new)))), file)
    known = set(pq.read_table(file)["title_id"].to_pylist())
    found = metrics(tmp_path, baseline=str(tmp_path / "baseline"), oracle=str(tmp_path / "oracle"))
    kinds = found["titles"]
    tested = set(pq.read_table(tmp_path / "examples/test/part-0.parquet")["title_id"].to_pylist())
    assert (kinds["known"]["titles"], kinds["new"]["titles"]) == (len(tested & known), len(tested - known))
    assert len(tested - known) >= 15
    assert sum(kind["examples"] for kind in kinds.values()) == found["examples"]
    hits = sum(kind["examples"] * kind["accuracy"]["value"] for kind in kinds.values())
    assert hits / found["examples"] == pytest.approx(found["accuracy"]["value"])
    for kind in kinds.values():
        assert list(kind["references"]) == list(kind["difference"]) == ["random", "popularity", "oracle", "baseline"]
        assert kind["references"]["oracle"]["best_logged"].keys() == {"snips_logged", "ips_logged", "accuracy", "ips"}
    # Without train examples popularity is a random draw.
    references = kinds["new"]["references"]
    assert references["popularity"]["accuracy"] == references["random"]["accuracy"]
    assert "new titles: " in capsys.readouterr().out
    assert "New titles" in (tmp_path / "E/report.html").read_text()
    assert "intervals of new titles are over users and titles" in found["note"]


def test_same_seed_same_numbers_in_any_order_of_rows(small: Path) -> None:
    first = metrics(small)
    for file in (small / "examples/test/part-0.parquet", small / "predictions/part-0.parquet"):
        pq.write_table(pq.read_table(file).take([3, 2, 1, 0]), file)
    assert metrics(small) == first


def test_prepared_data_of_a_simulated_world_is_labeled_simulated(small: Path) -> None:
    storage.write_json(str(small / "summary.json"), {"simulated": ["engagement"]})
    assert metrics(small)["simulated"]


def test_one_user_is_noted(small: Path) -> None:
    file = small / "examples/test/part-0.parquet"
    pq.write_table(pq.read_table(file).slice(0, 2), file)
    found = metrics(small)
    assert found["accuracy"] == {"value": 1, "low": 1, "high": 1}
    assert "one user" in found["note"]


def test_invalid_examples_are_written_and_counted(small: Path) -> None:
    file = small / "examples/test/part-0.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[0]["label"] = 7
    pq.write_table(table.from_pylist(rows, table.schema), file)
    assert metrics(small)["rejected_examples"] == 1
    invalid = pq.read_table(small / "E/rejected/examples.parquet").to_pylist()
    assert [(row["row"], row["column"], row["user_id"]) for row in invalid] == [(0, "label", "u1")]
    # A later run without invalid rows deletes them.
    rows[0]["label"] = 0
    pq.write_table(table.from_pylist(rows, table.schema), file)
    metrics(small)
    assert not storage.find_files(str(small / "E/rejected"))


def test_invalid_predictions_are_written_and_their_pairs_are_missing(small: Path) -> None:
    file = small / "predictions/part-0.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[1]["probability"] = 2.0
    pq.write_table(table.from_pylist(rows, table.schema), file)
    found = metrics(small)
    assert (found["unusable_predictions"], found["missing"], found["accuracy"]["value"]) == (1, 2, 0.25)
    (invalid,) = pq.read_table(small / "E/rejected/model.parquet").to_pylist()
    assert (invalid["file"], invalid["row"], invalid["column"]) == (str(file), 1, "probability")


def test_inputs_that_cannot_be_used_are_refused(small: Path) -> None:
    with pytest.raises(InputError, match="--resamples is 0; it must be at least 1"):
        evaluate(config(small, resamples=0))
    (small / "examples/train").mkdir()
    with pytest.raises(InputError, match="several splits"):
        evaluate(config(small, examples=str(small / "examples")))
    with pytest.raises(InputError, match=r"no \.parquet file"):
        evaluate(config(small, oracle=str(small / "nowhere")))


def test_result_of_another_job_is_kept(small: Path) -> None:
    (small / "E").mkdir()
    (small / "E/config.json").write_text('{"train_size": 1, "predictions": "p"}')
    with pytest.raises(InputError, match=r"E holds another job's config\.json; give another --output"):
        evaluate(config(small))
    assert [path.name for path in (small / "E").iterdir()] == ["config.json"]


def run(path: Path) -> subprocess.CompletedProcess[str]:
    flags = ["--examples", path / "examples/test", "--predictions", path / "predictions", "--output", path / "E"]
    command = [sys.executable, "jobs/evaluate.py", *map(str, flags), "--resamples", "100"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_command_line_prints_table_and_paths(small: Path) -> None:
    done = run(small)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [cell.strip() for cell in lines[0].split("  ") if cell] == [
        *("SNIPS, logged π", "IPS, logged π", "accuracy", "IPS, uniform π (paper)")
    ]
    assert [cell for cell in lines[1].split() if "[" not in cell and "]" not in cell] == [
        *("model", "0.6164", "2.8125", "0.5000", "1.5000")
    ]
    assert "effective sample sizes: model 1, random 3" in done.stdout
    assert lines[-2:] == [str(small / "E/metrics.json"), str(small / "E/report.html")]
    assert "missing: 1" in lines


@pytest.mark.parametrize(("propensity", "invalid"), [(float("nan"), 0), (0.0, 1)])
def test_unusable_propensity_is_left_out_of_the_logged_metrics_only(
    small: Path, capsys: pytest.CaptureFixture[str], propensity: float, invalid: int
) -> None:
    file = small / "examples/test/part-0.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[1]["propensity"] = propensity
    pq.write_table(table.from_pylist(rows, table.schema), file)
    found = metrics(small)
    # Left are 1/0.8 = 1.25 (a hit), 1/0.2 = 5 and 1/0.5 = 2.
    assert [found[name]["value"] for name in ("ips", "ips_logged", "snips_logged")] == pytest.approx(
        [1.5, 1.25 / 3, 1.25 / 8.25]
    )
    assert (found["known_propensities"], found["invalid_propensities"]) == (3, invalid)
    assert "usable propensities: 3 of 4" in capsys.readouterr().out


def test_command_line_reports_bad_input_in_one_line(small: Path) -> None:
    (small / "predictions/part-0.parquet").write_bytes(b"PAR1 is not enough PAR1")
    done = run(small)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot read ")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_predictions_that_do_not_belong_to_the_examples_are_refused(small: Path) -> None:
    others = [prediction("u8", "t1", "t1-0"), prediction("u9", "t1", "t1-0")]
    with pytest.raises(InputError, match="none of its 2 user-title pairs is among the 4 of the examples"):
        metrics(small, predictions=write(small / "others", "predictions", others))
    with pytest.raises(InputError, match="others: none of its 2 user-title pairs"):
        metrics(small, baseline=str(small / "others"))
    unknown = [prediction("u1", "t1", "t1-8"), prediction("u2", "t1", "t1-9")]
    with pytest.raises(InputError, match="none of the 2 chosen artworks is a candidate of its example"):
        metrics(small, predictions=write(small / "unknown", "predictions", unknown))
    with pytest.raises(InputError, match="none of its 2 user-title pairs"):
        metrics(small, permutations=(str(small / "others"),))


def test_ceiling_of_the_headline_is_the_oracle_that_shows_what_engages_most(
    tmp_path: Path, write_world: Callable[[Path, int, int], None]
) -> None:
    write_world(tmp_path, 60, 0)
    found = metrics(tmp_path, oracle=str(tmp_path / "oracle"))
    row = found["references"]["oracle"]
    assert row["best_logged"]["snips_logged"]["value"] > row["snips_logged"]["value"]
    assert row["best_logged"]["accuracy"]["value"] < row["accuracy"]["value"]
    assert "Oracle, best for logged π" in (tmp_path / "E/report.html").read_text()


def test_log_far_from_uniform_is_one_warning_with_its_figures(
    tmp_path: Path, write_world: Callable[[Path, int, int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    write_world(tmp_path, 60, 0)
    found = metrics(tmp_path)
    texts = [text for text in found["warnings"] if "far from uniform" in text]
    assert len(texts) == 1
    assert f"warning: {texts[0]}" in capsys.readouterr().out
    # Most of what was shown was one artwork; copying it looks best by the uniform IPS alone.
    popularity, random = found["references"]["popularity"], found["references"]["random"]
    assert popularity["ips"]["low"] > random["ips"]["high"]
    assert popularity["ips"]["low"] > 3 * popularity["snips_logged"]["value"] / random["snips_logged"]["value"]


def test_choice_that_reads_as_the_engaged_artwork_is_right(small: Path) -> None:
    file = small / "examples/test/part-0.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    # Of t2, engaged with t2-0 by u2: t2-1 reads the same but for white space that prompts do not show.
    for row in rows[1::2]:
        row["candidates"] = [
            each | {"caption": text} for each, text in zip(row["candidates"], ["A", " A ", "B", "C"], strict=True)
        ]
    pq.write_table(table.from_pylist(rows, table.schema), file)
    chosen = [prediction("u1", "t1", "t1-0"), prediction("u1", "t2", "t2-2"), prediction("u2", "t2", "t2-1")]
    found = metrics(small, predictions=write(small / "other", "predictions", chosen))
    # Right for u1's t1 (m = 2, p = .8), and for u2's t2: two of four candidates, each shown with .5.
    assert found["accuracy"]["value"] == 0.5
    assert found["ips"]["value"] == pytest.approx((2 + 4 / 2) / 4)
    assert found["ips_logged"]["value"] == pytest.approx((1 / 0.8 + 1 / (2 * 0.5)) / 4)
    assert found["snips_logged"]["value"] == pytest.approx(2.25 / (1 / 0.8 + 1 / 0.1 + 1 / 0.2 + 1))
    assert found["references"]["random"]["accuracy"]["value"] == pytest.approx((0.5 + 0.25 + 0.5 + 0.5) / 4)
    assert found["references"]["random"]["ips"]["value"] == 1
    # t1's captions are all the same: there the artworks are compared.
    assert found["by_position"][1]["accuracy"] == 0

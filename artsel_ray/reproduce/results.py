"""Our numbers beside the paper's: results.parquet and report.html of a reproduction, at any time of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from artsel_ray import schema, storage
from artsel_ray.evaluate.choices import read_choices
from artsel_ray.evaluate.example_table import ExampleTable, read_examples
from artsel_ray.evaluation.metrics import FloatArray, evaluate_policies
from artsel_ray.report.html import render_reproduction
from artsel_ray.reproduce.paper import Row, Run, zero_shot
from artsel_ray.reproduce.settings import ReproduceConfig

_RESAMPLES = 2_000


@dataclass(frozen=True)
class Findings:
    """What a reproduction has found by now."""

    rows: Sequence[Row]
    figure: Sequence[Run]
    names: dict[Run, str]
    errors: dict[str, str]
    """For the name of each run that failed, why."""
    predictions: dict[Run, str]
    """URIs; one without a manifest is not there yet."""
    production: str
    """URI of the baseline's predictions."""
    examples: str
    """URI of the test examples."""
    simulated: bool
    models: Sequence[str]


def publish(config: ReproduceConfig, findings: Findings) -> None:
    """Writes results.parquet and report.html below the output."""
    table = read_examples(findings.examples)
    production_n = read_choices(findings.production, table).hit_n(table)
    hits = {
        run: read_choices(uri, table).hit_n(table)
        for run, uri in findings.predictions.items()
        if storage.read_manifest(uri) is not None
    }
    rows = [_result(row, findings, table, hits, production_n, config.seed) for row in findings.rows]
    results = pa.Table.from_pylist(rows, schema.RESULTS)
    storage.write_table(storage.join(config.output, "results.parquet"), results, "results")
    positions = {
        f"{run.size}, {run.output}": _evaluate(table, {"model": hits[run]}, config.seed)["by_position"]
        for run in findings.figure
        if run in hits
    }
    facts = {"scale": config.scale, "models": findings.models, "simulated": findings.simulated,
             "examples": len(table.examples.user_n), "users": len(table.users)}  # fmt: skip
    uri = storage.join(config.output, "report.html")
    storage.write_object(uri, render_reproduction(rows, positions, facts).encode())
    done, all_ = ({findings.names[run] for run in found} for found in (hits, findings.names))
    print(f"{len(done)} of {len(all_)} runs are in {uri}", flush=True)


def _result(
    row: Row,
    findings: Findings,
    table: ExampleTable,
    hits: dict[Run, FloatArray],
    production_n: FloatArray,
    seed: int,
) -> dict[str, Any]:
    name = "random" if row.run is None else findings.names[row.run]
    result: dict[str, Any] = {
        "table": row.table, "row": row.label, "run": name, "paper_is_over": row.against,
        "paper_accuracy": row.accuracy, "paper_ips": row.ips, "error": findings.errors.get(name),
    }  # fmt: skip
    model_n = table.examples.uniform_n if row.run is None else hits.get(row.run)
    if model_n is None:
        return result
    policies = {"model": model_n, "production": production_n}
    if row.run and zero_shot(row.run) in hits:
        policies["zero_shot"] = hits[zero_shot(row.run)]
    found = _evaluate(table, policies, seed)
    estimates = {"": found["model"]} | {f"_over_{other}": changes for other, changes in found["relative"].items()}
    for change, of_metric in estimates.items():
        for metric in ("accuracy", "ips"):
            for end, key in (("", "value"), ("_low", "low"), ("_high", "high")):
                result[f"{metric}{change}{end}"] = of_metric[metric][key]
    return result


def _evaluate(table: ExampleTable, policies: dict[str, FloatArray], seed: int) -> dict[str, Any]:
    return evaluate_policies(table.examples, policies, _RESAMPLES, seed)

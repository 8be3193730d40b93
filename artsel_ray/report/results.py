"""Our numbers beside the paper's: results.parquet and report.html of a reproduction, at any time of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from artsel_ray import schema, storage
from artsel_ray.config import ReproduceConfig
from artsel_ray.evaluation.metrics import FloatArray, evaluate_policies
from artsel_ray.report.choices import read_choices
from artsel_ray.report.html import render_reproduction
from artsel_ray.report.paper import Row, Run, reference
from artsel_ray.report.tables import ExampleTable, read_examples

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
    compared = reference(row)
    model_n = table.examples.uniform_n if row.run is None else hits.get(row.run)
    other_n = production_n if compared is None else hits.get(compared)
    name = "random" if row.run is None else findings.names[row.run]
    result = {
        "table": row.table, "row": row.label, "run": name, "against": row.against,
        "paper_accuracy_change": row.accuracy, "paper_ips_change": row.ips, "error": findings.errors.get(name),
    }  # fmt: skip
    estimates: dict[str, dict[str, float | None]] = {}
    if model_n is not None:
        policies = {"model": model_n} | ({} if other_n is None else {"other": other_n})
        found = _evaluate(table, policies, seed)
        estimates |= {metric: found["model"][metric] for metric in ("accuracy", "ips")}
        estimates |= {f"{metric}_change": change for metric, change in found["relative"].get("other", {}).items()}
    for metric in ("accuracy", "ips", "accuracy_change", "ips_change"):
        for end, key in (("", "value"), ("_low", "low"), ("_high", "high")):
            result[f"{metric}{end}"] = estimates.get(metric, {}).get(key)
    return result


def _evaluate(table: ExampleTable, policies: dict[str, FloatArray], seed: int) -> dict[str, Any]:
    return evaluate_policies(table.examples, policies, _RESAMPLES, seed)

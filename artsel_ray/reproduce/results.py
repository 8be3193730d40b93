"""Our numbers next to the paper's: results.parquet and report.html of a reproduction, at any time of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from artsel_ray import schema, storage
from artsel_ray.evaluate.choices import read_choices
from artsel_ray.evaluate.example_table import read_examples
from artsel_ray.evaluation.examples import PolicyOnExamples
from artsel_ray.evaluation.policies import EstimateSettings, ExampleResults, evaluate_policies
from artsel_ray.report.html import render_reproduction
from artsel_ray.reproduce.paper import Experiment, Row, experiments, zero_shot
from artsel_ray.reproduce.study import Study, is_finished

_RESAMPLES = 2_000


def publish(study: Study, rows: Sequence[Row], figure: Sequence[Experiment], errors: Mapping[str, str]) -> None:
    """Writes results.parquet and report.html below the output, with the experiments that are finished by now.

    Args:
        figure: the curves of Figure 1.
        errors: why an experiment failed, by its name.
    """
    table, settings = read_examples(study.test_examples), EstimateSettings(_RESAMPLES, study.config.seed)

    def policy(uri: str) -> PolicyOnExamples:
        return PolicyOnExamples(table.examples, read_choices(uri, table).hit_n(table))

    production, needed = policy(study.production), experiments(rows, figure)
    predictions = {experiment: study.predictions(experiment) for experiment in needed}
    finished = {experiment: policy(uri) for experiment, uri in predictions.items() if is_finished(uri)}
    results = [_result(row, study, errors, _against_references(row, production, finished, settings)) for row in rows]
    content = pa.Table.from_pylist(results, schema.RESULTS)
    storage.write_table(storage.join(study.config.output, "results.parquet"), content, "results")
    curves = {}
    for experiment in (each for each in figure if each in finished):
        by_position = evaluate_policies({"model": finished[experiment]}, settings).by_position
        curves[f"{experiment.size}, {experiment.output}"] = [asdict(position) for position in by_position]
    facts = {"scale": study.config.scale, "models": study.scale.models, "simulated": not study.config.world,
             "examples": len(table.examples.user_n), "users": len(table.users)}  # fmt: skip
    uri = storage.join(study.config.output, "report.html")
    storage.write_object(uri, render_reproduction(results, curves, facts).encode())
    done, names = ({study.name(experiment) for experiment in each} for each in (finished, needed))
    print(f"{len(done)} of {len(names)} experiments are in {uri}", flush=True)


def _against_references(
    row: Row, production: PolicyOnExamples, finished: Mapping[Experiment, PolicyOnExamples], settings: EstimateSettings
) -> ExampleResults | None:
    """Returns a row's policy against production and its zero-shot model; None if it is not there yet."""
    random = PolicyOnExamples(production.examples, production.examples.uniform_n)
    policy = finished.get(row.experiment) if row.experiment else random
    if policy is None:
        return None
    policies = {"model": policy, "production": production}
    if row.experiment and zero_shot(row.experiment) in finished:
        policies["zero_shot"] = finished[zero_shot(row.experiment)]
    return evaluate_policies(policies, settings)


def _result(row: Row, study: Study, errors: Mapping[str, str], results: ExampleResults | None) -> dict[str, Any]:
    """Returns a row of the table of results, without our numbers if they are not there yet."""
    name = study.name(row.experiment) if row.experiment else "random"
    result: dict[str, Any] = {
        "table": row.table, "row": row.label, "run": name, "paper_is_over": row.against,
        "paper_accuracy": row.accuracy, "paper_ips": row.ips, "error": errors.get(name),
    }  # fmt: skip
    if results is None:
        return result
    measured = {"": results.policies["model"].metrics}
    measured |= {f"_over_{reference}": changes for reference, changes in results.relative.items()}
    for change, metrics in measured.items():
        for metric in ("accuracy", "ips"):
            measurement = metrics[metric]
            result[f"{metric}{change}"] = measurement.value
            result[f"{metric}{change}_low"], result[f"{metric}{change}_high"] = measurement.low, measurement.high
    return result

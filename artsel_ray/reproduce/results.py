"""Our numbers next to the paper's: results.parquet and report.html of a reproduction, at any time of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from artsel_ray import schema, storage
from artsel_ray.evaluate.choices import read_choices
from artsel_ray.evaluate.example_table import ExampleTable, read_examples
from artsel_ray.evaluation.examples import PolicyOnExamples
from artsel_ray.evaluation.policies import EstimateSettings, ExampleResults, evaluate_policies
from artsel_ray.report.html import render_reproduction
from artsel_ray.reproduce.paper import Experiment, Row, experiments, zero_shot
from artsel_ray.reproduce.study import Study, is_finished

_RESAMPLES = 2_000


@dataclass(frozen=True)
class Reproduction:
    """What a reproduction compares."""

    study: Study
    rows: Sequence[Row]
    figure: Sequence[Experiment]

    @property
    def names(self) -> dict[Experiment, str]:
        """The experiments that are needed, in the order in which to run them, and their names."""
        return {experiment: self.study.name(experiment) for experiment in experiments(self.rows, self.figure)}


@dataclass(frozen=True)
class _Outcome:
    """What is there by now."""

    production: PolicyOnExamples
    experiments: Mapping[Experiment, PolicyOnExamples]
    """Those that are finished."""
    settings: EstimateSettings

    def against_references(self, row: Row) -> ExampleResults | None:
        """Returns a row's policy against production and its zero-shot model; None if it is not there yet."""
        random = PolicyOnExamples(self.production.examples, self.production.examples.uniform_n)
        policy = self.experiments.get(row.experiment) if row.experiment else random
        if policy is None:
            return None
        policies = {"model": policy, "production": self.production}
        if row.experiment and zero_shot(row.experiment) in self.experiments:
            policies["zero_shot"] = self.experiments[zero_shot(row.experiment)]
        return evaluate_policies(policies, self.settings)


def publish(reproduction: Reproduction, errors: Mapping[str, str]) -> None:
    """Writes results.parquet and report.html below the output.

    Args:
        errors: why an experiment failed, by its name.
    """
    study = reproduction.study
    table = read_examples(study.test_examples)
    outcome = _read(table, reproduction)
    rows = [_result(row, study, errors, outcome.against_references(row)) for row in reproduction.rows]
    results = pa.Table.from_pylist(rows, schema.RESULTS)
    storage.write_table(storage.join(study.config.output, "results.parquet"), results, "results")
    facts = {"scale": study.config.scale, "models": study.scale.models, "simulated": not study.config.world,
             "examples": len(table.examples.user_n), "users": len(table.users)}  # fmt: skip
    uri = storage.join(study.config.output, "report.html")
    storage.write_object(uri, render_reproduction(rows, _positions(reproduction.figure, outcome), facts).encode())
    done = {study.name(experiment) for experiment in outcome.experiments}
    print(f"{len(done)} of {len(set(reproduction.names.values()))} experiments are in {uri}", flush=True)


def _read(table: ExampleTable, reproduction: Reproduction) -> _Outcome:
    def policy(uri: str) -> PolicyOnExamples:
        return PolicyOnExamples(table.examples, read_choices(uri, table).hit_n(table))

    study = reproduction.study
    predictions = {experiment: study.predictions(experiment) for experiment in reproduction.names}
    finished = {experiment: policy(uri) for experiment, uri in predictions.items() if is_finished(uri)}
    return _Outcome(policy(study.production), finished, EstimateSettings(_RESAMPLES, study.config.seed))


def _positions(figure: Sequence[Experiment], outcome: _Outcome) -> dict[str, list[dict[str, Any]]]:
    """Returns the curves of Figure 1 that are there by now."""
    curves = {}
    for experiment in (each for each in figure if each in outcome.experiments):
        results = evaluate_policies({"model": outcome.experiments[experiment]}, outcome.settings)
        curves[f"{experiment.size}, {experiment.output}"] = [asdict(position) for position in results.by_position]
    return curves


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

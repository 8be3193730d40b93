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
from artsel_ray.reproduce.paper import Experiment, Row, zero_shot

_RESAMPLES = 2_000


@dataclass(frozen=True)
class Reproduction:
    """What a reproduction compares, and where its results are."""

    rows: Sequence[Row]
    figure: Sequence[Experiment]
    names: Mapping[Experiment, str]
    predictions: Mapping[Experiment, str]
    """URIs; one without a manifest is not there yet."""
    production: str
    """URI of the baseline's predictions."""
    examples: str
    """URI of the test examples."""
    scale: str
    models: Sequence[str]
    simulated: bool
    seed: int
    """Seed of the bootstrap."""


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


def publish(output: str, reproduction: Reproduction, errors: Mapping[str, str]) -> None:
    """Writes results.parquet and report.html below the output.

    Args:
        errors: why an experiment failed, by its name.
    """
    table = read_examples(reproduction.examples)
    outcome = _read(table, reproduction)
    rows = [_result(row, reproduction, errors, outcome.against_references(row)) for row in reproduction.rows]
    results = pa.Table.from_pylist(rows, schema.RESULTS)
    storage.write_table(storage.join(output, "results.parquet"), results, "results")
    facts = {"scale": reproduction.scale, "models": reproduction.models, "simulated": reproduction.simulated,
             "examples": len(table.examples.user_n), "users": len(table.users)}  # fmt: skip
    uri = storage.join(output, "report.html")
    storage.write_object(uri, render_reproduction(rows, _positions(reproduction.figure, outcome), facts).encode())
    done = {reproduction.names[experiment] for experiment in outcome.experiments}
    print(f"{len(done)} of {len(set(reproduction.names.values()))} experiments are in {uri}", flush=True)


def _read(table: ExampleTable, reproduction: Reproduction) -> _Outcome:
    def policy(uri: str) -> PolicyOnExamples:
        return PolicyOnExamples(table.examples, read_choices(uri, table).hit_n(table))

    return _Outcome(
        production=policy(reproduction.production),
        experiments={
            experiment: policy(uri)
            for experiment, uri in reproduction.predictions.items()
            if storage.read_manifest(uri) is not None
        },
        settings=EstimateSettings(_RESAMPLES, reproduction.seed),
    )


def _positions(figure: Sequence[Experiment], outcome: _Outcome) -> dict[str, list[dict[str, Any]]]:
    """Returns the curves of Figure 1 that are there by now."""
    return {
        f"{experiment.size}, {experiment.output}": [
            asdict(position)
            for position in evaluate_policies({"model": outcome.experiments[experiment]}, outcome.settings).by_position
        ]
        for experiment in figure
        if experiment in outcome.experiments
    }


def _result(
    row: Row, reproduction: Reproduction, errors: Mapping[str, str], results: ExampleResults | None
) -> dict[str, Any]:
    """Returns a row of the table of results, without our numbers if they are not there yet."""
    name = reproduction.names[row.experiment] if row.experiment else "random"
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

"""The content of metrics.json."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from artsel_ray.evaluate.choices import PredictedChoices
from artsel_ray.evaluate.example_table import ExampleTable
from artsel_ray.evaluate.impressions import LogEvaluation
from artsel_ray.evaluate.known_and_new import TitlesResult
from artsel_ray.evaluate.policies import BEST_LOGGED, EXPECTED_BEST, ORACLE, SERVED
from artsel_ray.evaluation.examples import UNKNOWN, IntArray, PolicyOnExamples
from artsel_ray.evaluation.logging_policy import log_warnings
from artsel_ray.evaluation.metrics import headline, summary_metrics
from artsel_ray.evaluation.off_policy import Terms
from artsel_ray.evaluation.policies import MODEL, EstimateSettings, ExampleResults, PositionBias

_MANY_MISSING = 0.1
"""Share of the examples without a usable prediction from which on there is a warning."""
_CEILINGS = (EXPECTED_BEST, BEST_LOGGED)
"""Policies that are shown with the oracle, and compared with no other."""


@dataclass(frozen=True)
class Findings:
    """What an evaluation has found."""

    table: ExampleTable
    choices: dict[str, PredictedChoices]
    """Of the model and, if given, of the baseline and the oracles."""
    results: ExampleResults
    log: LogEvaluation | None
    position_bias: PositionBias | None
    settings: EstimateSettings
    scoring_invalid: int
    simulated: bool
    engagements_c: IntArray | None = None
    """Engagements with each candidate in the train examples, if there are some."""
    dm_left_out: str = ""
    """Why there is no DM; empty if there is."""
    titles: dict[str, TitlesResult] = field(default_factory=dict)
    """Results for known and for new titles, if some are new."""


def metrics_content(findings: Findings) -> dict[str, Any]:
    """Returns the content of metrics.json."""
    table, results, settings = findings.table, asdict(findings.results), findings.settings
    known = int(table.examples.known_n.sum())
    compared = [name for name in results["difference"] if name not in _CEILINGS]
    return {
        "headline": headline(bool(known)),
        "examples": len(table.examples.user_n),
        "users": len(table.users),
        **_row(results["policies"][MODEL]),
        "warnings": _warnings(findings),
        **_counts(findings.choices[MODEL]),
        "rejected_examples": table.invalid.num_rows,
        "rejected_predictions": findings.scoring_invalid,
        "known_propensities": known,
        "invalid_propensities": table.invalid_propensities,
        "max_weight": settings.max_weight if math.isfinite(settings.max_weight) else None,
        "dm_left_out": findings.dm_left_out or None,
        "simulated": findings.simulated,
        "note": " ".join(_notes(findings, known)),
        "by_position": results["by_position"],
        "relative": {name: results["relative"][name] for name in compared},
        "difference": {name: results["difference"][name] for name in compared},
        "references": {name: _reference(name, results["policies"], findings.choices) for name in compared},
        "titles": {name: _titles(found) for name, found in findings.titles.items()} or None,
        "log": _log(findings.log) if findings.log else None,
        "permutations": asdict(findings.position_bias) if findings.position_bias else None,
    }


def _row(result: dict[str, Any]) -> dict[str, Any]:
    return {**result["metrics"], "effective_sample_size": result["effective_sample_size"]}


def _counts(choices: PredictedChoices) -> dict[str, int]:
    return {
        "missing": int(choices.missing_n.sum()),
        "unknown_artwork": choices.unknown_artwork,
        "other_predictions": choices.other,
        "unusable_predictions": choices.invalid.num_rows,
    }


def _reference(name: str, policies: dict[str, Any], choices: dict[str, PredictedChoices]) -> dict[str, Any]:
    row = _row(policies[name])
    if name in choices:
        row |= _counts(choices[name])
    if name == ORACLE:
        best = policies[EXPECTED_BEST]["metrics"]
        row["expected_best"] = {metric.name: best[metric.name] for metric in summary_metrics(has_propensities=False)}
    if name == ORACLE and BEST_LOGGED in policies:
        row[BEST_LOGGED] = {
            metric.name: policies[BEST_LOGGED]["metrics"][metric.name]
            for metric in summary_metrics(has_propensities=True)
        }
    return row


def _titles(found: TitlesResult) -> dict[str, Any]:
    """Returns the same as for all examples: the model's metrics, its references, and the differences from them."""
    results = asdict(found.results)
    compared = [name for name in results["difference"] if name not in _CEILINGS]
    return {
        **{name: getattr(found, name) for name in ("examples", "users", "titles", "missing")},
        **_row(results["policies"][MODEL]),
        "difference": {name: results["difference"][name] for name in compared},
        "references": {name: _reference(name, results["policies"], {}) for name in compared},
    }


def _log(log: LogEvaluation) -> dict[str, Any]:
    results = asdict(log.results)
    results["policies"] = {name: _row(result) for name, result in results["policies"].items()}
    return {
        **results,
        "left_out": log.left_out,
        "rejected_impressions": log.invalid,
        "dm_left_out": log.dm_left_out or None,
    }


def _warnings(findings: Findings) -> list[str]:
    table = findings.table
    warnings = log_warnings(table.examples, table.truth_n, table.title_n)
    warnings += [text for name in findings.choices if name != BEST_LOGGED for text in _coverage(name, findings)]
    for name in (name for name, choices in findings.choices.items() if choices.explored and choices.served_c is None):
        unknown = "its propensities are neither those of --explore epsilon nor of softmax"
        warnings.append(f"{name}: {unknown}; what the run served is not judged, only its most likely artworks are")
    if findings.engagements_c is not None and not findings.engagements_c.any():
        warnings.append("popularity: no train example engages with any of the candidates, so it is a random draw")
    policies = [(name, result) for name, result in findings.results.policies.items() if name not in _CEILINGS]
    warnings += [f"{name}, {text}" for name, result in policies for text in result.warnings]
    for kind, found in findings.titles.items():
        warnings += [f"{MODEL} on {kind} titles, {text}" for text in found.results.policies[MODEL].warnings]
    if log := findings.log:
        warnings += [f"log: {text}" for text in log.warnings]
        results = log.results.policies.items()
        warnings += [f"{name} on the log: {text}" for name, result in results for text in result.warnings]
    return warnings


def _coverage(name: str, findings: Findings) -> list[str]:
    """Warns if many examples have no usable prediction, with the values on those that have one."""
    choices, table = findings.choices[name], findings.table
    policy = PolicyOnExamples(table.examples, choices.hit_n(table))
    has_n = choices.artwork_n != UNKNOWN
    if (share := float(1 - has_n.mean())) <= _MANY_MISSING:
        return []
    values = []
    for metric in summary_metrics(bool(policy.examples.known_n.any())):
        terms = metric.terms(policy, findings.settings.max_weight)
        on_those = Terms(terms.numerator_n[has_n], terms.denominator_n[has_n]).value
        heading = metric.heading.replace("\n", ", ")
        values.append(f"{heading} {on_those:.4f} (on all {terms.value:.4f})")
    without = f"{share:.0%} of the examples have no prediction of a candidate and count as wrong"
    return [f"{name}: {without}; on those that have one: {'; '.join(values)}"]


def _notes(findings: Findings, known: int) -> list[str]:
    settings, table, policies = findings.settings, findings.table, findings.results.policies
    examples, users = len(table.examples.user_n), len(table.users)
    notes = [
        "ips and snips divide by 1/m, as if each of the title's m candidates had been shown equally often.",
        _propensity_note(known, examples, settings.max_weight),
        f"effective_sample_size is Kish's (Σw)²/Σw² of w = hit / {'logged propensity' if known else '(1/m)'}.",
        f"dm is left out: {findings.dm_left_out}."
        if findings.dm_left_out
        else "dm is what the baseline's probabilities expect ips to be.",
        "position is the 0-based position of the engaged artwork among the candidates.",
        f"Intervals are 95 % percentiles over {settings.resamples} resamples of the {users} users: about other users "
        f"of these {len(table.titles)} titles, not about other titles. A share of 0 or 1 has Wilson's interval.",
    ]
    if table.invalid_propensities:
        notes.append(f"{table.invalid_propensities} propensities are not in (0, 1] and count as not known.")
    if users == 1:
        notes.append("With one user every resample is the same: the intervals are points and say nothing.")
    if "popularity" not in policies:
        notes.append("popularity is absent: no train examples next to the examples, and no --train.")
    else:
        notes.append("popularity draws uniformly among the title's artworks most engaged with in the train examples.")
    if SERVED["model"] in policies:
        notes.append("model is each prediction's most likely artwork; served is the policy that drew what was served.")
    if findings.titles:
        notes.append("A title is new if no train example has it; intervals of new titles are over users and titles.")
    if ORACLE in policies:
        notes.append("expected_best is the oracle's accuracy and uniform IPS under its own distribution.")
    if BEST_LOGGED in policies:
        notes.append("best_logged is the oracle that shows the most engaging artwork, whatever the log showed.")
    return notes


def _propensity_note(known: int, examples: int, max_weight: float) -> str:
    if not known:
        return "ips_logged and snips_logged are null: no example has a propensity."
    clipped = f" Their weights are clipped at {max_weight:g}." if math.isfinite(max_weight) else ""
    return (
        f"ips_logged and snips_logged divide by the logged propensity, known for {known} of {examples} examples; "
        f"the others are left out of these two.{clipped}"
    )

"""Evaluates predictions on held-out examples: metrics.json, report.html and a table on standard output."""

import time
from typing import Any

import numpy as np
import pyarrow as pa

from artsel_ray import storage
from artsel_ray.config import EvaluateConfig, resolved
from artsel_ray.errors import InputError
from artsel_ray.evaluation.metrics import METRICS, FloatArray, IntArray, evaluate_policies, truth_probability
from artsel_ray.report.choices import Choices, Oracle, count_rejected, read_choices, read_oracle
from artsel_ray.report.html import render_evaluation
from artsel_ray.report.tables import UNKNOWN, ExampleTable, engagements, read_examples
from artsel_ray.schema import REJECTED

SHOWN_EXAMPLES = 24


def evaluate(config: EvaluateConfig) -> None:
    """Writes metrics.json, report.html, config.json and summary.json below `config.output`, and prints a table.

    Raises:
        InputError: if examples, predictions, baseline or oracle cannot be used.
    """
    started = time.monotonic()
    _check(config)
    table = read_examples(config.examples)
    choices = {"model": read_choices(config.predictions, table)}
    if config.baseline:
        choices["baseline"] = read_choices(config.baseline, table)
    oracle = read_oracle(config.oracle, table) if config.oracle else None
    if oracle:
        choices["oracle"] = oracle.choices
    counts = _train_engagements(config, table)
    read_seconds = time.monotonic() - started
    policies = _policies(table, choices, oracle, counts)
    metrics = _metrics(config, table, choices, policies)
    uris = [storage.join(config.output, name) for name in ("metrics.json", "report.html")]
    report = render_evaluation(metrics, _shown(table, choices["model"], config.seed), _sources(config))
    _write_rejected(config.output, "examples", table.rejected)
    for name in ("model", "baseline"):
        _write_rejected(config.output, name, choices[name].rejected if name in choices else REJECTED.empty_table())
    storage.write_json(storage.join(config.output, "config.json"), resolved(config))
    storage.write_json(uris[0], metrics)
    storage.write_object(uris[1], report.encode())
    summary = {name: value for name, value in metrics.items() if isinstance(value, int)}
    seconds = {"read": read_seconds, "total": time.monotonic() - started}
    storage.write_json(storage.join(config.output, "summary.json"), {**summary, "seconds": seconds})
    print("\n".join([*_lines(metrics), *uris]))


def _check(config: EvaluateConfig) -> None:
    if config.resamples < 1:
        raise InputError(f"--resamples is {config.resamples}, expected at least 1")
    if storage.exists(storage.join(config.examples, "train")):
        raise InputError(f"{config.examples} holds several splits; give one, such as {config.examples}/test")
    if storage.join(config.output) in {storage.join(config.examples), storage.join(config.predictions)}:
        raise InputError(f"--output {config.output} is an input's folder; give another")


def _write_rejected(output: str, name: str, rejected: pa.Table) -> None:
    uri = storage.join(output, "rejected", f"{name}.parquet")
    storage.delete(uri)
    if rejected.num_rows:
        storage.write_table(uri, rejected, "rejected")


def _above(uri: str, levels: int) -> str:
    """Returns the folder that many levels above; never above the bucket."""
    if not storage.is_uri(uri):
        return storage.join(uri, *[".."] * levels)
    path, mark, query = uri.partition("?")
    scheme, _, rest = path.rstrip("/").partition("://")
    parts = rest.split("/")
    return f"{scheme}://{'/'.join(parts[: max(1, len(parts) - levels)])}{mark}{query}"


def _train_engagements(config: EvaluateConfig, table: ExampleTable) -> IntArray | None:
    """Counts engagements in --train; without that flag in `../train`, if it is there."""
    if config.train:
        return engagements(config.train, table)
    beside = storage.join(_above(config.examples, 1), "train")
    return engagements(beside, table) if storage.find_files(beside) else None


def _simulated(config: EvaluateConfig) -> bool:
    """Tells whether there is an oracle, or the summary of the prepared data says that its input is simulated."""
    summary = storage.join(_above(config.examples, 2), "summary.json")
    return bool(config.oracle) or (storage.exists(summary) and bool(storage.read_json(summary).get("simulated")))


def _policies(
    table: ExampleTable, choices: dict[str, Choices], oracle: Oracle | None, counts: IntArray | None
) -> dict[str, FloatArray]:
    """Returns each policy's probability of the engaged artwork, in the order in which the report shows them."""
    policies = {"model": choices["model"].hit_n(table), "random": table.examples.uniform_n}
    if counts is not None:
        policies["popularity"] = truth_probability(counts, table.examples)
    if oracle:
        policies |= {"oracle": oracle.choices.hit_n(table), "expected_best": oracle.best_n}
    if "baseline" in choices:
        policies["baseline"] = choices["baseline"].hit_n(table)
    return policies


def _oddities(choices: Choices) -> dict[str, int]:
    return {
        "missing": int(choices.missing_n.sum()),
        "unknown_artwork": choices.unknown_artwork,
        "other_predictions": choices.other,
        "unusable_predictions": choices.rejected.num_rows,
    }


def _metrics(
    config: EvaluateConfig, table: ExampleTable, choices: dict[str, Choices], policies: dict[str, FloatArray]
) -> dict[str, Any]:
    """Returns the content of metrics.json."""
    results = evaluate_policies(table.examples, policies, config.resamples, config.seed)
    references, relative = results["references"], results["relative"]
    for name in references.keys() & choices.keys():
        references[name] |= _oddities(choices[name])
    if "expected_best" in references:
        expected = references.pop("expected_best")
        references["oracle"]["expected_best"] = {name: expected[name] for name in ("accuracy", "ips")}
        del relative["expected_best"]
    known = int(np.isfinite(table.examples.propensity_n).sum())
    examples = len(table.examples.user_n)
    return {
        "examples": examples,
        "users": len(table.users),
        **results["model"],
        **_oddities(choices["model"]),
        "rejected_examples": table.rejected.num_rows,
        "rejected_predictions": count_rejected(config.predictions),
        "known_propensities": known,
        "invalid_propensities": table.invalid_propensities,
        "simulated": _simulated(config),
        "note": " ".join(_notes(config, table, known, policies)),
        "by_position": results["by_position"],
        "relative": relative,
        "references": references,
    }


def _notes(config: EvaluateConfig, table: ExampleTable, known: int, policies: dict[str, FloatArray]) -> list[str]:
    examples, users = len(table.examples.user_n), len(table.users)
    notes = [
        "ips and snips divide by 1/m, as if each of the title's m candidates had been shown equally often.",
        f"ips_logged and snips_logged divide by the logged propensity, known for {known} of {examples} examples; "
        "the others are left out of these two."
        if known
        else "ips_logged and snips_logged are null: no example has a propensity.",
        f"effective_sample_size is Kish's (Σw)²/Σw² of w = hit / {'logged propensity' if known else '(1/m)'}.",
        "position is the 0-based place of the engaged artwork among the candidates.",
        f"Intervals are 95 % percentiles over {config.resamples} resamples of the {users} users.",
    ]
    if table.invalid_propensities:
        notes.append(f"{table.invalid_propensities} propensities are not in (0, 1] and count as not known.")
    if users == 1:
        notes.append("With one user every resample is the same: the intervals are points and say nothing.")
    if "popularity" not in policies:
        notes.append("popularity is absent: no train examples beside the examples, and no --train.")
    else:
        notes.append("popularity draws uniformly among the title's artworks most engaged with in the train examples.")
    if "oracle" in policies:
        notes.append("expected_best is the oracle's accuracy and uniform IPS under its own distribution.")
    return notes


def _shown(table: ExampleTable, choices: Choices, seed: int) -> list[dict[str, Any]]:
    """Returns some examples drawn at random, as ids."""
    count = len(table.pair_n)
    drawn = np.sort(np.random.default_rng(seed).choice(count, min(count, SHOWN_EXAMPLES), replace=False))
    return [
        {
            "user": str(table.users[table.examples.user_n[n]]),
            "title": str(table.titles[table.title_n[n]]),
            "chosen": None if choices.artwork_n[n] == UNKNOWN else str(table.artworks[choices.artwork_n[n]]),
            "truth": str(table.artworks[table.truth_n[n]]),
            "missing": bool(choices.missing_n[n]),
            "hit": bool(choices.artwork_n[n] == table.truth_n[n]),
            "probability": None if np.isnan(choices.probability_n[n]) else float(choices.probability_n[n]),
            "candidates": int(table.examples.candidates_n[n]),
        }
        for n in drawn
    ]


def _sources(config: EvaluateConfig) -> dict[str, str]:
    """Returns the ends of the inputs' paths: a URI's query can hold what is private, and a report is passed around."""
    given = {name: getattr(config, name) for name in ("examples", "predictions", "baseline", "oracle")}
    return {name: "/".join(uri.partition("?")[0].rstrip("/").split("/")[-2:]) for name, uri in given.items() if uri}


def _lines(metrics: dict[str, Any]) -> list[str]:
    """Returns a plain table of accuracy and IPS, and what was missing."""

    def cell(estimate: dict[str, float | None]) -> str:
        value, low, high = ("-" if number is None else f"{number:.4f}" for number in estimate.values())
        return f"{value} [{low}, {high}]"

    rows = {"model": {name: metrics[name] for name in METRICS}, **metrics["references"]}
    lines = [f"{'':12}{'accuracy':28}{'IPS':28}".rstrip()]
    lines += [f"{name:12}{cell(row['accuracy']):28}{cell(row['ips'])}" for name, row in rows.items()]
    lines.append(f"{metrics['examples']:,} examples of {metrics['users']:,} users, 95 % intervals over users")
    odd = "missing", "unknown_artwork", "other_predictions", "unusable_predictions"
    for name in (*odd, "rejected_examples", "invalid_propensities"):
        if metrics[name]:
            lines.append(f"{name.replace('_', ' ')}: {metrics[name]:,}")
    if metrics["known_propensities"] < metrics["examples"]:
        lines.append(f"usable propensities: {metrics['known_propensities']:,} of {metrics['examples']:,}")
    return lines

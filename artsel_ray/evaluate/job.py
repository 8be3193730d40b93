"""Evaluates predictions on held-out examples: metrics.json, report.html and a table on standard output."""

import math
import time
from typing import Any

import numpy as np
import pyarrow as pa

from artsel_ray import storage
from artsel_ray.config import resolved
from artsel_ray.errors import InputError
from artsel_ray.evaluate.choices import Choices, count_invalid, read_choices, read_oracle
from artsel_ray.evaluate.example_table import UNKNOWN, ExampleTable, engagements, read_examples
from artsel_ray.evaluate.impressions import Impressions, evaluate_impressions, read_impressions
from artsel_ray.evaluate.permutations import read_orders
from artsel_ray.evaluate.policies import policies_of
from artsel_ray.evaluate.settings import EvaluateConfig
from artsel_ray.evaluation.metrics import METRICS, FloatArray, IntArray, evaluate_policies
from artsel_ray.evaluation.position_bias import audit
from artsel_ray.report.html import render_evaluation
from artsel_ray.schema import INVALID_ROWS

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
        choices["baseline"] = read_choices(config.baseline, table, ranked=True)
    oracle = read_oracle(config.oracle, table) if config.oracle else None
    if oracle:
        choices["oracle"] = oracle.choices
    counts = _train_engagements(config, table)
    impressions = read_impressions(config.impressions, str(config.baseline)) if config.impressions else None
    read_seconds = time.monotonic() - started
    metrics = _metrics(config, table, choices, policies_of(table, choices, oracle, counts), impressions)
    uris = [storage.join(config.output, name) for name in ("metrics.json", "report.html")]
    report = render_evaluation(metrics, _shown(table, choices["model"], config.seed), _sources(config))
    invalid = {"examples": table.invalid}
    invalid |= {name: choices[name].invalid for name in ("model", "baseline") if name in choices}
    if impressions:
        invalid["impressions"] = impressions.invalid
    for name in ("examples", "model", "baseline", "impressions"):
        _write_invalid(config.output, name, invalid.get(name, INVALID_ROWS.empty_table()))
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
    if config.max_weight is not None and not config.max_weight > 0:
        raise InputError(f"--max-weight is {config.max_weight}, expected more than 0")
    if config.impressions and not config.baseline:
        raise InputError("--impressions needs a --baseline: its probabilities are the reward model")
    if storage.exists(storage.join(config.examples, "train")):
        raise InputError(f"{config.examples} holds several splits; give one, such as {config.examples}/test")
    if storage.join(config.output) in {storage.join(config.examples), storage.join(config.predictions)}:
        raise InputError(f"--output {config.output} is an input's folder; give another")


def _write_invalid(output: str, name: str, invalid: pa.Table) -> None:
    uri = storage.join(output, "rejected", f"{name}.parquet")
    storage.delete(uri)
    if invalid.num_rows:
        storage.write_table(uri, invalid, "rejected")


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


def _oddities(choices: Choices) -> dict[str, int]:
    return {
        "missing": int(choices.missing_n.sum()),
        "unknown_artwork": choices.unknown_artwork,
        "other_predictions": choices.other,
        "unusable_predictions": choices.invalid.num_rows,
    }


def _metrics(
    config: EvaluateConfig,
    table: ExampleTable,
    choices: dict[str, Choices],
    policies: tuple[dict[str, FloatArray], dict[str, FloatArray]],
    impressions: Impressions | None,
) -> dict[str, Any]:
    """Returns the content of metrics.json."""
    limit = config.max_weight or math.inf
    truth, expected = policies
    results = evaluate_policies(table.examples, truth, config.resamples, config.seed, expected, limit)
    references, relative, difference = results["references"], results["relative"], results["difference"]
    for name in references.keys() & choices.keys():
        references[name] |= _oddities(choices[name])
    if "expected_best" in references:
        best = references.pop("expected_best")
        references["oracle"]["expected_best"] = {name: best[name] for name in ("accuracy", "ips")}
        del relative["expected_best"], difference["expected_best"]
    log = None
    if impressions:
        uris = config.predictions, str(config.baseline)
        log = evaluate_impressions(impressions, *uris, config.resamples, config.seed, limit)
    known = int(np.isfinite(table.examples.propensity_n).sum())
    examples = len(table.examples.user_n)
    return {
        "examples": examples,
        "users": len(table.users),
        **results["model"],
        "warnings": _warnings({"model": results["model"], **references}, log),
        **_oddities(choices["model"]),
        "rejected_examples": table.invalid.num_rows,
        "rejected_predictions": count_invalid(config.predictions),
        "known_propensities": known,
        "invalid_propensities": table.invalid_propensities,
        "max_weight": config.max_weight,
        "simulated": _simulated(config),
        "note": " ".join(_notes(config, table, known, truth)),
        "by_position": results["by_position"],
        "relative": relative,
        "difference": difference,
        "references": references,
        "log": log,
        "permutations": _permutations(config, table),
    }


def _permutations(config: EvaluateConfig, table: ExampleTable) -> dict[str, Any] | None:
    if not config.permutations:
        return None
    orders = read_orders([config.predictions, *config.permutations], table)
    return audit(orders, table.examples, config.resamples, config.seed)


def _warnings(rows: dict[str, dict[str, Any]], log: dict[str, Any] | None) -> list[str]:
    """Gathers what the gates say, each with the policy that it is said of."""
    found = [f"{name}, {text}" for name, row in rows.items() for text in row.pop("warnings")]
    if log:
        found += [f"log: {text}" for text in log.pop("warnings")]
        found += [f"{name} on the log: {text}" for name, row in log["policies"].items() for text in row.pop("warnings")]
    return found


def _notes(config: EvaluateConfig, table: ExampleTable, known: int, policies: dict[str, FloatArray]) -> list[str]:
    examples, users = len(table.examples.user_n), len(table.users)
    notes = [
        "ips and snips divide by 1/m, as if each of the title's m candidates had been shown equally often.",
        f"ips_logged and snips_logged divide by the logged propensity, known for {known} of {examples} examples; "
        "the others are left out of these two."
        + (f" Their weights are cut to {config.max_weight:g}." if config.max_weight else "")
        if known
        else "ips_logged and snips_logged are null: no example has a propensity.",
        f"effective_sample_size is Kish's (Σw)²/Σw² of w = hit / {'logged propensity' if known else '(1/m)'}.",
        "dm is what the baseline's probabilities expect ips to be; null where it gives none.",
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
    given = {name: getattr(config, name) for name in ("examples", "predictions", "baseline", "oracle", "impressions")}
    return {name: "/".join(uri.partition("?")[0].rstrip("/").split("/")[-2:]) for name, uri in given.items() if uri}


def _lines(metrics: dict[str, Any]) -> list[str]:
    """Returns a plain table of accuracy and IPS, and what was missing."""

    def cell(estimate: dict[str, float | None]) -> str:
        value, low, high = ("-" if number is None else f"{number:.4f}" for number in estimate.values())
        return f"{value} [{low}, {high}]"

    rows = {"model": {name: metrics[name] for name in METRICS}, **metrics["references"]}
    lines = [f"{'':12}{'accuracy':28}{'IPS':28}".rstrip()]
    lines += [f"{name:12}{cell(row['accuracy']):28}{cell(row['ips'])}" for name, row in rows.items()]
    lines += [
        f"- {name:10}{cell(row['accuracy']):28}{cell(row['ips'])}"
        for name, row in metrics["difference"].items()
        if name == "baseline"
    ]
    lines.append(f"{metrics['examples']:,} examples of {metrics['users']:,} users, 95 % intervals over users")
    if log := metrics["log"]:
        lines.append(f"{'':12}{'IPS':28}{'DR':28}of {log['impressions']:,} impressions; logged {cell(log['logged'])}")
        lines += [f"{name:12}{cell(row['ips']):28}{cell(row['dr'])}" for name, row in log["policies"].items()]
    if orders := metrics["permutations"]:
        places = " ".join(f"{row['chosen']['value'] or 0:.2f}" for row in orders["by_place"])
        lines.append(
            f"{orders['runs']} orders of the candidates: agreement {cell(orders['agreement'])}, chosen at {places}"
        )
    odd = "missing", "unknown_artwork", "other_predictions", "unusable_predictions"
    for name in (*odd, "rejected_examples", "invalid_propensities"):
        if metrics[name]:
            lines.append(f"{name.replace('_', ' ')}: {metrics[name]:,}")
    if metrics["known_propensities"] < metrics["examples"]:
        lines.append(f"usable propensities: {metrics['known_propensities']:,} of {metrics['examples']:,}")
    return lines + [f"warning: {text}" for text in metrics["warnings"]]

"""Evaluates predictions on held-out examples: metrics.json, report.html and a table on standard output."""

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from artsel_ray import storage
from artsel_ray.config import resolved
from artsel_ray.errors import InputError
from artsel_ray.evaluate import choices as predicted
from artsel_ray.evaluate.choices import PredictedChoices, read_choices
from artsel_ray.evaluate.content import Findings, metrics_content
from artsel_ray.evaluate.example_table import ExampleTable, TrainExamples, read_examples, read_train
from artsel_ray.evaluate.impressions import Impressions, evaluate_impressions, read_impressions
from artsel_ray.evaluate.known_and_new import evaluate_titles
from artsel_ray.evaluate.permutations import read_permuted
from artsel_ray.evaluate.policies import BEST_LOGGED, ORACLE, policies_of
from artsel_ray.evaluate.settings import EvaluateConfig
from artsel_ray.evaluation.examples import UNKNOWN
from artsel_ray.evaluation.policies import EstimateSettings, evaluate_policies, measure_position_bias
from artsel_ray.evaluation.reward_model import gain_on_examples, slope_on_examples, why_left_out, why_not_calibrated
from artsel_ray.report.html import render_evaluation
from artsel_ray.report.terminal import evaluation_lines
from artsel_ray.runtime.run import refuse_other_jobs
from artsel_ray.runtime.shards import INVALID_FOLDER

_SHOWN_EXAMPLES = 24


def evaluate(config: EvaluateConfig) -> None:
    """Writes metrics.json, report.html, config.json and summary.json below the output, and prints a table.

    Raises:
        InputError: if examples, predictions, baseline or oracle cannot be used.
    """
    started = time.monotonic()
    if storage.exists(storage.join(config.examples, "train")):
        raise InputError(f"{config.examples} holds several splits; give one, such as {config.examples}/test")
    refuse_other_jobs(config.output, {"predictions", "resamples"})

    # Inputs are read before any bootstrap, so that wrong ones fail early.
    table = read_examples(config.examples, config.limits)
    choices = {"model": read_choices(config.predictions, table)}
    if config.baseline:
        choices["baseline"] = read_choices(config.baseline, table, ranked=True)
    if config.oracle:
        choices[ORACLE] = predicted.read_oracle(config.oracle, table)
        if table.examples.known_n.any():
            choices[BEST_LOGGED] = predicted.read_oracle(config.oracle, table, most_engaging=True)
    for name, uri in (("model", config.predictions), ("baseline", config.baseline), (ORACLE, config.oracle)):
        if name in choices:
            predicted.check_belongs(str(uri), choices[name], table)
    train = _read_train(config.examples, config.train, table)
    impressions = read_impressions(config.impressions, str(config.baseline), table) if config.impressions else None
    runs = [config.predictions, *config.permutations]
    permuted = read_permuted(runs, table) if config.permutations else None
    read_seconds = time.monotonic() - started

    settings = EstimateSettings(config.resamples, config.seed, config.max_weight or math.inf)
    log = None
    if impressions:
        log = evaluate_impressions(impressions, config.predictions, str(config.baseline), settings)
    dm_left_out = _why_no_direct_method(table, choices, settings)
    engagements_c = train.engagements_c if train else None
    policies = policies_of(table, choices, engagements_c, has_reward_model=not dm_left_out)
    findings = Findings(
        table=table,
        choices=choices,
        results=evaluate_policies(policies, settings),
        log=log,
        position_bias=measure_position_bias(permuted, table.examples, settings) if permuted else None,
        settings=settings,
        scoring_invalid=predicted.count_invalid(config.predictions),
        simulated=bool(config.oracle) or _is_simulated(config.examples),
        engagements_c=engagements_c,
        dm_left_out=dm_left_out,
        titles=evaluate_titles(table, policies, train.is_new_n, choices["model"].missing_n, settings) if train else {},
    )
    _write_invalid(config.output, {"examples": table, "impressions": impressions, "baseline": None, **choices})
    _write_results(config.output, resolved(config), findings, read_seconds, started)


def _write_results(output: str, flags: dict[str, Any], findings: Findings, read_seconds: float, started: float) -> None:
    """Writes all but invalid rows, and prints the table; `started` is of the monotonic clock, in seconds."""
    metrics = metrics_content(findings)
    storage.write_json(storage.join(output, "config.json"), flags)
    metrics_uri, report_uri = (storage.join(output, name) for name in ("metrics.json", "report.html"))
    storage.write_json(metrics_uri, metrics)
    shown = _shown(findings.table, findings.choices["model"], flags["seed"])
    report = render_evaluation(metrics, shown, _sources(flags))
    storage.write_object(report_uri, report.encode())
    summary: dict[str, Any] = {name: value for name, value in metrics.items() if isinstance(value, int)}
    summary["seconds"] = {"read": read_seconds, "total": time.monotonic() - started}
    storage.write_json(storage.join(output, "summary.json"), summary)
    print("\n".join([*evaluation_lines(metrics), metrics_uri, report_uri]))


def _why_no_direct_method(
    table: ExampleTable, choices: Mapping[str, PredictedChoices], settings: EstimateSettings
) -> str:
    if "baseline" not in choices:
        return "there is no --baseline"
    examples, probability_c = table.examples, choices["baseline"].probability_c
    drawn = (examples.user_n, settings.resamples, settings.seed)
    slope = slope_on_examples(examples, probability_c)
    return why_left_out(gain_on_examples(examples, probability_c), *drawn) or why_not_calibrated(slope, None, *drawn)


def _read_train(examples: str, train: str | None, table: ExampleTable) -> TrainExamples | None:
    sibling = storage.join(_above(examples, 1), "train")
    if train is None and not storage.find_files(sibling):
        return None
    return read_train(train or sibling, table)


def _is_simulated(examples: str) -> bool:
    summary = storage.join(_above(examples, 2), "summary.json")
    return storage.exists(summary) and bool(storage.read_json(summary).get("simulated"))


def _above(uri: str, levels: int) -> str:
    """Returns the folder that many levels above; never above the bucket."""
    if not storage.is_uri(uri):
        return storage.join(uri, *[".."] * levels)
    path, separator, query = uri.partition("?")
    scheme, _, rest = path.rstrip("/").partition("://")
    parts = rest.split("/")
    return f"{scheme}://{'/'.join(parts[: max(1, len(parts) - levels)])}{separator}{query}"


def _write_invalid(output: str, inputs: Mapping[str, ExampleTable | PredictedChoices | Impressions | None]) -> None:
    for name, found in inputs.items():
        uri = storage.join(output, INVALID_FOLDER, f"{name}.parquet")
        storage.delete(uri)
        if found and found.invalid.num_rows:
            storage.write_table(uri, found.invalid, "invalid_rows")


def _shown(table: ExampleTable, choices: PredictedChoices, seed: int) -> list[dict[str, Any]]:
    count, is_right_n = len(table.pair_n), choices.hit_n(table)
    drawn = np.sort(np.random.default_rng(seed).choice(count, min(count, _SHOWN_EXAMPLES), replace=False))
    return [
        {
            "user": str(table.users[table.examples.user_n[n]]),
            "title": str(table.titles[table.title_n[n]]),
            "chosen": None if choices.artwork_n[n] == UNKNOWN else str(table.artworks[choices.artwork_n[n]]),
            "truth": str(table.artworks[table.truth_n[n]]),
            "missing": bool(choices.missing_n[n]),
            "hit": bool(is_right_n[n]),
            "probability": None if np.isnan(choices.probability_n[n]) else float(choices.probability_n[n]),
            "candidates": int(table.examples.candidates_n[n]),
        }
        for n in drawn
    ]


def _sources(flags: dict[str, Any]) -> dict[str, str]:
    """Returns the ends of the inputs' paths: a URI's query can hold what is private, and a report is passed around."""
    given = {name: flags[name] for name in ("examples", "predictions", "baseline", "oracle", "impressions")}
    return {name: "/".join(uri.partition("?")[0].rstrip("/").split("/")[-2:]) for name, uri in given.items() if uri}

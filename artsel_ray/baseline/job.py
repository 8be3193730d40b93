"""The baseline's job: read, train on Ray Train, keep the model, predict validation and test.

Suffixes: n examples, c candidates of all examples end to end, b examples of a batch, m most candidates of an example.
"""

import dataclasses
import json
import secrets
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import storage
from artsel_ray.baseline.fitting import Task, fit, network_of
from artsel_ray.baseline.folds import fold_n, subset
from artsel_ray.baseline.settings import BaselineConfig
from artsel_ray.baseline.trials import Fitted, Recipe, Trial, encoder_recipe, measure
from artsel_ray.config import LIMIT_FLAGS, limits_identity, resolved, unused_weighting
from artsel_ray.data.checks import require_propensities
from artsel_ray.errors import InputError
from artsel_ray.evaluation.examples import Examples
from artsel_ray.evaluation.held_out import MAX_WEIGHT, selection_note, shown_metrics
from artsel_ray.evaluation.logging_policy import log_warnings
from artsel_ray.models.load import load as load_model
from artsel_ray.network.encoding import NetworkInputs, encode
from artsel_ray.network.example_arrays import ExampleArrays, IntArray, read_example_arrays
from artsel_ray.network.network_files import MODEL, AnyNetwork, read_model, write_model
from artsel_ray.network.prediction import choose, fingerprints
from artsel_ray.network.text_vectors import NO_VECTORS, VECTORS, TextVectors, text_vectors
from artsel_ray.network.towers import Sizes, Towers
from artsel_ray.network.vocabulary import Vocabulary, make_vocabulary
from artsel_ray.runtime.fingerprint_key import with_key
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.run import begin
from artsel_ray.runtime.shards import INVALID_FOLDER

_TRAIN = "train"
_HELD_OUT = ("validation", "test")
_WORK = "_work"


def baseline(config: BaselineConfig) -> None:
    """Writes model/, predictions/, rejected/, config.json, summary.json and, last, the manifest.

    Raises:
        InputError: for wrong examples, another run's output, or if no trial's loss was finite.
    """
    started = time.monotonic()
    output = config.output
    splits = {name: storage.join(config.examples, name) for name in (_TRAIN, *_HELD_OUT)}
    identity = _identity(config, splits)  # before reading: a file that changes meanwhile makes another run
    rows = {name: read_example_arrays(uri, config.limits) for name, uri in splits.items()}
    if len(rows[_TRAIN].label_n) < config.workers:
        raise InputError(f"{splits[_TRAIN]} has fewer examples than --workers {config.workers}; use fewer workers")
    if config.weight_by_propensity:
        for name in (_TRAIN, "validation"):
            require_propensities(rows[name].without_propensity)
    of_fold_n = fold_n(rows[_TRAIN], config.folds, config.workers, splits[_TRAIN]) if config.folds else None
    run = begin(output, identity, resolved(config))
    if storage.read_manifest(output) is not None:
        print(f"{output} is complete already", flush=True)
        return
    vectors = _read_vectors(config, rows)
    vocabulary = make_vocabulary(rows[_TRAIN], vectors)
    inputs = {name: encode(split, vocabulary, name == _TRAIN, vectors) for name, split in rows.items()}
    for name, split in rows.items():
        if split.invalid.num_rows:
            storage.write_table(storage.join(output, INVALID_FOLDER, f"{name}.parquet"), split.invalid, "invalid_rows")
    encoded = time.monotonic()

    recipes = _recipes(config, vocabulary, vectors)
    print(f"{len(rows[_TRAIN].label_n):,} train examples of {recipes[0].sizes.artworks:,} artworks", flush=True)
    held_out = rows["validation"]
    logged = Examples(np.arange(len(held_out.label_n)), held_out.label_n, held_out.candidates_n, held_out.propensity_n)
    for text in log_warnings(logged, held_out.artwork_c[held_out.engaged_c], held_out.title_n):
        print(f"warning: validation: {text}", flush=True)
    task = Task(inputs[_TRAIN], inputs["validation"], recipes)
    (fitted,) = fit(storage.join(output, _WORK), config.workers, [task])
    network = network_of(task, fitted)
    measured = measure(network, task.validation, recipes[0].weights(task.validation))
    trained = time.monotonic()

    longest = int(rows[_TRAIN].history_n.max())
    model_uri = storage.join(output, MODEL)
    model_id = write_model(model_uri, recipes[0].sizes, network.state_dict(), vocabulary, longest, config.encoder)
    network, _ = read_model(model_uri)
    counts = {
        name: _write_predictions(output, name, make_predictions(network, inputs[name], rows[name], model_id))
        for name in _HELD_OUT
    }
    if of_fold_n is not None:
        out_of_fold = _out_of_fold(config, rows, vectors, [each.best for each in fitted], model_id, of_fold_n)
        counts[_TRAIN] = _write_predictions(output, _TRAIN, out_of_fold)
    seconds = {"read": encoded - started, "train": trained - encoded, "total": time.monotonic() - started}
    summary = {
        "model_id": model_id,
        "examples": {name: len(split.label_n) for name, split in rows.items()},
        "rejected": {name: split.invalid.num_rows for name, split in rows.items()},
        "predictions": counts,
        "best": dataclasses.asdict(fitted[0].best),
        "trials": [_plain(trial) for trial in fitted[0].trials],
        **_encoder_summary(network, fitted, measured),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    storage.write_json(storage.join(output, "summary.json"), summary)
    run.publish({"predictions": counts, "model_id": model_id})
    _print_result(output, fitted, measured, seconds["total"])


def _recipes(config: BaselineConfig, vocabulary: Vocabulary, vectors: TextVectors) -> list[Recipe]:
    """Returns how the network of words is trained, and with an encoder the one over vectors."""
    entries = len(vocabulary.artwork_ids), len(vocabulary.names), len(vocabulary.genres)
    sizes = Sizes(*entries, config.width, config.id_dropout, vectors.vector_te.shape[1])
    rates, decays = config.learning_rates, config.weight_decays
    max_weight = config.max_weight or MAX_WEIGHT if config.weight_by_propensity else None
    words = Recipe(sizes, rates, decays, config.epochs, config.batch_size, config.seed, max_weight)
    return [words, *([encoder_recipe(words)] if config.encoder else [])]


def _out_of_fold(
    config: BaselineConfig,
    rows: dict[str, ExampleArrays],
    vectors: TextVectors,
    best: list[Trial],
    model_id: str,
    of_fold_n: IntArray,
) -> pa.Table:
    """Returns predictions of the train examples, each by a network that was trained without the example's title.

    Args:
        best: of each recipe the trial whose learning rate and weight decay all folds take.
    """
    train, folds = rows[_TRAIN], config.folds
    print(f"{folds} folds: {folds} networks, each without the titles that it predicts", flush=True)
    held_out, vocabularies, tasks = [], [], []
    for fold in range(folds):
        others = subset(train, np.flatnonzero(of_fold_n != fold))
        vocabulary = make_vocabulary(others, vectors)
        recipes = [
            dataclasses.replace(recipe, learning_rates=(trial.learning_rate,), weight_decays=(trial.weight_decay,))
            for recipe, trial in zip(_recipes(config, vocabulary, vectors), best, strict=True)
        ]
        inputs = encode(others, vocabulary, True, vectors), encode(rows["validation"], vocabulary, vectors=vectors)
        held_out.append(subset(train, np.flatnonzero(of_fold_n == fold)))
        vocabularies.append(vocabulary)
        tasks.append(Task(*inputs, recipes))
    fitted = fit(storage.join(config.output, _WORK), config.workers, tasks)
    tables = []
    for task, found, part, vocabulary in zip(tasks, fitted, held_out, vocabularies, strict=True):
        inputs_of_part = encode(part, vocabulary, vectors=vectors)
        tables.append(make_predictions(network_of(task, found), inputs_of_part, part, f"{model_id}+{folds}-folds"))
    return pa.concat_tables(tables)


def _identity(config: BaselineConfig, splits: dict[str, str]) -> dict[str, Any]:
    """Returns what decides the result, as JSON reads it back: all flags but the output, and the files read."""
    files = {name: storage.describe_files(uri) for name, uri in splits.items()}
    flags = resolved(config)
    left_out = ["output", "vectors", "encoders", "gpus_per_encoder", *unused_weighting(flags), *LIMIT_FLAGS]
    if config.encoder:
        flags["encoder"] = load_model(config.encoder, options=False).model_id
    left_out += [name for name in ("encoder", "folds") if not flags[name]]  # as in earlier versions
    identity = {name: value for name, value in flags.items() if name not in left_out} | {"files": files}
    return json.loads(json.dumps(identity | limits_identity(config.limits)))


def _read_vectors(config: BaselineConfig, rows: dict[str, ExampleArrays]) -> TextVectors:
    if config.encoder is None:
        return NO_VECTORS
    start_ray()
    texts = pc.unique(pa.concat_arrays([texts for split in rows.values() for texts in (split.captions, split.names)]))
    kept = config.vectors or storage.join(config.output, VECTORS)
    return text_vectors(config.encoder, texts, kept, config.encoders, config.gpus_per_encoder)


def _encoder_summary(network: AnyNetwork, fitted: list[Fitted], measured: dict[str, float]) -> dict[str, Any]:
    if isinstance(network, Towers):
        return {}
    of_new, of_known = ([round(float(each), 4) for each in row] for row in network.weights)
    return {
        "encoder_best": dataclasses.asdict(fitted[1].best),
        "encoder_trials": [_plain(trial) for trial in fitted[1].trials],
        "weights_of_words_and_encoder": {"new_titles": of_new, "known_titles": of_known},
        "validation": measured,
    }


def _print_result(output: str, fitted: list[Fitted], measured: dict[str, float], seconds: float) -> None:
    for kind, (_, best, _) in zip(("words", "encoder"), fitted, strict=False):
        chosen = f"learning rate {best.learning_rate:g}, weight decay {best.weight_decay:g}"
        print(f"{kind}: {chosen}, validation {shown_metrics(dataclasses.asdict(best))}", flush=True)
    print(f"baseline: validation {shown_metrics(measured)}; {output} ({seconds:.0f} s)", flush=True)
    if note := selection_note(sum(len(each.trials) for each in fitted)):
        print(f"these metrics are {note}: evaluate {output}/predictions/test", flush=True)


def _plain(trial: Trial) -> dict[str, float | None]:
    """Returns a trial for JSON, which has no infinity."""
    values = dataclasses.asdict(trial).items()
    return {name: value if value is not None and np.isfinite(value) else None for name, value in values}


def _write_predictions(output: str, split: str, table: pa.Table) -> int:
    # Nobody reuses these predictions: their key is thrown away.
    keyed = pa.array(with_key(table["fingerprint"].to_pylist(), secrets.token_bytes(32)), pa.string())
    table = table.set_column(table.column_names.index("fingerprint"), "fingerprint", keyed)
    storage.write_table(storage.join(output, "predictions", split, "part-0.parquet"), table, "predictions")
    return table.num_rows


def make_predictions(network: AnyNetwork, inputs: NetworkInputs, rows: ExampleArrays, model_id: str) -> pa.Table:
    """Returns one prediction, with all candidates' probabilities, for every user-title pair (its first example)."""
    probability_c, chosen_n = choose(network, inputs)
    ids_c = rows.artwork_ids.take(pa.array(rows.artwork_c))
    offsets = pa.array(np.append(inputs.first_candidate_n, len(rows.artwork_c)).astype(np.int32))
    candidates = pa.StructArray.from_arrays([ids_c, pa.array(probability_c)], names=["artwork_id", "probability"])
    count = len(rows.label_n)
    table = pa.table(
        {
            "user_id": rows.user_ids,
            "title_id": rows.title_ids,
            "artwork_id": ids_c.take(pa.array(chosen_n)),
            "probability": probability_c[chosen_n],
            "propensity": pa.nulls(count, pa.float64()),
            "candidates": pa.ListArray.from_arrays(offsets, candidates),
            "rationale": pa.nulls(count, pa.string()),
            "model_id": pa.array([model_id] * count),
            "fingerprint": pa.array(fingerprints(rows, inputs.history_hf, model_id), pa.string()),
            "scored_at": pa.array([datetime.now(UTC)] * count, pa.timestamp("us", "UTC")),
        }
    )
    pairs = list(zip(rows.user_ids.to_pylist(), rows.title_ids.to_pylist(), strict=True))
    first = {pair: n for n, pair in reversed(list(enumerate(pairs)))}
    return table.take(pa.array(sorted(first.values())))

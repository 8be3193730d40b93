"""The baseline's job: read, train on Ray Train, keep the model, predict validation and test.

Suffixes: n examples, c candidates of all examples end to end, b examples of a batch, m most candidates of an example.
"""

import dataclasses
import json
import time
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from safetensors.torch import load, save

from artsel_ray import storage
from artsel_ray.baseline.encoding import NetworkInputs, encode
from artsel_ray.baseline.example_arrays import ExampleArrays, IntArray, read_example_arrays
from artsel_ray.baseline.network_files import AnyNetwork, make_network, read_model, write_model
from artsel_ray.baseline.settings import BaselineConfig
from artsel_ray.baseline.text_vectors import NO_VECTORS, TextVectors, text_vectors
from artsel_ray.baseline.towers import Sizes, Towers
from artsel_ray.baseline.trials import Fitted, Recipe, Trial, encoder_recipe, fit_fusion, measure, predict, run_trials
from artsel_ray.baseline.vocabulary import make_vocabulary
from artsel_ray.config import LIMIT_FLAGS, limits_identity, resolved, unused_weighting
from artsel_ray.data.checks import require_propensities
from artsel_ray.errors import InputError
from artsel_ray.evaluation.examples import Examples
from artsel_ray.evaluation.held_out import MAX_WEIGHT, selection_note, shown_metrics
from artsel_ray.evaluation.logging_policy import log_warnings
from artsel_ray.models.load import load as load_model
from artsel_ray.runtime.ray_cluster import own_queue, start_ray, wait_for_resources
from artsel_ray.runtime.ray_train import Trainer, cause, restarts
from artsel_ray.runtime.run import begin
from artsel_ray.runtime.shards import INVALID_FOLDER

_TRAIN = "train"
_HELD_OUT = ("validation", "test")
_WORK = "_work"
VECTORS = "vectors"  # folder of a run's output
# A run takes minutes: after a lost worker it starts again from the beginning.
_MAX_RESTARTS = 2


def baseline(config: BaselineConfig) -> None:
    """Writes model/, predictions/{validation,test}/, rejected/, config.json, summary.json and, last, the manifest.

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

    entries = len(vocabulary.artwork_ids), len(vocabulary.names), len(vocabulary.genres)
    sizes = Sizes(*entries, config.width, config.id_dropout, vectors.vector_te.shape[1])
    rates, decays = config.learning_rates, config.weight_decays
    max_weight = config.max_weight or MAX_WEIGHT if config.weight_by_propensity else None
    recipe = Recipe(sizes, rates, decays, config.epochs, config.batch_size, config.seed, max_weight)
    print(f"{len(rows[_TRAIN].label_n):,} train examples of {recipe.sizes.artworks:,} artworks", flush=True)
    held_out = rows["validation"]
    logged = Examples(np.arange(len(held_out.label_n)), held_out.label_n, held_out.candidates_n, held_out.propensity_n)
    for text in log_warnings(logged, held_out.artwork_c[held_out.engaged_c], held_out.title_n):
        print(f"warning: validation: {text}", flush=True)
    work = storage.join(output, _WORK)
    recipes = [recipe, *([encoder_recipe(recipe)] if config.encoder else [])]
    fitted = _fit(work, config.workers, recipes, inputs[_TRAIN], inputs["validation"])
    network = _network(sizes, fitted, recipe, inputs["validation"])
    measured = measure(network, inputs["validation"], recipe.weights(inputs["validation"]))
    trained = time.monotonic()

    model_id = write_model(storage.join(output, "model"), sizes, network.state_dict(), vocabulary, config.encoder)
    counts = _write_predictions(output, inputs, rows, model_id)
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


def _identity(config: BaselineConfig, splits: dict[str, str]) -> dict[str, Any]:
    """Returns what decides the result, as JSON reads it back: all flags but the output, and the files read."""
    files = {name: storage.describe_files(uri) for name, uri in splits.items()}
    flags = resolved(config)
    left_out = ["output", "vectors", "encoders", "gpus_per_encoder", *unused_weighting(flags), *LIMIT_FLAGS]
    if config.encoder:
        flags["encoder"] = load_model(config.encoder, options=False).model_id
    else:  # as in earlier versions
        left_out.append("encoder")
    identity = {name: value for name, value in flags.items() if name not in left_out} | {"files": files}
    return json.loads(json.dumps(identity | limits_identity(config.limits)))


def _read_vectors(config: BaselineConfig, rows: dict[str, ExampleArrays]) -> TextVectors:
    if config.encoder is None:
        return NO_VECTORS
    start_ray()
    texts = pc.unique(pa.concat_arrays([texts for split in rows.values() for texts in (split.captions, split.names)]))
    kept = config.vectors or storage.join(config.output, VECTORS)
    return text_vectors(config.encoder, texts, kept, config.encoders, config.gpus_per_encoder)


def _network(sizes: Sizes, fitted: list[Fitted], recipe: Recipe, validation: NetworkInputs) -> AnyNetwork:
    """Returns the network of the best weights; with an encoder both networks' sum, weighted on validation."""
    network = make_network(sizes)
    if isinstance(network, Towers):
        network.load_state_dict(fitted[0].weights)
        return network
    for part, found in zip(network.networks, fitted, strict=True):
        part.load_state_dict(found.weights)
    fit_fusion(network, validation, recipe.weights(validation))
    return network


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


def _write_predictions(
    output: str, inputs: dict[str, NetworkInputs], rows: dict[str, ExampleArrays], model_id: str
) -> dict[str, int]:
    network, _ = read_model(storage.join(output, "model"))
    counts = {}
    for name in _HELD_OUT:
        table = make_predictions(network, inputs[name], rows[name], model_id)
        storage.write_table(storage.join(output, "predictions", name, "part-0.parquet"), table, "predictions")
        counts[name] = table.num_rows
    return counts


def _fit(
    work: str, workers: int, recipes: list[Recipe], train: NetworkInputs, validation: NetworkInputs
) -> list[Fitted]:
    """Returns each recipe's result."""
    start_ray()
    wait_for_resources(f"{workers} worker(s)", {"CPU": 1}, workers, at_least=workers)
    print(f"starting {workers} worker(s) on CPUs, which takes half a minute", flush=True)
    lines = own_queue()
    printer = Thread(target=lambda: [print(line, flush=True) for line in iter(lines.get, None)], daemon=True)
    printer.start()
    fs, path = storage.filesystem(work)
    trainer = Trainer(
        _worker,
        # Put once: workers on one machine share the pages.
        train_loop_config={"inputs": ray.put((train, validation)), "recipes": recipes, "lines": lines},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=False, resources_per_worker={"CPU": 1}),
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(
            name="baseline", storage_path=path, storage_filesystem=fs, failure_config=restarts(_MAX_RESTARTS)
        ),
    )
    try:
        result: Any = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise InputError(f"the training failed: {cause(error, workers)}") from None
    finally:
        lines.put(None)
        printer.join()
        lines.shutdown()
        storage.delete(work)
    fitted = [Fitted(load(weights), best, trials) for weights, best, trials in result.return_value]
    if not all(each.best.epoch for each in fitted):
        raise InputError("no trial's loss was a finite number; give smaller --learning-rates")
    return fitted


def _worker(settings: dict[str, Any]) -> Any:
    """Runs on each of Ray Train's workers; returns each recipe's best weights as safetensors, their trial, and all."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train, validation = ray.get(settings["inputs"])
    is_first = ray.train.get_context().get_world_rank() == 0
    log = settings["lines"].put if is_first else lambda line: None
    fitted = [run_trials(train, validation, recipe, log) for recipe in settings["recipes"]]
    return [(save(weights), best, trials) for weights, best, trials in fitted]


def make_predictions(network: AnyNetwork, inputs: NetworkInputs, rows: ExampleArrays, model_id: str) -> pa.Table:
    """Returns one prediction, with all candidates' probabilities, for every user-title pair (its first example)."""
    probability_c, chosen_n, top_n = _choose(network, inputs)
    ids_c = rows.artwork_ids.take(pa.array(rows.artwork_c))
    offsets = pa.array(np.append(inputs.first_candidate_n, len(rows.artwork_c)).astype(np.int32))
    candidates = pa.StructArray.from_arrays([ids_c, pa.array(probability_c)], names=["artwork_id", "probability"])
    count = len(rows.label_n)
    table = pa.table(
        {
            "user_id": rows.user_ids,
            "title_id": rows.title_ids,
            "artwork_id": ids_c.take(pa.array(chosen_n)),
            "probability": top_n,
            "propensity": pa.nulls(count, pa.float64()),
            "candidates": pa.ListArray.from_arrays(offsets, candidates),
            "rationale": pa.nulls(count, pa.string()),
            "model_id": pa.array([model_id] * count),
            "fingerprint": pa.array([_fingerprint(rows, inputs, n, model_id) for n in range(count)]),
            "scored_at": pa.array([datetime.now(UTC)] * count, pa.timestamp("us", "UTC")),
        }
    )
    pairs = list(zip(rows.user_ids.to_pylist(), rows.title_ids.to_pylist(), strict=True))
    first = {pair: n for n, pair in reversed(list(enumerate(pairs)))}
    return table.take(pa.array(sorted(first.values())))


def _choose(network: AnyNetwork, inputs: NetworkInputs) -> tuple[np.ndarray, IntArray, np.ndarray]:
    """Returns all candidates' probabilities end to end, and each example's best: its index there, its probability."""
    parts, best, top = [], [], []
    for picked_b, log_bm in predict(network, inputs):
        probability_bm = log_bm.double().exp().numpy()
        parts.append(probability_bm[np.arange(probability_bm.shape[1]) < inputs.candidates_n[picked_b][:, None]])
        best.append(probability_bm.argmax(axis=1) + inputs.first_candidate_n[picked_b])
        top.append(probability_bm.max(axis=1))
    return np.concatenate(parts), np.concatenate(best), np.concatenate(top)


def _fingerprint(rows: ExampleArrays, inputs: NetworkInputs, n: int, model_id: str) -> str:
    candidates = slice(inputs.first_candidate_n[n], inputs.first_candidate_n[n] + rows.candidates_n[n])
    history = slice(inputs.first_history_n[n], inputs.first_history_n[n] + rows.history_n[n])
    artworks = pa.array(rows.artwork_c[candidates])
    items = pa.array(np.append(rows.title_n[n], rows.item_h[history]))
    texts = (rows.artwork_ids, artworks), (rows.captions, artworks), (rows.names, items), (rows.genres, items)
    return storage.fingerprint(
        model_id, [values.take(taken).to_pylist() for values, taken in texts], inputs.history_hf[history].tolist()
    )

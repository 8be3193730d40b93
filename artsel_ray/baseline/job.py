"""The baseline's job: read, train on Ray Train, keep the model, predict validation and test."""

import dataclasses
import json
import time
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from safetensors.torch import load, save

from artsel_ray import storage
from artsel_ray.baseline.encoding import NetworkInputs, Vocabulary, encode, make_vocabulary
from artsel_ray.baseline.example_arrays import ExampleArrays, read_example_arrays
from artsel_ray.baseline.settings import BaselineConfig
from artsel_ray.baseline.towers import Sizes, Towers
from artsel_ray.baseline.trials import Recipe, Trial, Weights, predict, run_trials
from artsel_ray.config import resolved
from artsel_ray.errors import InputError
from artsel_ray.runtime.ray_cluster import own_queue, start_ray
from artsel_ray.runtime.run import begin
from artsel_ray.runtime.shards import describe_files

_WORK = "_work"
_HELD_OUT = ("validation", "test")
_VOCABULARY = ("artwork_ids", "names", "genres")
_COUNTS = ("engagements_v", "rarity_w")


def baseline(config: BaselineConfig) -> None:
    """Writes model/, predictions/{validation,test}/, config.json, summary.json and, last, the manifest.

    Raises:
        InputError: for wrong flags or examples, another run's output, or if no trial's loss was a number.
    """
    check(config)
    started = time.monotonic()
    splits = {name: storage.join(config.examples, name) for name in ("train", *_HELD_OUT)}
    files = {name: describe_files(uri) for name, uri in splits.items()}
    rows = {name: read_example_arrays(uri) for name, uri in splits.items()}
    if len(rows["train"].label_n) < config.workers:
        raise InputError(f"{splits['train']} has fewer examples than --workers {config.workers}; take fewer workers")
    flags = {name: value for name, value in resolved(config).items() if name != "output"}
    run = begin(config.output, json.loads(json.dumps({**flags, "files": files})), resolved(config))
    if storage.read_manifest(config.output) is not None:
        print(f"{config.output} is complete already", flush=True)
        return
    vocabulary = make_vocabulary(rows["train"])
    data = {name: encode(part, vocabulary, train=name == "train") for name, part in rows.items()}
    for name, part in rows.items():
        if part.invalid.num_rows:
            storage.write_table(storage.join(config.output, "rejected", f"{name}.parquet"), part.invalid, "rejected")
    seconds = {"read": time.monotonic() - started}
    recipe = _recipe(config, vocabulary)
    print(f"{len(rows['train'].label_n):,} train examples of {recipe.sizes.artworks:,} artworks", flush=True)
    weights, best, trials = _fit(config, recipe, data["train"], data["validation"])
    seconds["train"] = time.monotonic() - started - seconds["read"]
    model = storage.join(config.output, "model")
    model_id = write_model(model, recipe.sizes, weights, vocabulary)
    network, _ = read_model(model)
    counts = {}
    for name in _HELD_OUT:
        table = predictions(network, data[name], rows[name], model_id)
        storage.write_table(storage.join(config.output, "predictions", name, "part-0.parquet"), table, "predictions")
        counts[name] = table.num_rows
    seconds["total"] = time.monotonic() - started
    summary = {
        "model_id": model_id,
        "examples": {name: len(part.label_n) for name, part in rows.items()},
        "rejected": {name: part.invalid.num_rows for name, part in rows.items()},
        "predictions": counts,
        "best": dataclasses.asdict(best),
        "trials": [_plain(trial) for trial in trials],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    storage.write_json(storage.join(config.output, "summary.json"), summary)
    run.publish({"predictions": counts, "model_id": model_id})
    print(
        f"baseline: learning rate {best.learning_rate:g}, weight decay {best.weight_decay:g}, validation accuracy "
        f"{best.accuracy:.4f}, IPS {best.ips:.3f}; {config.output} ({seconds['total']:.0f} s)",
        flush=True,
    )


def check(config: BaselineConfig) -> None:
    """Finds flags that cannot be.

    Raises:
        InputError: naming the flag.
    """
    for name in ("epochs", "batch_size", "width", "workers"):
        if getattr(config, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(config, name)}, expected 1 or more")
    if config.batch_size < config.workers:
        raise InputError(f"--batch-size {config.batch_size} is less than --workers {config.workers}; raise it")
    if not 0 <= config.id_dropout <= 1:
        raise InputError(f"--id-dropout is {config.id_dropout}, expected a number from 0 to 1")
    for name, least in (("learning_rates", 1e-12), ("weight_decays", 0.0)):
        values = getattr(config, name)
        if not values or not all(least <= value < 100 for value in values):
            given = " ".join(f"{value:g}" for value in values)
            raise InputError(f"--{name.replace('_', '-')} is '{given}', expected numbers from {least:g} to 100")


def _recipe(config: BaselineConfig, vocabulary: Vocabulary) -> Recipe:
    artworks, names, genres = (len(getattr(vocabulary, name)) for name in _VOCABULARY)
    sizes = Sizes(artworks, names, genres, config.width, config.id_dropout)
    return Recipe(sizes, config.learning_rates, config.weight_decays, config.epochs, config.batch_size, config.seed)


def _plain(trial: Trial) -> dict[str, float | None]:
    """Returns a trial for JSON, which knows no infinity."""
    return {name: value if np.isfinite(value) else None for name, value in dataclasses.asdict(trial).items()}


def _fit(
    config: BaselineConfig, recipe: Recipe, train: NetworkInputs, validation: NetworkInputs
) -> tuple[Weights, Trial, list[Trial]]:
    start_ray()
    print(f"starting {config.workers} worker(s), which takes half a minute", flush=True)
    lines = own_queue()
    printer = Thread(target=lambda: [print(line, flush=True) for line in iter(lines.get, None)], daemon=True)
    printer.start()
    work = storage.join(config.output, _WORK)
    fs, path = storage.filesystem(work)
    trainer = TorchTrainer(
        _worker,
        # Put once: workers on one machine share the pages.
        train_loop_config={"data": ray.put((train, validation)), "recipe": recipe, "lines": lines},
        scaling_config=ScalingConfig(num_workers=config.workers, use_gpu=False, resources_per_worker={"CPU": 1}),
        torch_config=TorchConfig(backend="gloo"),
        # A run takes minutes, so that a lost worker means to begin again.
        run_config=RunConfig(
            name="baseline", storage_path=path, storage_filesystem=fs, failure_config=FailureConfig(max_failures=2)
        ),
    )
    try:
        result: Any = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise InputError(f"the training failed: {str(error).strip().splitlines()[-1]}") from None
    finally:
        lines.put(None)
        printer.join()
        lines.shutdown()
        storage.delete(work)
    weights, best, trials = result.return_value
    if not best.epoch:
        raise InputError("no trial's loss was a finite number; take smaller --learning-rates")
    return load(weights), best, trials


def _worker(settings: dict[str, Any]) -> Any:
    """Is what each of Ray Train's workers runs; returns the best weights as safetensors, their trial, and all."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train, validation = ray.get(settings["data"])
    first = ray.train.get_context().get_world_rank() == 0
    weights, best, trials = run_trials(
        train, validation, settings["recipe"], settings["lines"].put if first else lambda line: None
    )
    return save(weights), best, trials


def write_model(uri: str, sizes: Sizes, weights: Weights, vocabulary: Vocabulary) -> str:
    """Writes model.safetensors, vocabulary.json and config.json; returns the model's id, which depends on all three."""
    strings = {name: getattr(vocabulary, name).to_pylist() for name in _VOCABULARY}
    counts = {name: torch.from_numpy(getattr(vocabulary, name)) for name in _COUNTS}
    content = save({**weights, **counts})
    shape = dataclasses.asdict(sizes)
    model_id = f"baseline@{storage.fingerprint(content.hex(), strings, shape)[:12]}"
    storage.write_object(storage.join(uri, "model.safetensors"), content)
    storage.write_json(storage.join(uri, "vocabulary.json"), strings)
    storage.write_json(storage.join(uri, "config.json"), {"model_id": model_id, "sizes": shape})
    return model_id


def read_model(uri: str) -> tuple[Towers, Vocabulary]:
    """Reads a model that `write_model` wrote, ready to predict.

    Raises:
        InputError: if a file is absent.
    """
    network = Towers(Sizes(**storage.read_json(storage.join(uri, "config.json"))["sizes"]))
    weights = load(storage.read_object(storage.join(uri, "model.safetensors")))
    counts = {name: weights.pop(name).numpy() for name in _COUNTS}
    network.load_state_dict(weights)
    strings = storage.read_json(storage.join(uri, "vocabulary.json"))
    return network.eval(), Vocabulary(**{name: pa.array(strings[name], pa.string()) for name in _VOCABULARY}, **counts)


def predictions(network: Towers, data: NetworkInputs, rows: ExampleArrays, model_id: str) -> pa.Table:
    """Returns one prediction, with all candidates' probabilities, for every user-title pair (its first example)."""
    probability_c, chosen_n, top_n = _choose(network, data)
    ids_c = rows.artwork_ids.take(pa.array(rows.artwork_c))
    offsets = pa.array(np.concatenate([[0], np.cumsum(rows.size_n)]).astype(np.int32))
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
            "reason": pa.nulls(count, pa.string()),
            "model_id": pa.array([model_id] * count),
            "fingerprint": pa.array([_fingerprint(rows, data, n, model_id) for n in range(count)]),
            "scored_at": pa.array([datetime.now(UTC)] * count, pa.timestamp("us", "UTC")),
        }
    )
    pairs = list(zip(rows.user_ids.to_pylist(), rows.title_ids.to_pylist(), strict=True))
    first = {pair: n for n, pair in reversed(list(enumerate(pairs)))}
    return table.take(pa.array(sorted(first.values())))


def _choose(network: Towers, data: NetworkInputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns all candidates' probabilities end to end, and each example's best one: its place there, its value."""
    parts, best, top = [], [], []
    for picked_b, log_bm in predict(network, data):
        probability_bm = log_bm.double().exp().numpy()
        parts.append(probability_bm[np.arange(probability_bm.shape[1]) < data.size_n[picked_b][:, None]])
        best.append(probability_bm.argmax(axis=1) + data.start_n[picked_b])
        top.append(probability_bm.max(axis=1))
    return np.concatenate(parts), np.concatenate(best), np.concatenate(top)


def _fingerprint(rows: ExampleArrays, data: NetworkInputs, n: int, model_id: str) -> str:
    """Hashes the model and all that it reads of an example."""
    artworks = pa.array(rows.artwork_c[data.start_n[n] : data.start_n[n] + rows.size_n[n]])
    past = slice(data.past_n[n], data.past_n[n] + rows.length_n[n])
    items = pa.array(np.concatenate([[rows.title_n[n]], rows.item_h[past]]))
    texts = (rows.artwork_ids, artworks), (rows.captions, artworks), (rows.names, items), (rows.genres, items)
    return storage.fingerprint(
        model_id, [values.take(places).to_pylist() for values, places in texts], data.past_hf[past].tolist()
    )

"""How much a model prefers captions that begin differently from the title's others, by text and by number.

`python benchmarks/beginnings.py --folder F` asks SmolLM2, and the bundled adapter, about validation pairs of the demo's
world of which some candidates share their first token with another one and some do not. Each pair is asked with its
candidates in several orders. It prints Markdown, a line for each model after each order.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from position_bias import ADAPTER, DEMO

from artsel_ray import storage
from artsel_ray.config import Output, from_flags
from artsel_ray.data.checked_reader import read_table
from artsel_ray.decoding.base import Questions
from artsel_ray.decoding.decoders import DECODERS
from artsel_ray.engines.torch import load_torch_engine
from artsel_ray.evaluation.bootstrap import resampled_sums
from artsel_ray.models.load import load
from artsel_ray.models.weights import prompt_tokenizer
from artsel_ray.prepare.job import prepare
from artsel_ray.prepare.settings import PrepareConfig
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.simulate.job import simulate
from artsel_ray.simulate.settings import SimulateConfig
from artsel_ray.train.examples import TrainingExamples
from artsel_ray.train.reading import read_train

Array = NDArray[Any]
WAYS: dict[str, tuple[str, str, Output, str]] = {
    "text": ("zero-shot, text", "smollm2", "text", "rank"),
    "number": ("zero-shot, number", "smollm2", "number", "labels"),
    "adapter": ("the bundled adapter, text", str(ADAPTER), "text", "rank"),
}


@dataclass(frozen=True)
class Benchmark:
    """What to measure, and where."""

    folder: Path
    what: tuple[Literal["text", "number", "adapter"], ...] = ("text", "number", "adapter")
    """SmolLM2 zero-shot, answering with text or with numbers, and the bundled adapter, answering with text."""
    pairs: int = 150
    orders: int = 1


def validation_pairs(folder: Path) -> str:
    """Simulates and prepares once; returns the folder of the validation examples."""
    source, data = str(folder / "world"), str(folder / "data")
    if storage.read_manifest(data) is None:
        simulate(from_flags(SimulateConfig, output=source, **DEMO))
        prepare(PrepareConfig(input=source, output=data, history_length=4, validation_size=800, test_size=100))
    return f"{data}/examples/validation"


def examples_of(uri: str, model: str, output: Output) -> tuple[Any, TrainingExamples]:
    """Returns a model and the examples with its prompt; the order of candidates depends on epoch and index alone."""
    loaded = load(model)
    prompts = prompt_tokenizer(loaded.base, loaded.spec or PromptSpec(output=output, history_length=4))
    return loaded, read_train(uri, prompts, 2048, seed=0, shuffle_candidates=True)


def begins_alone(answers: list[list[int]]) -> Array:
    """Returns which captions begin with another token than all others: [M]."""
    count = Counter(ids[0] for ids in answers)
    return np.array([count[ids[0]] == 1 for ids in answers])


def terms(alone: Array, probability: Array, label: int) -> list[float]:
    """Returns what a pair adds to the sums of `line`."""
    p, a = probability - probability.mean(), alone - alone.mean()
    means = probability[alone].mean(), probability[~alone].mean()
    return [1, *means, alone.mean(), alone[probability.argmax()], alone[label], p @ a, p @ p, a @ a]


def line(name: str, terms_n: Array, user_n: Array) -> str:
    """Returns a row of the table, with 95 % intervals over users."""
    sums_us: Array = np.stack([np.bincount(user_n, column) for column in terms_n.T], axis=1)

    def of(sums: Array) -> list[Array]:
        count, alone, shared, share, chosen, engaged, pa, pp, aa = sums.T
        return [alone / count, shared / count, (alone - shared) / count, pa / np.sqrt(pp * aa), share / count,
                chosen / count, engaged / count]  # fmt: skip

    values, drawn = of(sums_us.sum(axis=0)), of(resampled_sums(sums_us, 2_000, 0))
    cells = [
        f"{value:.2f} [{low:.2f}, {high:.2f}]"
        for value, (low, high) in zip(values, (np.percentile(each, [2.5, 97.5]) for each in drawn), strict=True)
    ]
    return f"| {name} | {' | '.join(cells)} |"


def main(benchmark: Benchmark) -> None:
    """Prints a line for each model after each order: of all orders so far."""
    uri = validation_pairs(benchmark.folder)
    _, texts = examples_of(uri, "smollm2", "text")
    both = [index for index in range(len(texts)) if len(set(begins_alone(texts.answers(index)))) == 2]
    asked = both[: benchmark.pairs]
    users = np.array(read_table(uri, "examples", ["user_id"])["user_id"].to_pylist())
    assert len(users) == len(texts), "some examples were left out"
    user_n = np.unique(users[asked], return_inverse=True)[1]
    print(f"{len(asked)} of {len(texts)} pairs, of {user_n.max() + 1} users", flush=True)
    for what in benchmark.what:
        name, model, output, decoder = WAYS[what]
        loaded, examples = examples_of(uri, model, output)
        engine, found = load_torch_engine(loaded, "auto"), []
        for order in range(benchmark.orders):
            questions = [examples.question(index, order, index) for index in asked]
            prompts = [np.array(each.prompt, dtype=np.int32) for each in questions]
            answers = [each.answers for each in questions]
            chosen = DECODERS[decoder].decode(engine, Questions(examples.tokenizer, prompts, answers))
            shown = [texts.question(index, order, index).answers for index in asked]
            rows = zip(shown, chosen.distributions or [], questions, strict=True)
            found.append([terms(begins_alone(captions), p, question.label) for captions, p, question in rows])
            print(f"RESULT {order + 1} order(s) {line(name, np.mean(found, axis=0), user_n)}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))

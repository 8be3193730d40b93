"""One reproduction: where everything is, and the jobs that produce it. Finished steps are kept."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from artsel_ray import storage
from artsel_ray.baseline.job import baseline
from artsel_ray.baseline.settings import BaselineConfig
from artsel_ray.config import from_flags, resolved
from artsel_ray.data.checked_reader import read_table
from artsel_ray.distill.job import distill
from artsel_ray.distill.settings import DistillConfig
from artsel_ray.models.tiny import write_tiny
from artsel_ray.prepare.job import prepare
from artsel_ray.prepare.settings import PrepareConfig
from artsel_ray.reproduce.paper import FEW, MANY, SIZES, TINY, Experiment, Scale
from artsel_ray.reproduce.settings import ReproduceConfig
from artsel_ray.score.job import score
from artsel_ray.score.settings import ScoreConfig
from artsel_ray.simulate.job import simulate
from artsel_ray.simulate.settings import SimulateConfig
from artsel_ray.train.job import train
from artsel_ray.train.settings import SweepConfig, TrainConfig
from artsel_ray.train.sweep import BEST, sweep

# The paper's prompt: history, title, options.
_LAYOUT = "user_first"


@dataclass(frozen=True)
class Study:
    """The steps of a reproduction, each a job with its flags."""

    config: ReproduceConfig
    scale: Scale
    """With the models and the teacher to use."""

    def name(self, experiment: Experiment) -> str:
        """Returns an experiment's name and folder; experiments that differ only in the paper share one."""
        model = self._model(experiment).rstrip("/").rsplit("/", 1)[-1].lower()
        parts = [model, experiment.method, experiment.output, *(["reasons"] if experiment.rationale else [])]
        if experiment.examples:
            parts.append(str(self.scale.examples[experiment.examples]))
        if experiment.method == "dpo":
            parts.append("from-" + (experiment.start.method if experiment.start else "pretrained"))
        return "-".join(parts)

    def predictions(self, experiment: Experiment) -> str:
        """Returns the URI of an experiment's predictions, finished or not."""
        return self._at("runs", self.name(experiment), "predictions")

    @property
    def production(self) -> str:
        """URI of the predictions of the network that stands for the production model."""
        return self._at("baseline", "predictions", "test")

    @property
    def test_examples(self) -> str:
        """URI of the test examples."""
        return self._data(MANY, "examples", "test")

    def prepare_data(self) -> None:
        """Produces what experiments share: world, examples, the baseline."""
        scale, seed = self.scale, self.config.seed
        if not self.config.world and not is_finished(self._world()):
            simulate(from_flags(SimulateConfig, output=self._world(), seed=seed, **scale.world))
        for size in sorted({scale.examples[size] for size in (FEW, MANY)}):
            if not is_finished(output := self._at(f"data-{size}")):
                prepare(from_flags(
                    PrepareConfig, input=self._world(), output=output, history_length=scale.history_length,
                    train_size=size, validation_size=scale.validation, test_size=scale.test, seed=seed,
                ))  # fmt: skip
        if not is_finished(output := self._at("baseline")):
            baseline(BaselineConfig(examples=self._data(MANY, "examples"), output=output, seed=seed))

    def run(self, experiment: Experiment, rationales: int) -> bool:
        """Trains the experiment's model, if it is trained, and chooses for the test examples.

        Args:
            rationales: the largest number of train examples with rationales that any experiment needs.

        Returns:
            False if that was done before.
        """
        predictions = self.predictions(experiment)
        if is_finished(predictions):
            return False
        if experiment.method == "zero-shot":
            flags = {
                "model": self._path(self._model(experiment)), "output_format": experiment.output,
                "history_length": self.scale.history_length, "layout": _LAYOUT,
            }  # fmt: skip
        else:  # a trained model brings its prompt
            flags = {"model": self._train(experiment, rationales)}
        score(from_flags(
            ScoreConfig, requests=self._data(MANY, "requests", "test"), titles=storage.join(self._world(), "titles"),
            artworks=storage.join(self._world(), "artworks"), output=predictions,
            engine=self.scale.engine, **resolved(self.config.engine_pool), **flags,
        ))  # fmt: skip
        return True

    def _train(self, experiment: Experiment, rationales: int) -> str:
        """Trains an experiment's model, and the one it starts from, unless they are finished; returns its URI."""
        scale, output = self.scale, self._at("runs", self.name(experiment), "model")
        examples = self._data(experiment.examples, "examples")
        if experiment.rationale:
            examples = self._examples_with_rationales(experiment.examples, rationales)
        start = experiment.start
        flags = {
            "method": experiment.method, "output": output, "output_format": experiment.output,
            "reason": experiment.rationale, "layout": _LAYOUT, "history_length": scale.history_length,
            "validation_size": scale.validation, "workers": self.config.workers, "seed": self.config.seed,
            "gpus_per_worker": self.config.gpus_per_worker,
            **scale.training, "examples": examples,
            "model": self._train(start, rationales) if start else self._path(self._model(experiment)),
        }  # fmt: skip
        if len(scale.learning_rates) == 1:
            train(from_flags(TrainConfig, learning_rate=scale.learning_rates[0], **flags))
            return output
        sweep(from_flags(SweepConfig, learning_rates=scale.learning_rates, **flags))
        return storage.join(output, BEST)

    def _examples_with_rationales(self, examples: int, rationales: int) -> str:
        """Returns the folder of the train examples with rationales, and of the validation examples.

        The teacher explains each example once: smaller sets of examples are among the largest one's.
        """
        if not is_finished(output := self._data(rationales, "with-reasons", "train")):
            distill(from_flags(
                DistillConfig, examples=self._data(rationales, "examples", "train"), output=output,
                teacher=self._path(self.scale.teacher), history_length=self.scale.history_length,
                seed=self.config.seed, **resolved(self.config.engine_pool) | self.scale.distilling,
            ))  # fmt: skip
        folder, largest = self._data(examples, "with-reasons"), self._data(rationales, "with-reasons")
        if not is_finished(folder):
            if folder != largest:
                _select(storage.join(largest, "train"), self._data(examples, "examples", "train"), folder)
            for file in storage.list_files(self._data(examples, "examples", "validation")):
                storage.write_object(_moved(file, storage.join(folder, "validation")), storage.read_object(file))
            storage.write_manifest(folder, {})
        return folder

    def _path(self, model: str) -> str:
        """Returns the model's name, or creates the tiny one."""
        if model != TINY:
            return model
        folder = Path(self._at(TINY))
        if not (folder / "tokenizer.json").exists():
            write_tiny(storage.join(self._world(), "titles"), storage.join(self._world(), "artworks"), folder)
        return str(folder)

    def _model(self, experiment: Experiment) -> str:
        return self.scale.models[min(SIZES.index(experiment.size), len(self.scale.models) - 1)]

    def _world(self) -> str:
        return self.config.world or self._at("world")

    def _data(self, examples: int, *names: str) -> str:
        return self._at(f"data-{self.scale.examples[examples]}", *names)

    def _at(self, *names: str) -> str:
        return storage.join(self.config.output, *names)


def is_finished(uri: str) -> bool:
    """Returns whether a run's manifest is there."""
    return storage.read_manifest(uri) is not None


def _select(explained: str, wanted: str, folder: str) -> None:
    """Writes those of the explained examples that are among the wanted ones."""
    known = read_table(wanted, "examples", ["example_id"])["example_id"].combine_chunks()
    for file in storage.list_files(explained):
        rows = read_table(file, "examples")
        chosen = rows.filter(pc.is_in(rows["example_id"], value_set=known))
        storage.write_table(_moved(file, storage.join(folder, "train")), chosen, "examples")


def _moved(file: str, folder: str) -> str:
    """Returns the URI of a file of the same name in another folder."""
    return storage.join(folder, file.partition("?")[0].rsplit("/", 1)[-1])

"""The paper's tables on our own jobs: each run once, resumed where it ended, and one report of what there is."""

import traceback
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import storage
from artsel_ray.baseline.job import baseline
from artsel_ray.baseline.settings import BaselineConfig
from artsel_ray.config import resolved
from artsel_ray.distill.job import distill
from artsel_ray.distill.settings import DistillConfig
from artsel_ray.errors import InputError
from artsel_ray.models.tiny import write_tiny
from artsel_ray.prepare.job import prepare
from artsel_ray.prepare.settings import PrepareConfig
from artsel_ray.reproduce.paper import FEW, FIGURE1, MANY, ROWS, SIZES, Run, runs
from artsel_ray.reproduce.results import Findings, publish
from artsel_ray.reproduce.scales import SCALES, TINY
from artsel_ray.reproduce.settings import ReproduceConfig
from artsel_ray.runtime.run import begin
from artsel_ray.score.job import score
from artsel_ray.score.settings import ScoreConfig
from artsel_ray.simulate.job import simulate
from artsel_ray.simulate.settings import SimulateConfig
from artsel_ray.train.job import train
from artsel_ray.train.settings import SweepConfig, TrainConfig
from artsel_ray.train.sweep import BEST, sweep

# The paper's prompt: history, title, options.
_LAYOUT: Literal["user_first"] = "user_first"


def reproduce(config: ReproduceConfig) -> None:
    """Runs what the tables need, resuming what an earlier command has left undone, and writes the report as it goes.

    Raises:
        InputError: for wrong flags or input; and at the end if a run failed, which does not stop the others.
    """
    study = _Study(config)
    begin(config.output, study.flags(), resolved(config))
    study.prepare()
    errors: dict[str, str] = {}
    for number, (name, run) in enumerate(study.plan.items(), start=1):
        print(f"run {number} of {len(study.plan)}: {name}", flush=True)
        try:
            news = study.do(run)
        except InputError as error:
            errors[name], news = str(error), True
        except Exception as error:  # noqa: BLE001, whatever it is, the other runs need not fail with it
            traceback.print_exc()
            errors[name], news = f"{type(error).__name__}, see the job's log", True
        if news or number == len(study.plan):
            publish(config, study.findings(errors))
    if errors:
        name, why = next(iter(errors.items()))
        raise InputError(
            f"{len(errors)} of {len(study.plan)} runs failed, the first being {name}: {why}; "
            "the same command tries these again"
        )


class _Study:
    """Where everything of one output is, and the steps that make it."""

    def __init__(self, config: ReproduceConfig) -> None:
        self.config, self.scale = config, SCALES[config.scale]
        if len(config.models) > len(SIZES):
            raise InputError(f"--models names {len(config.models)} models, expected one or two")
        if self.scale.training.get("workers") == 0 and storage.is_uri(config.output):
            raise InputError(f"--scale {config.scale} trains in this process and needs a local --output")
        self._models = config.models or self.scale.models
        self._world = config.world or self._at("world")
        self._rows = [row for row in ROWS if config.table in ("all", row.table)]
        self._figure = FIGURE1 if config.table in ("all", "figure1") else ()
        self.plan = {self.name(run): run for run in runs(self._rows, self._figure)}
        # The teacher explains the most examples that a run needs; those of smaller runs are among them.
        self._taught = max((run.examples for run in self.plan.values() if run.reason), default=0)

    def flags(self) -> dict[str, Any]:
        """Returns what decides the results."""
        config = self.config
        return {"scale": config.scale, "models": list(self._models), "teacher": config.teacher or self.scale.teacher,
                "world": config.world, "seed": config.seed}  # fmt: skip

    def name(self, run: Run) -> str:
        """Returns a run's name and folder: what differs in the paper but not here has the same."""
        model = self._model(run).rstrip("/").rsplit("/", 1)[-1].lower()
        parts = [model, run.method, run.output, *(["reasons"] if run.reason else [])]
        if run.examples:
            parts.append(str(self.scale.examples[run.examples]))
        if run.method == "dpo":
            parts.append("from-" + (run.start.method if run.start else "pretrained"))
        return "-".join(parts)

    def findings(self, errors: dict[str, str]) -> Findings:
        """Returns what there is to report by now."""
        names = {run: self.name(run) for run in runs(self._rows, self._figure)}
        return Findings(
            rows=self._rows, figure=self._figure, names=names, errors=errors,
            predictions={run: self._at("runs", name, "predictions") for run, name in names.items()},
            production=self._at("baseline", "predictions", "test"), examples=self._data(MANY, "examples", "test"),
            simulated=not self.config.world, models=self._models,
        )  # fmt: skip

    def prepare(self) -> None:
        """Makes what runs share: world, examples, the baseline."""
        scale, config = self.scale, self.config
        if not config.world and storage.read_manifest(self._world) is None:
            simulate(SimulateConfig(output=self._world, seed=config.seed, **scale.world))
        for size in sorted({scale.examples[size] for size in (FEW, MANY)}):
            output = self._at(f"data-{size}")
            if storage.read_manifest(output) is None:
                prepare(PrepareConfig(
                    input=self._world, output=output, history_length=scale.history_length, train_size=size,
                    validation_size=scale.validation, test_size=scale.test, seed=config.seed,
                ))  # fmt: skip
        if storage.read_manifest(self._at("baseline")) is None:
            baseline(BaselineConfig(
                examples=self._data(MANY, "examples"), output=self._at("baseline"), seed=config.seed
            ))  # fmt: skip

    def do(self, run: Run) -> bool:
        """Trains where the run is trained, and chooses for the test examples. Returns False if that was done before."""
        predictions = self._at("runs", self.name(run), "predictions")
        if storage.read_manifest(predictions) is not None:
            return False
        trained = run.method != "zero-shot"
        flags: dict[str, Any] = {"history_length": self.scale.history_length, "layout": _LAYOUT}
        score(ScoreConfig(
            requests=self._data(MANY, "requests", "test"), titles=storage.join(self._world, "titles"),
            artworks=storage.join(self._world, "artworks"), output=predictions,
            model=self._train(run) if trained else self._ready(self._model(run)), engines=self.config.engines,
            engine=self.scale.engine, output_format=None if trained else run.output, **({} if trained else flags),
        ))  # fmt: skip
        return True

    def _train(self, run: Run) -> str:
        """Trains a run's model, and what it starts from; returns where it is. What is complete is taken as it is."""
        scale, output = self.scale, self._at("runs", self.name(run), "model")
        flags: dict[str, Any] = {
            "method": run.method, "output": output, "output_format": run.output, "reason": run.reason,
            "layout": _LAYOUT, "history_length": scale.history_length, "validation_size": scale.validation,
            "workers": self.config.workers, "seed": self.config.seed, **scale.training,
            "model": self._train(run.start) if run.start else self._ready(self._model(run)),
            "examples": self._with_reasons(run.examples) if run.reason else self._data(run.examples, "examples"),
        }  # fmt: skip
        if len(scale.learning_rates) == 1:
            train(TrainConfig(learning_rate=scale.learning_rates[0], **flags))
            return output
        sweep(SweepConfig(learning_rates=scale.learning_rates, **flags))
        return storage.join(output, BEST)

    def _with_reasons(self, examples: int) -> str:
        """Has the teacher explain the training examples; returns the folder of these and of the validation examples."""
        folder, most = self._data(examples, "with-reasons"), self._data(self._taught, "with-reasons")
        if storage.read_manifest(storage.join(most, "train")) is None:
            distill(DistillConfig(
                examples=self._data(self._taught, "examples", "train"), output=storage.join(most, "train"),
                teacher=self._ready(self.config.teacher or self.scale.teacher), engines=self.config.engines,
                history_length=self.scale.history_length, seed=self.config.seed, **self.scale.teaching,
            ))  # fmt: skip
        if storage.read_manifest(folder) is None:
            if folder != most:
                _select(storage.join(most, "train"), self._data(examples, "examples", "train"), folder)
            for file in storage.list_files(self._data(examples, "examples", "validation")):
                storage.write_object(_beside(file, storage.join(folder, "validation")), storage.read_object(file))
            storage.write_manifest(folder, {})
        return folder

    def _ready(self, model: str) -> str:
        """Returns the model's name, or makes the tiny one."""
        if model != TINY:
            return model
        folder = Path(self._at(TINY))
        if not (folder / "tokenizer.json").exists():
            write_tiny(storage.join(self._world, "titles"), storage.join(self._world, "artworks"), folder)
        return str(folder)

    def _model(self, run: Run) -> str:
        return self._models[min(SIZES.index(run.size), len(self._models) - 1)]

    def _data(self, examples: int, *names: str) -> str:
        return self._at(f"data-{self.scale.examples[examples]}", *names)

    def _at(self, *names: str) -> str:
        return storage.join(self.config.output, *names)


def _select(explained: str, wanted: str, folder: str) -> None:
    """Writes those of the explained examples that are among the wanted ones."""
    ids = [storage.read_table(file, "examples", ["example_id"])["example_id"] for file in storage.list_files(wanted)]
    known = pa.chunked_array([chunk for each in ids for chunk in each.chunks])
    for file in storage.list_files(explained):
        table = storage.read_table(file, "examples")
        chosen = table.filter(pc.is_in(table["example_id"], value_set=known.combine_chunks()))
        storage.write_table(_beside(file, storage.join(folder, "train")), chosen, "examples")


def _beside(file: str, folder: str) -> str:
    """Returns the URI of a file of the same name in another folder."""
    return storage.join(folder, file.partition("?")[0].rsplit("/", 1)[-1])

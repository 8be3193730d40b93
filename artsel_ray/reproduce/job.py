"""The paper's tables from our own jobs: each experiment runs once and resumes, and one report shows what is there."""

import dataclasses
import traceback
from collections.abc import Callable

from artsel_ray import storage
from artsel_ray.config import resolved
from artsel_ray.errors import InputError
from artsel_ray.reproduce.paper import FIGURE1, ROWS, SCALES, Experiment, experiments
from artsel_ray.reproduce.results import publish
from artsel_ray.reproduce.settings import ReproduceConfig
from artsel_ray.reproduce.study import Study
from artsel_ray.runtime.run import begin


def reproduce(config: ReproduceConfig) -> None:
    """Runs the experiments that the tables need, resuming an earlier command, and updates the report after each.

    Raises:
        InputError: for wrong flags or input; and at the end if an experiment failed, which does not stop the others.
    """
    scale = SCALES[config.scale]
    if scale.training.get("workers") == 0 and storage.is_uri(config.output):
        raise InputError(f"--scale {config.scale} trains in this process and needs a local --output")
    scale = dataclasses.replace(scale, models=config.models or scale.models, teacher=config.teacher or scale.teacher)
    study = Study(config, scale)
    identity = {"scale": config.scale, "models": list(scale.models), "teacher": scale.teacher,
                "world": config.world, "seed": config.seed}  # fmt: skip
    begin(config.output, identity, resolved(config))

    rows = [row for row in ROWS if config.table in ("all", row.table)]
    figure = FIGURE1 if config.table in ("all", "figure1") else ()
    plan = {study.name(experiment): experiment for experiment in experiments(rows, figure)}
    study.prepare_data()
    if errors := _run(study, plan, lambda errors: publish(study, rows, figure, errors)):
        name, error = next(iter(errors.items()))
        failed = f"{len(errors)} of {len(plan)} experiments failed"
        raise InputError(f"{failed}, the first being {name}: {error}; run the same command again to retry them")


def _run(
    study: Study, plan: dict[str, Experiment], publish_results: Callable[[dict[str, str]], None]
) -> dict[str, str]:
    """Runs the experiments and publishes the results after each; returns the errors by the experiments' names."""
    rationales = max((experiment.examples for experiment in plan.values() if experiment.rationale), default=0)
    errors: dict[str, str] = {}
    for number, (name, experiment) in enumerate(plan.items(), start=1):
        print(f"experiment {number} of {len(plan)}: {name}", flush=True)
        try:
            has_news = study.run(experiment, rationales)
        except InputError as error:
            errors[name], has_news = str(error), True
        except Exception as error:  # noqa: BLE001, whatever it is, it must not stop the other experiments
            traceback.print_exc()
            errors[name], has_news = f"{type(error).__name__}, see the job's log", True
        if has_news or number == len(plan):
            publish_results(errors)
    return errors

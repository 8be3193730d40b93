"""The engine of a run, and a rendered shard through engine and decoder into rows of predictions."""

import dataclasses
import itertools
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from artsel_ray.decoding import label_prior
from artsel_ray.decoding.base import Questions
from artsel_ray.decoding.decoders import most_likely
from artsel_ray.engines.base import Engine, RefusedError
from artsel_ray.models.load import load
from artsel_ray.prompts import rationale_checks
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.runtime.engine_pool import GetEngine, Processed
from artsel_ray.score.answer_spec import AnswerSpec
from artsel_ray.score.predictions import predictions
from artsel_ray.score.prior import with_prior
from artsel_ray.score.rendering import RenderedShard, prompt_tokenizer
from artsel_ray.score.settings import ScoreEngines
from artsel_ray.score.shard_pairs import refused


@dataclass(frozen=True)
class EngineLoader:
    """Loads a run's engine, in the actor that will hold it."""

    answer_spec: AnswerSpec
    pool: ScoreEngines
    max_candidates: int
    fake_tokens_per_second: float | None
    """Speed that the fake engine simulates; as fast as it can if None."""

    def __call__(self) -> Engine:
        """Loads the engine; raises `InputError` if there is no such model on this machine."""
        answer_spec = self.answer_spec
        placeholders = prompt_tokenizer(answer_spec.model, answer_spec.spec).placeholders
        if self.pool.engine == "fake":
            from artsel_ray.engines.fake import FakeEngine

            return FakeEngine(self.fake_tokens_per_second)
        model = load(answer_spec.model)
        if self.pool.engine == "transformers":
            from artsel_ray.engines.torch import load_torch_engine

            return load_torch_engine(model, self.pool.dtype, placeholders)
        from artsel_ray.engines.vllm import VllmEngine

        return VllmEngine(
            model, answer_spec.max_model_length, max_allowed=self.max_candidates + 1, pool=self.pool,
            images=self.max_candidates if placeholders else 0,
        )  # fmt: skip


def make_scorer(answer_spec: AnswerSpec) -> Callable[[RenderedShard, GetEngine], Processed]:
    """Returns the function that scores a rendered shard, for an engine actor."""

    def process(shard: RenderedShard, get_engine: GetEngine) -> Processed:
        engine = get_engine()
        try:
            rows, counts = score_shard(shard, engine, answer_spec)
        except RefusedError as error:
            traceback.print_tb(error.__traceback__)
            shard = refused(shard, f"the engine refuses a prompt of its shard ({error})")
            return Processed(shard.reused, shard.invalid, {**shard.counts, "unmatched": 0})
        return Processed(pa.concat_tables([rows, shard.reused]), shard.invalid, {**shard.counts, **counts})

    return process


def score_shard(shard: RenderedShard, engine: Engine, answer_spec: AnswerSpec) -> tuple[pa.Table, dict[str, int]]:
    """Returns a shard's predictions, in the order of its groups, and the counts that scoring adds.

    Raises:
        InputError: if the model answers with NaN, so that a choice would not be its own.
    """
    questions, rationales = _questions(shard, prompt_tokenizer(answer_spec.model, answer_spec.spec)), None
    if answer_spec.spec.reason:
        questions, rationales = _generate_rationales(engine, questions)
    choices = answer_spec.decoder.decode(engine, questions)
    if answer_spec.label_prior:
        assert choices.distributions is not None  # the flags allow a prior with such decoders only
        divided = [label_prior.divide(each, answer_spec.label_prior) for each in choices.distributions]
        choices = most_likely(divided, questions.answers)
    if answer_spec.prior:
        assert shard.priors is not None
        choices = with_prior(shard, choices, shard.priors, answer_spec.prior.weights)
    shown, kept = None, dict[str, int]()
    if rationales is not None:
        shown, kept = _drop_wrong(shard, questions.tokenizer, rationales, choices.candidates)
    return predictions(shard, choices, shown, answer_spec.model_id), {"unmatched": choices.unmatched, **kept}


def _questions(shard: RenderedShard, tokenizer: PromptTokenizer) -> Questions:
    prompts, answers, images = [], [], []
    histories = (history.values.to_numpy() for history in shard.histories)
    for group in shard.groups:
        prompts += tokenizer.prompts(group.options.prefix, itertools.islice(histories, group.users))
        answers += [group.options.answers] * group.users
        if tokenizer.placeholders:
            images += [group.options.images] * group.users
    return Questions(tokenizer, prompts, answers, images)


def _generate_rationales(engine: Engine, questions: Questions) -> tuple[Questions, list[str]]:
    tokenizer = questions.tokenizer
    stop = [tokenizer.option, *tokenizer.end]
    written = engine.generate(questions.prompts, tokenizer.spec.reason_tokens, stop, images=questions.images)
    continued = [tokenizer.with_rationale(prompt, ids) for prompt, ids in zip(questions.prompts, written, strict=True)]
    prompts, rationales = [prompt for prompt, _ in continued], [rationale for _, rationale in continued]
    return dataclasses.replace(questions, prompts=prompts), rationales


def _drop_wrong(
    shard: RenderedShard, tokenizer: PromptTokenizer, rationales: list[str], chosen: list[int]
) -> tuple[list[str | None], dict[str, int]]:
    names, decode = rationale_checks.Names(shard.names.to_pylist()), tokenizer.tokenizer.decode
    shown: list[str | None] = []
    dropped = dict.fromkeys(rationale_checks.FAULTS, 0)
    pairs = zip(shard.histories, rationales, chosen, strict=True)
    for group in shard.groups:
        title, *options = tokenizer.texts(group.options.prefix)
        for history, rationale, candidate in itertools.islice(pairs, group.users):
            own = f"{title}\n{decode(history.values.to_numpy())}"
            fault = rationale_checks.find_fault(rationale, own, options, candidate, names)
            if fault:
                dropped[fault] += 1
            shown.append(None if fault else rationale)
    return shown, {"reasons": len(shown) - sum(dropped.values()), **dropped}

"""One frozen dataclass per job; tyro makes the command line from it. Imports neither torch nor ray."""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import tyro

from artsel_ray.errors import InputError

Config = TypeVar("Config")
Uri = Annotated[str, "a path or URI"]
ModelName = Annotated[str, "a model's name, path or URI"]


@dataclass(frozen=True)
class SimulateConfig:
    """Writes a simulated world: titles, artworks, interactions, impressions, and apart from them the oracle.

    With --source movielens the histories, titles, years and genres are real; artworks, captions and
    engagement are always simulated.
    """

    output: Uri
    """Where the world goes: a path or URI; OUTPUT/{titles,artworks,interactions,impressions,oracle}/*.parquet."""
    source: Literal["movielens", "synthetic"] = "synthetic"
    """Real histories (MovieLens 100K, for research only, fetched at run time) or generated ones of any size."""
    users: int | None = None
    """Number of users; with movielens at most 943. Default: 1,000 synthetic ones, or all of MovieLens's."""
    titles: int | None = None
    """Number of titles; with movielens at most 1,682, the most watched. Default: 500, or all of MovieLens's."""
    interactions_per_user: float = 60.0
    """Mean number of interactions of a synthetic user."""
    min_candidates: int = 4
    """Fewest artworks of a title."""
    max_candidates: int = 44
    """Most artworks of a title."""
    themes: int = 10
    """How many themes an artwork can show and a user can like, 2 to 12. Fewer is easier."""
    caption_tokens: int = 200
    """Mean length of a caption in tokens. Fewer than ten make headlines, which begin with their subject: easier."""
    shared_words: float = 0.3
    """From 0 to 1: how much of a caption's theme is told in words that histories use too. More is easier."""
    taste_strength: float = 2.0
    """How much a match of taste and theme moves the chance of engagement. More is easier."""
    engagement_rate: float = 0.2
    """Share of impressions that the user engages with. Less tells more about taste, and is easier."""
    noise: float = 0.5
    """Standard deviation of an artwork's appeal to everybody, which has nothing to do with taste. Less is easier."""
    exploration: float = 0.2
    """Share of impressions for which the logging policy draws the artwork uniformly."""
    asset_kind: Literal["artwork", "synopsis", "trailer"] = "artwork"
    """What the candidates are, and in what words their captions are written."""
    images: bool = False
    """Also draw a picture of each: bands in the colours of its themes, as wide as it shows them."""
    seed: int = 0
    """Same seed and flags, same world."""


@dataclass(frozen=True)
class PrepareConfig:
    """Turns logs and artworks into examples, splits and requests; bad rows go to OUTPUT/rejected."""

    input: Uri
    """Folder with titles/, artworks/, interactions/ and impressions/ (Parquet): a path or URI."""
    output: Uri
    """Where examples/{train,validation,test}/, requests/test/ and rejected/ go: a path or URI."""
    history_length: int = 50
    """A user is this many of the newest interactions strictly before the impression."""
    asset_kind: Literal["artwork", "synopsis", "trailer"] = "artwork"
    """Which rows of artworks/ are candidates, by their column asset_kind; impressions of others are left out."""
    assets: Literal["caption", "image"] = "caption"
    """What the model will see of a candidate: its caption, or its picture, which image_uri then must name."""
    split: Literal["hash", "time"] = "hash"
    """Whole user-title pairs go to a split by a salted hash, or the newest ones to test by time."""
    train_size: int = 110_000
    """Most examples in train. With fewer pairs than the three sizes ask for, each split gets its share."""
    validation_size: int = 1_000
    """Most examples in validation."""
    test_size: int = 5_000
    """Most examples in test."""
    max_reject_rate: float = 0.1
    """Stop, with exit code 1, if more than this share of the impressions is rejected."""
    buckets: int | None = None
    """Number of groups of users that are worked on apart. Default: one for 300,000 interactions."""
    seed: int = 0
    """Salt of the hash that splits."""


@dataclass(frozen=True)
class CaptionConfig:
    """Describes the pictures of artworks in words, with a vision-language model; pictures that cannot be used go to
    OUTPUT/rejected. Run again to resume.
    """

    artworks: Uri
    """Parquet of artworks with image_uri: a path or URI."""
    model: ModelName
    """A vision-language model: a hub id such as Qwen/Qwen2.5-VL-7B-Instruct, or a folder."""
    output: Uri
    """Where part-*.parquet (the artworks with captions), rejected/, summary.json and, last, _manifest.json go."""
    titles: Uri | None = None
    """Parquet of the titles: their names are then told to the model. Artworks of other titles are rejected."""
    previous: Uri | None = None
    """Output of an earlier run: captions of the same picture, title's name and model are taken from it."""
    engine: Literal["vllm", "transformers"] = "vllm"
    """transformers is slower, for models that vLLM does not have, such as Llama-3.2-11B-Vision."""
    caption_tokens: int = 200
    """Most tokens of a caption."""
    max_pixels: int = 40_000_000
    """A picture of more pixels is rejected before it is decoded."""
    resize_to_pixels: int = 1_048_576
    """A picture of more pixels is scaled down to about as many: how much the model sees, and what that costs."""
    engines: int = 1
    """Number of engines."""
    tensor_parallel: int = 1
    """GPUs that share one engine; vLLM only."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; 'auto' is float32 on CPUs."""
    max_model_length: int = 8192
    """Longest question, picture included, and caption together in tokens, at most what the model takes."""
    shard_artworks: int = 64
    """Artworks in a shard: what is redone when a machine dies, and whose pictures are in memory together."""
    max_reject_rate: float = 0.05
    """Stop, with exit code 1, if more than this share of the artworks is rejected."""


@dataclass(frozen=True)
class DistillConfig:
    """Has a teacher write the reason of every example's choice; what its own prediction or a check refuses is dropped.

    Run again to resume. The defaults of sampling are QwQ-32B's; docs/reasons.md has its other settings.
    """

    examples: Uri
    """Parquet of examples, such as D/examples/train: a path or URI."""
    teacher: ModelName
    """'smollm2' (bundled), a hub id such as Qwen/QwQ-32B, or a folder with a model."""
    output: Uri
    """Where part-*.parquet (examples with reasons), rejected/, summary.json and, last, _manifest.json go."""
    asset_kind: Literal["artwork", "synopsis", "trailer"] = "artwork"
    """What the examples' candidates are."""
    history_length: int = 50
    """Newest interactions that the teacher sees."""
    temperature: float = 0.6
    """Of the sampling of explanations; 0 is greedy."""
    top_p: float = 0.95
    """Draw from the likeliest tokens with together this probability."""
    top_k: int = 40
    """Draw from this many of the likeliest tokens; 0 is all."""
    max_tokens: int = 1024
    """Most tokens that the teacher writes for an example, its thinking included."""
    reason_tokens: int = 256
    """Longest reason in tokens; a longer one is dropped."""
    min_words: int = 8
    """Shortest reason in words; a shorter one is dropped."""
    quoted_words: int = 8
    """A reason with this many words in a row out of the caption it explains, or all of a shorter one, is dropped."""
    engines: int = 1
    """Number of vLLM engines."""
    tensor_parallel: int = 1
    """GPUs that share one engine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights in vLLM; 'auto' is float32 on CPUs."""
    max_model_length: int = 16_384
    """Longest prompt and answer together in tokens, at most what the model takes; histories are cut to fit."""
    shard_examples: int = 512
    """Examples in a shard: what is redone when a machine dies."""
    seed: int = 0
    """Of the sampling; each example draws with its own, made of this one and its id."""


@dataclass(frozen=True)
class ScoreConfig:
    """Chooses an artwork for every user-title pair of the requests. Run again to resume."""

    requests: Uri
    """Parquet of user_id, history, title_ids: a path or URI."""
    titles: Uri
    """Parquet of the titles."""
    artworks: Uri
    """Parquet of the artworks with their captions."""
    output: Uri
    """Where part-*.parquet, rejected/ and, last, _manifest.json go: a path or URI."""
    model: ModelName
    """'smollm2' (bundled), a hub id, a local path, or the output of training (its spec.json is then obeyed)."""
    decoding: Literal["choose", "rank", "labels", "freetext"] = "choose"
    """choose: the best candidate. rank: also every candidate's probability. labels: rank by the number of the
    candidate. freetext: the paper's way, write a caption and take the candidate that resembles it most."""
    permutation: int = 0
    """Show each title's candidates in another order, each number its own; 0 is the order of their ids. For measuring
    how much the place decides: jobs/evaluate.py --permutations."""
    label_prior: tuple[Uri, ...] = ()
    """With --decoding labels, outputs of such runs over a few percent of the pairs, in several --permutation: how much
    the model likes each number, whatever stands there, is estimated from them and divided out (PriDe)."""
    layout: Literal["title_first", "user_first", "auto"] | None = None
    """Order of the prompt, where the model brings no spec.json. auto: the one that costs less for these requests.
    Default: title_first."""
    output_format: Literal["text", "number"] | None = None
    """What the model answers with, where it brings no spec.json. Default: text; number for --decoding labels."""
    history_length: int | None = None
    """Newest interactions in the prompt, where the model brings no spec.json. Default: 50."""
    asset_kind: Literal["artwork", "synopsis", "trailer"] | None = None
    """Which rows of --artworks are candidates, by their column asset_kind, where the model brings no spec.json.
    Default: artwork."""
    assets: Literal["caption", "image"] | None = None
    """What the model sees of a candidate, where it brings no spec.json: its caption, or its picture, for which it must
    be a vision-language model; it then answers with numbers. Default: caption."""
    engines: int = 1
    """Number of vLLM engines, each on its own GPU or its own share of the CPUs."""
    tensor_parallel: int = 1
    """GPUs that share one engine, for models that do not fit one."""
    gpus_per_engine: float | None = None
    """GPUs for each engine, 0.5 for two on one. Default: --tensor-parallel where the cluster has GPUs, else 0."""
    engine_memory: float | None = None
    """Start an engine anew, between two shards, when its process holds more than this many GiB. Default: never."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights in vLLM; 'auto' is float32 on CPUs."""
    max_model_length: int = 8192
    """Longest prompt in tokens, at most what the model takes; a longer one first loses its oldest history."""
    plan: bool = False
    """Only count what the night costs, into OUTPUT/plan.json: tokens in both layouts, seconds, bytes."""
    tokens_per_second: float | None = None
    """Of one engine, for --plan. Default: measured on a few pairs. With --engine null, the speed to pretend."""
    shard_pairs: int = 4096
    """Most user-title pairs in a shard, which is redone when a machine dies; fewer where titles share little."""
    previous: Uri | None = None
    """Output of an earlier night: pairs with the same fingerprint (model, prompt, history, candidates) are taken from
    it, the others are scored."""
    explore: Literal["none", "epsilon", "softmax"] = "none"
    """Which artwork is served, with --decoding rank or labels. none: the likeliest. epsilon: with probability
    --epsilon any. softmax: drawn by the model's probabilities at --temperature. The propensity is written beside it."""
    epsilon: float = 0.05
    """Share of the pairs for which --explore epsilon draws among all candidates."""
    temperature: float = 1.0
    """Of --explore softmax: higher explores more."""
    seed: int = 0
    """Of the draws of --explore; give another one every night."""
    max_reject_rate: float = 0.05
    """Stop, with exit code 1, if more than this share of the pairs is rejected."""
    engine: Literal["vllm", "transformers", "null"] = "vllm"
    """transformers is slower, for machines without vLLM. null makes up numbers, at once or at --tokens-per-second: for
    measuring all but the model."""


@dataclass(frozen=True)
class TrainConfig:
    """Post-trains a model on examples with LoRA, on Ray Train. Run again to resume from the last checkpoint."""

    method: Literal["sft", "dpo"]
    """sft: learn the engaged artwork. dpo: prefer the engaged artwork to another candidate."""
    examples: Uri
    """Folder with train/ and validation/, such as D/examples: a path or URI."""
    model: ModelName
    """'smollm2' (bundled), a hub id, a local path, or the output of an earlier training, whose prompt is kept."""
    output: Uri
    """Where adapter/, merged/, spec.json, README.md and summary.json go: a path or URI."""
    output_format: Literal["text", "number"] | None = None
    """What the model learns to answer with. Default: as the earlier training, else text."""
    reason: bool = False
    """Learn to write the examples' reason first; after an earlier training that did, also without this flag."""
    layout: Literal["title_first", "user_first"] | None = None
    """Order of the prompt. Default: as the earlier training, else title_first."""
    history_length: int | None = None
    """Newest interactions in the prompt. Default: as the earlier training, else 50."""
    asset_kind: Literal["artwork", "synopsis", "trailer"] | None = None
    """What the examples' candidates are. Default: as the earlier training, else artwork."""
    assets: Literal["caption", "image"] | None = None
    """What the model sees of a candidate: its caption, or its picture, for a vision-language model and examples of
    prepare --assets image; it then answers with numbers. Default: as the earlier training, else caption."""
    learning_rate: float = 1e-5
    """Peak of the learning rate, after warming up over the first steps."""
    epochs: float = 1.0
    """Passes over the examples, unless --max-steps is given."""
    max_steps: int | None = None
    """Optimizer steps, instead of --epochs."""
    batch_size: int = 32
    """Examples of an optimizer step, over all workers."""
    micro_batch: int = 4
    """Examples that a worker holds at once; less needs less memory."""
    checkpoint_steps: int = 200
    """Steps from one checkpoint and validation to the next."""
    validation_size: int = 1_000
    """Most validation examples to choose for at each checkpoint."""
    shuffle_candidates: bool = False
    """Show the candidates in another order in every epoch, against position bias."""
    rejected: Literal["uniform", "logged"] = "uniform"
    """With dpo, the rejected candidate: any other one, or one that was probably shown, drawn by the mean propensity
    that the title's examples log for each artwork."""
    beta: float = 0.1
    """With dpo, how close to the reference model it stays."""
    lora_rank: int = 16
    """Rank of LoRA; 0 trains all weights."""
    max_model_length: int = 8192
    """Longest example in tokens, at most what the model takes; a longer one first loses its oldest history."""
    workers: int = 1
    """Training processes, each on a GPU where the cluster has some; 0 trains in this process without Ray."""
    fsdp: bool = False
    """Shard the model over the workers' GPUs (FSDP2): for one that does not fit one GPU. Needs GPUs."""
    seed: int = 0
    """Seed of the order of examples, of shuffled and rejected candidates, and of LoRA's first weights."""


@dataclass(frozen=True)
class SweepConfig(TrainConfig):
    """Trains once for each learning rate, on Ray Tune, and keeps the model with the best IPS on validation.

    Run again to resume: finished trials are kept, others go on from their last checkpoint.
    """

    output: Uri
    """Where best/, trials/, trials.parquet, report.html and tune/ (for TensorBoard) go: a path or URI."""
    learning_rate: tyro.conf.Suppress[float] = TrainConfig.learning_rate
    learning_rates: tuple[float, ...] = (1e-7, 5e-7, 1e-6, 5e-6, 1e-5, 1e-4)
    """Peaks of the learning rate to try; the default is the paper's."""
    asha: bool = False
    """End a trial early when it is behind the others at the same step (ASHA)."""
    concurrent: int | None = None
    """Trials at the same time. Default: as many as the cluster's GPUs, or its CPUs where it has none, allow."""


@dataclass(frozen=True)
class BaselineConfig:
    """Trains the network without a language model that others are compared with, on Ray Train's CPU workers.

    A user tower (history) and an artwork tower (caption, id), and popularity in train; docs/baseline.md.
    """

    examples: Uri
    """Folder with train/, validation/ and test/, such as D/examples: a path or URI."""
    output: Uri
    """Where model/, predictions/{validation,test}/, summary.json and, last, _manifest.json go: a path or URI."""
    learning_rates: tuple[float, ...] = (2e-3, 5e-3)
    """Learning rates to try, each with each weight decay; the best IPS on validation wins."""
    weight_decays: tuple[float, ...] = (0.01, 0.3)
    """Weight decays to try."""
    epochs: int = 10
    """Most passes over the train examples; a trial stops after one that has not lowered the loss on validation."""
    batch_size: int = 1_024
    """Examples of an optimizer step, over all workers."""
    width: int = 64
    """Length of the vectors that stand for users and artworks."""
    id_dropout: float = 0.5
    """How often an artwork's id is hidden in training, so that captions of unknown artworks are understood."""
    workers: int = 1
    """Training processes, one CPU each."""
    seed: int = 0
    """Of the first weights, the order of the examples and the hidden ids: same seed, same predictions."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Accuracy and off-policy estimates of predictions, with intervals, as metrics.json and report.html."""

    examples: Uri
    """Held-out examples: a path or URI, such as D/examples/test."""
    predictions: Uri
    """Output of jobs/score.py, or any Parquet of predictions."""
    output: Uri
    """Where metrics.json and report.html go: a path or URI."""
    baseline: Uri | None = None
    """Predictions to compare with, such as B/predictions/test. With every candidate's probability they are also the
    reward model of the direct method and of DR."""
    oracle: Uri | None = None
    """Oracle of a simulated world, for the best that any model could reach."""
    train: Uri | None = None
    """Examples to count engagements in, for the most-engaged-artwork reference. Default: ../train, if there."""
    impressions: Uri | None = None
    """Log of all impressions of predicted pairs, engaged with or not: the engagement that each policy would get, by
    IPS, SNIPS, DM and DR. Needs --baseline."""
    permutations: tuple[Uri, ...] = ()
    """Outputs of jobs/score.py for the same pairs with other --permutation: how often they agree with --predictions and
    each other, and how accurate a place is."""
    max_weight: float | None = None
    """Cut importance weights by logged propensities to this: less variance, some bias. Default: not cut."""
    resamples: int = 2_000
    """Bootstrap resamples of users."""
    seed: int = 0
    """Seed of the bootstrap."""


@dataclass(frozen=True)
class ReproduceConfig:
    """Runs what the paper's Tables 1 to 4 and Figure 1 need, and shows our numbers beside the paper's.

    Run again to resume: what is done is kept, what failed is tried again. docs/reproduce.md says what is run.
    """

    output: Uri
    """Where report.html, results.parquet and all that leads to them go: a path or URI."""
    scale: Literal["smoke", "small", "paper"] = "smoke"
    """smoke: a tiny random model, in minutes: shows that all runs. small: SmolLM2 and 10,000 examples. paper: Llama 3.2
    3B and 3.1 8B, 110,000 examples."""
    table: Literal["1", "2", "3", "4", "figure1", "all"] = "all"
    """What to run."""
    models: tuple[ModelName, ...] = ()
    """One or two models, in the places of the paper's 3B and 8B. Default: the scale's."""
    teacher: ModelName | None = None
    """Writes the reasons. Default: the scale's."""
    world: Uri | None = None
    """Folder with one's own titles/, artworks/, interactions/ and impressions/. Default: a simulated world."""
    workers: int = 1
    """Processes of each training; smoke trains in the job's own process."""
    engines: int = 1
    """Engines of each scoring and of the teacher."""
    seed: int = 0
    """Of the world, the splits, the trainings and the bootstrap."""


@dataclass(frozen=True)
class ExplainConfig:
    """Shows which taste gets which artwork of a title, and why, as a table and a page.

    A taste is a genre that an artwork's users watch more than the title's other users do; why is what the model's
    reasons say of them more often than of the others. docs/explanations.md.
    """

    predictions: Uri
    """A finished night: the output of jobs/score.py."""
    requests: Uri
    """The requests of that night."""
    titles: Uri
    """Parquet of the titles."""
    artworks: Uri
    """Parquet of the artworks with their captions."""
    output: Uri
    """Where tastes.parquet and report.html go: a path or URI."""
    min_users: int = 10
    """Of an artwork with fewer users nothing is told but how many they are, and no word of fewer reasons."""


@dataclass(frozen=True)
class ProposeConfig:
    """Finds users whom none of a title's artworks suits, and has a model write a brief for one that would.

    For artists: a table and a page. Run again to resume. docs/proposals.md.
    """

    predictions: Uri
    """A finished night: the output of jobs/score.py --decoding rank (or labels)."""
    requests: Uri
    """The requests of that night."""
    titles: Uri
    """Parquet of the titles."""
    artworks: Uri
    """Parquet of the artworks with their captions."""
    model: ModelName
    """That writes the briefs: 'smollm2' (bundled), a hub id, or a folder; an instruct model that writes well."""
    output: Uri
    """Where part-*.parquet, report.html and, last, _manifest.json go: a path or URI."""
    share: float = 0.25
    """Of a title's users those are looked at of whom the model knows least what they would like: this share."""
    min_users: int = 20
    """Fewer users are no group."""
    most: int = 100
    """Most proposals; those for most users are written."""
    max_tokens: int = 120
    """Most tokens of a brief."""
    engines: int = 1
    """Number of vLLM engines."""
    tensor_parallel: int = 1
    """GPUs that share one engine."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights in vLLM; 'auto' is float32 on CPUs."""
    max_model_length: int = 8192
    """Longest prompt and answer together in tokens; titles that exceed it get no brief."""
    seed: int = 0
    """Of the sampling of briefs."""


def run(config_type: type[Config], import_job: Callable[[], Callable[[Config], object]]) -> None:
    """Parses the command line, then imports the job and runs it, so that `--help` stays fast.

    Exits with 1 and one line on standard error for an `InputError`; wrong flags are tyro's, with 2.
    """
    config = absolute(tyro.cli(config_type))
    try:
        if getattr(config, "seed", 0) < 0:
            raise InputError("--seed is negative, expected 0 or more")
        import_job()(config)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; run the same command again", file=sys.stderr)
        sys.exit(130)


def absolute(config: Config) -> Config:
    """Makes local paths absolute: a cluster's workers have other working directories than the user."""
    changed = {}
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        kinds, value = {hint, *get_args(hint)}, getattr(config, name)
        if kinds & {Uri, ModelName} and value is not None:
            made = [
                _absolute(each, is_model=ModelName in kinds) for each in ([value] if isinstance(value, str) else value)
            ]
            changed[name] = made[0] if isinstance(value, str) else tuple(made)
    return dataclasses.replace(config, **changed)  # type: ignore[type-var]


def _absolute(name: str, is_model: bool) -> str:
    if "://" in name or name.startswith("file:") or (is_model and not Path(name).expanduser().exists()):
        return name
    return str(Path(name).expanduser().absolute())


def resolved(config: Any) -> dict[str, Any]:
    """Returns a config as plain values, for `config.json`."""
    return dataclasses.asdict(config)

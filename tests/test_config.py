"""Flags: bounds, messages, renamed names, and the way from a command line to a job."""

import dataclasses
import inspect
import os
import pickle
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import pytest
from annotated_types import Ge, Gt, Le, Lt

from artsel_ray.audience.settings import ExplainConfig, ProposeConfig
from artsel_ray.baseline.settings import BaselineConfig
from artsel_ray.caption.settings import CaptionConfig
from artsel_ray.command_line import parse, run
from artsel_ray.config import (
    DEFAULT_LIMITS,
    EngineSettings,
    FlagValueError,
    RowLimits,
    Uri,
    from_flags,
    limits_identity,
    resolved,
    settings,
)
from artsel_ray.decoding.decoders import DECODERS
from artsel_ray.distill.settings import DistillConfig
from artsel_ray.errors import InputError
from artsel_ray.evaluate.settings import EvaluateConfig
from artsel_ray.prepare.settings import PrepareConfig
from artsel_ray.reproduce.settings import ReproduceConfig
from artsel_ray.score.settings import ScoreConfig
from artsel_ray.simulate.settings import SimulateConfig
from artsel_ray.train.settings import SweepConfig, TrainConfig

CONFIGS: list[Any] = [
    BaselineConfig, CaptionConfig, DistillConfig, EvaluateConfig, ExplainConfig, PrepareConfig, ProposeConfig,
    ReproduceConfig, ScoreConfig, SimulateConfig, SweepConfig, TrainConfig,
]  # fmt: skip
FLAGS = ["--examples", "e", "--predictions", "p", "--output", "o"]


def required(config_type: Any) -> dict[str, str]:
    """Returns a value for each flag without a default."""
    names = [field.name for field in dataclasses.fields(config_type) if field.default is dataclasses.MISSING]
    return {name: "sft" if name == "method" else f"/{name}" for name in names}


def flags_of(values: dict[str, str]) -> list[str]:
    return [arg for name, value in values.items() for arg in (f"--{name.replace('_', '-')}", value)]


# The job that `run` calls: it reports its config in the exit code's place.
def exit_with_resamples(config: EvaluateConfig) -> None:
    sys.exit(config.resamples)


def report_broken_input(config: EvaluateConfig) -> None:
    raise InputError("x.parquet is broken; fix it")


def interrupt(config: EvaluateConfig) -> None:
    raise KeyboardInterrupt


def fail(config: EvaluateConfig) -> None:
    raise ZeroDivisionError


def run_job(monkeypatch: pytest.MonkeyPatch, function: Any, *more: str) -> int:
    """Runs a function of this module as a job; returns its exit code. Signals are handled as before it."""
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    module = inspect.getmodule(function)
    assert module is not None
    monkeypatch.setitem(sys.modules, "test_config_jobs", module)
    monkeypatch.setattr(sys, "argv", ["job", *FLAGS, *more])
    try:
        with pytest.raises(SystemExit) as ended:
            run(EvaluateConfig, f"test_config_jobs:{function.__name__}")
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_parsed_config_reaches_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_job(monkeypatch, exit_with_resamples, "--resamples", "7") == 7


@pytest.mark.parametrize(
    ("function", "flags", "code", "line"),
    [
        (report_broken_input, [], 1, "error: x.parquet is broken; fix it\n"),
        (interrupt, [], 130, "interrupted; run the same command again\n"),
        (fail, ["--seed", "-1"], 1, "error: --seed is -1; it must be at least 0\n"),
        (fail, ["--resamples", "x"], 2, "error: --resamples is 'x'; it must be a whole number\n"),
        (fail, ["--impressions", "i"], 1,
         "error: --impressions needs --baseline, whose probabilities are the reward model; add --baseline\n"),
    ],
)  # fmt: skip
def test_expected_errors_are_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    function: Any,
    flags: list[str],
    code: int,
    line: str,
) -> None:
    assert run_job(monkeypatch, function, *flags) == code
    assert capsys.readouterr().err == line


def terminate(config: EvaluateConfig) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)


def test_sigterm_ends_a_job_as_ctrl_c_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("artsel_ray.console._END_SECONDS", 3600)  # else it would end the tests
    assert run_job(monkeypatch, terminate) == 143
    assert capsys.readouterr().err == "interrupted; run the same command again\n"


def test_precision_of_engines_is_part_of_a_models_id() -> None:
    assert EngineSettings(engines=2, max_num_seqs=8, gpus_per_engine=0.5).precision == ""
    assert EngineSettings(quantization="fp8").precision == "+fp8"
    assert EngineSettings(quantization="fp8", kv_cache_dtype="fp8_e5m2").precision == "+fp8+kv-fp8_e5m2"


@pytest.mark.parametrize("config_type", CONFIGS, ids=lambda each: each.__name__)
def test_jobs_with_workers_or_engines_say_how_many_gpus_each_gets(config_type: Any) -> None:
    names = set(resolved(from_flags(config_type, **required(config_type))))
    assert ("engines" in names) == ("gpus_per_engine" in names) == ("tensor_parallel" in names)
    if config_type is not BaselineConfig:  # a network for CPUs
        assert ("workers" in names) == ("gpus_per_worker" in names)


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        run_job(monkeypatch, fail)


@pytest.mark.parametrize("args", [[*FLAGS, "--no-such-flag"], FLAGS[:4]])
def test_unknown_and_missing_flags_exit_with_2(args: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(EvaluateConfig, args)
    assert ended.value.code == 2


@settings
class Flags:
    """A flag of every type."""

    name: str
    count: Annotated[int, Ge(1), Le(2_000_000)] = 1
    rate: Annotated[float, Gt(0), Lt(1)] | None = None
    rates: tuple[Annotated[float, Gt(0)], ...] = (1.0,)
    kind: Literal["a", "b"] = "a"
    width: Literal["a", "b"] | Literal["auto"] | None = None
    deep: bool = False
    engine_pool: EngineSettings = EngineSettings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "--count is 0; it must be at least 1"),
        ({"count": 2_000_001}, "--count is 2000001; it must be at most 2,000,000"),
        ({"rate": 0.0}, "--rate is 0.0; it must be more than 0"),
        ({"rate": 1.0}, "--rate is 1.0; it must be less than 1"),
        ({"rate": float("nan")}, "--rate is nan; it must be a finite number"),
        ({"rates": (1.0, -1.0)}, "--rates is -1.0; it must be more than 0"),
        ({"engines": 0}, "--engines is 0; it must be at least 1"),
        ({"max_model_length": 63, "count": 1}, "--max-model-length is 63; it must be at least 64"),
        ({"gpus_per_engine": -0.5}, "--gpus-per-engine is -0.5; it must be at least 0"),
        ({"gpus_per_engine": 2.0}, "--gpus-per-engine is 2; it must be the same as --tensor-parallel, 1"),
        (
            {"gpus_per_engine": 0.5, "tensor_parallel": 2},
            "--gpus-per-engine is 0.5; it must be the same as --tensor-parallel, 2",
        ),
        ({"gpu_memory_utilization": 0.0}, "--gpu-memory-utilization is 0.0; it must be more than 0"),
        ({"max_num_seqs": 0}, "--max-num-seqs is 0; it must be at least 1"),
        ({"count": 0, "rate": 2.0}, "--count is 0; it must be at least 1; --rate is 2.0; it must be less than 1"),
    ],
)
def test_values_out_of_bounds(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        from_flags(Flags, name="n", **values)
    assert str(raised.value) == message
    assert not isinstance(raised.value, FlagValueError)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": "x"}, "--count is 'x'; it must be a whole number"),
        ({"count": 1.5}, "--count is 1.5; it must be a whole number"),
        ({"count": None}, "--count is None; it must be a whole number"),
        ({"count": "9" * 5000}, f"--count is '{'9' * 5000}'; it must be a whole number"),
        ({"rate": "x"}, "--rate is 'x'; it must be a number"),
        ({"rate": ()}, "--rate is (); it must be a number"),
        ({"rates": ("x",)}, "--rates is 'x'; it must be a number"),
        ({"rates": 5}, "--rates is 5; it must be a list"),
        ({"deep": "perhaps"}, "--deep is 'perhaps'; it must be true or false"),
        ({"deep": ()}, "--deep is (); it must be true or false"),
        ({"name": 3}, "--name is 3; it must be text"),
        ({"kind": "c"}, "--kind is 'c'; it must be 'a' or 'b'"),
        ({"width": "c"}, "--width is 'c'; it must be 'a' or 'b' or 'auto'"),
        ({"dtype": "int8"}, "--dtype is 'int8'; it must be 'auto', 'float32', 'bfloat16' or 'float16'"),
        ({"color": "red"}, "--color is no flag of Flags"),
    ],
)
def test_values_of_the_wrong_type(values: dict[str, Any], message: str) -> None:
    with pytest.raises(FlagValueError) as raised:
        from_flags(Flags, **{"name": "n", **values})
    assert str(raised.value) == message


def test_missing_and_positional_values() -> None:
    with pytest.raises(FlagValueError, match=r"^--name is missing$"):
        from_flags(Flags)
    with pytest.raises(TypeError):
        Flags("n")  # type: ignore[call-arg]


def test_a_group_given_as_a_dict_names_its_flag() -> None:
    with pytest.raises(InputError, match=r"^--engines is 0; it must be at least 1$"):
        Flags(name="n", engine_pool={"engines": 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--count", "x"], "--count is 'x'; it must be a whole number"),
        (["--rate", "x"], "--rate is 'x'; it must be a number"),
        (["--rates", "1", "x"], "--rates is 'x'; it must be a number"),
        (["--kind", "c"], "--kind is 'c'; it must be 'a' or 'b'"),
        (["--engines", "0"], "--engines is 0; it must be at least 1"),
        (["--dtype", "int8"], "--dtype is 'int8'; it must be 'auto', 'float32', 'bfloat16' or 'float16'"),
    ],
)
def test_the_command_line_reports_what_the_constructor_does(args: list[str], message: str) -> None:
    with pytest.raises(InputError) as raised:
        parse(Flags, ["--name", "n", *args])
    assert str(raised.value) == message


def test_values_are_parsed_to_their_types() -> None:
    words = "--name 7 --count 2 --rate 1e-3 --rates 1 2.5 --kind b --width auto --deep --engines 3"
    assert parse(Flags, words.split()) == Flags(
        name="7", count=2, rate=0.001, rates=(1.0, 2.5), kind="b", width="auto", deep=True,
        engine_pool=EngineSettings(engines=3),
    )  # fmt: skip
    assert parse(Flags, ["--name", "n", "--rate", "None", "--no-deep"]) == Flags(name="n")


SCORE = required(ScoreConfig)
TRAIN = required(TrainConfig)


@pytest.mark.parametrize(
    ("config_type", "flags", "message"),
    [
        (BaselineConfig, {"batch_size": 1, "workers": 2}, "--batch-size is 1; it must be at least --workers, 2"),
        (BaselineConfig, {"learning_rates": ()}, "--learning-rates is empty"),
        (BaselineConfig, {"weight_decays": ()}, "--weight-decays is empty"),
        (CaptionConfig, {"engine": "transformers", "tensor_parallel": 2}, "--tensor-parallel is for --engine vllm"),
        (EvaluateConfig, {"impressions": "i"}, "--impressions needs --baseline"),
        (ReproduceConfig, {"models": ("a", "b", "c")}, "--models names 3 models; it must be one or two"),
        (ScoreConfig, {"explore": "epsilon"}, "add --decoding rank"),
        (ScoreConfig, {"label_prior": ("p",), "decoding": "rank"}, "--label-prior needs --decoding labels"),
        (
            SimulateConfig,
            {"min_candidates": 5, "max_candidates": 4},
            "--max-candidates is 4; it must be at least --min-candidates 5",
        ),
        (SimulateConfig, {"source": "movielens", "users": 944}, "--users is 944; MovieLens 100K has 943"),
        (TrainConfig, {"batch_size": 6, "micro_batch": 4}, "--batch-size is 6; it must be a multiple of"),
        (TrainConfig, {"fsdp": True}, "--workers is 1; raise it"),
        (TrainConfig, {"negatives": "all"}, "--negatives all is a kind of dpo, and --method is sft"),
        (SweepConfig, {"learning_rates": (1e-5, 1e-5)}, "--learning-rates is '1e-05 1e-05'"),
        (SweepConfig, {"learning_rates": ()}, "--learning-rates is ''"),
        (SweepConfig, {"workers": 0}, "--workers is 0; a sweep runs on Ray"),
        (SweepConfig, {"batch_size": 6}, "--batch-size is 6"),  # its parent's rules hold too
    ],
)
def test_flags_that_do_not_go_together(config_type: Any, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        from_flags(config_type, **{**required(config_type), **flags})


@pytest.mark.parametrize("name", DECODERS)
def test_decoding_takes_the_names_of_the_table(name: str) -> None:
    assert from_flags(ScoreConfig, **SCORE, decoding=name).decoding == name
    with pytest.raises(FlagValueError, match=f"--decoding is 'beam'; it must be .*'{name}'"):
        from_flags(ScoreConfig, **SCORE, decoding="beam")


@pytest.mark.parametrize(
    ("old", "new", "config_type"),
    [
        ("--plan", "--estimate-cost", ScoreConfig),
        ("--least-users 3", "--min-users 3", ExplainConfig),
        ("--least_users=3", "--min-users=3", ExplainConfig),
        ("--most 3", "--max-proposals 3", ProposeConfig),
        ("--kept-pixels 300", "--resize-to-pixels 300", CaptionConfig),
        ("--pictures", "--images", SimulateConfig),
        ("--engine null", "--engine fake", ScoreConfig),
        ("--engine=null", "--engine=fake", ScoreConfig),
    ],
)
def test_renamed_flags_work_with_a_warning(
    capsys: pytest.CaptureFixture[str], old: str, new: str, config_type: Any
) -> None:
    args = flags_of(required(config_type))
    assert parse(config_type, [*args, *old.split()]) == parse(config_type, [*args, *new.split()])
    given, now = next((a, b) for a, b in zip(old.split(), new.split(), strict=True) if a != b)
    warning = f"warning: '{given}' is now '{now}'; the next version will not accept the old name\n"
    assert capsys.readouterr().err == warning


@pytest.mark.parametrize("config_type", CONFIGS)
def test_resolved_and_from_flags_are_inverse(config_type: Any) -> None:
    config = parse(config_type, flags_of(required(config_type)))
    values = resolved(config)
    assert not any(dataclasses.is_dataclass(value) for value in values.values())
    assert from_flags(config_type, **values) == config
    assert len(resolved(from_flags(config_type, **required(config_type)))) == len(values)


def test_from_flags_sets_flags_of_groups() -> None:
    config = from_flags(ScoreConfig, **SCORE, engines=3, layout="auto", seed=7)
    assert (config.engine_pool.engines, config.prompt.layout, config.serving.seed) == (3, "auto", 7)
    # A group's default for this job is kept: distilling needs long answers.
    distill = from_flags(DistillConfig, **required(DistillConfig), engines=2)
    assert (distill.engine_pool.engines, distill.engine_pool.max_model_length) == (2, 16_384)


@pytest.mark.parametrize("config_type", CONFIGS)
def test_configs_travel_to_workers(config_type: Any) -> None:
    config = from_flags(config_type, **required(config_type))
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.output = "elsewhere"


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = "--examples e --predictions s3://bucket/p --output ~/o --train file:/t --permutations a s3://b/c"
    config = parse(EvaluateConfig, words.split())
    assert (config.examples, config.predictions) == (str(tmp_path / "e"), "s3://bucket/p")
    assert (config.output, config.train, config.baseline) == (str(Path("~/o").expanduser()), "file:/t", None)
    assert config.permutations == (str(tmp_path / "a"), "s3://b/c")


@pytest.mark.parametrize("config_type", [each for each in CONFIGS if each not in (ReproduceConfig, SimulateConfig)])
def test_output_is_never_in_an_inputs_folder(config_type: Any, tmp_path: Path) -> None:
    values = required(config_type)
    inputs = [name for name, hint in get_type_hints(config_type, include_extras=True).items() if hint is Uri]
    for name in set(inputs) - {"output"}:
        flags = {**values, name: f"{tmp_path}/in", "output": f"{tmp_path}/in/../in/night-1"}
        with pytest.raises(InputError, match=f"--output .* is in the folder of --{name.replace('_', '-')}, "):
            parse(config_type, flags_of(flags))
        with pytest.raises(InputError, match=f"--{name.replace('_', '-')} .* is in the folder of --output, "):
            parse(config_type, flags_of({**flags, "output": str(tmp_path)}))
        parse(config_type, flags_of({**flags, "output": f"{tmp_path}/in-2"}))


def test_run_is_never_its_own_previous() -> None:
    with pytest.raises(InputError, match="--output s3://b/p is in the folder of --previous, s3://b/p/;"):
        parse(ScoreConfig, flags_of({**SCORE, "output": "s3://b/p", "previous": "s3://b/p/"}))
    with pytest.raises(InputError, match="is in the folder of --permutations, "):
        parse(EvaluateConfig, [*FLAGS, "--permutations", "a", "o"])


@pytest.mark.parametrize(("flag", "name"), [("output", "s3:/b/o"), ("examples", "s4://b/e"), ("model", "S3://b/m")])
def test_misspelled_scheme_is_one_line_with_the_flag(flag: str, name: str) -> None:
    with pytest.raises(InputError, match=f"--{flag} is {name}, which is no storage's URI; write s3://b/{name[-1]}"):
        parse(TrainConfig, flags_of({**TRAIN, flag: name}))


def test_a_model_is_a_path_only_if_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    names = ("smollm2", "folder", "org/name", "s3://b/T")
    assert [parse(TrainConfig, flags_of({**TRAIN, "model": name})).model for name in names] == [
        "smollm2", str(tmp_path / "folder"), "org/name", "s3://b/T",
    ]  # fmt: skip
    assert parse(ReproduceConfig, ["--output", "o", "--models", "folder", "org/name"]).models == (
        str(tmp_path / "folder"), "org/name",
    )  # fmt: skip


@pytest.mark.parametrize("config_type", CONFIGS)
def test_help_is_grouped_and_documents_every_flag(config_type: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse(config_type, ["--help"])
    shown = capsys.readouterr().out
    hidden = {"learning_rate"} if config_type is SweepConfig else set()
    for name in resolved(from_flags(config_type, **required(config_type))).keys() - hidden:
        assert f"--{name.replace('_', '-')}" in shown
    for field in dataclasses.fields(config_type):
        if dataclasses.is_dataclass(field.default):
            assert f"{field.name.replace('_', '-')} options" in shown


def test_every_job_that_reads_tables_has_the_limits_of_a_row() -> None:
    for config_type in CONFIGS:
        if config_type not in (SimulateConfig, ReproduceConfig):  # they read what they have simulated
            config = from_flags(config_type, **required(config_type), max_text_bytes=10**6)
            assert config.limits == RowLimits(max_text_bytes=10**6)


def test_only_raised_limits_are_part_of_a_runs_identity() -> None:
    assert limits_identity(DEFAULT_LIMITS) == {}
    raised = {"max_text_bytes": 200_000, "max_row_items": 10_000, "max_genres": 101}
    assert limits_identity(RowLimits(max_genres=101)) == {"limits": raised}

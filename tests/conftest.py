"""Fixtures shared by all tests: one Ray, one S3 server and small models, each made when a test first needs it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from artsel_ray.models.load import SMOLLM2, Model, load
from tests.support.s3_server import KEY, SECRET, s3_server, uri

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Before torch is imported, and for all processes that tests start. Several of them share the machine: threads that
# spin while they wait for one another take from the others what the tiny models here need.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A machine that other tests keep busy is no error of the one that waits.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# Modules whose tests take minutes, the longest first: started last, one worker would wait for another.
_LONGEST = [
    "tests/test_ray_jobs.py",
    "tests/test_faults.py",
    "tests/reproduce/test_job.py",
    "tests/score/test_scoring_run.py",
    "tests/train/test_job.py",
    "tests/distill/test_job.py",
    "tests/train/test_learning.py",
    "tests/runtime/test_sharded_job.py",
    "tests/train/test_sweep.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest modules first."""
    order = {Path(__file__).parents[1] / name: index for index, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope="session")
def ray_cluster(s3_credentials: None) -> Iterator[None]:
    """A local Ray of two CPUs."""
    import ray

    # A separate one, even if another runs on this machine.
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_credentials() -> Iterator[None]:
    """Puts the S3 server's credentials into the environment, before a Ray starts whose workers need them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        yield


@pytest.fixture(scope="session")
def s3_address(tmp_path_factory: pytest.TempPathFactory, s3_credentials: None) -> Iterator[str]:
    """Host and port of a real S3-compatible server on loopback; each pytest-xdist worker has one."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    with s3_server(tmp_path_factory.mktemp("s3"), shift=worker * 20) as address:
        yield address


@pytest.fixture(scope="session")
def bucket(s3_address: str) -> str:
    """A folder on the S3 server, as a URI with its query."""
    return uri(s3_address, "night/data")


@pytest.fixture(scope="session")
def smollm2() -> Model:
    """The bundled model, converted in the cache."""
    return load(SMOLLM2)


@pytest.fixture(scope="session")
def tokenizer(smollm2: Model) -> "PreTrainedTokenizerBase":
    """The bundled model's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2.path)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], str]:
    """Makes a random Llama of two layers and 600 tokens, with tied embeddings or without; fast in any engine."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from artsel_ray.prompts import text as render

    def make_tokenizer() -> PreTrainedTokenizerFast:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["<|begin|>", "<|end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(
            [render.instruction("artwork"), render.HISTORY_HEAD, render.PREDICTION, "Drama, Crime"], trainer
        )
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>")

    made: dict[bool, str] = {}

    def make(tied: bool) -> str:
        if tied not in made:
            folder, tokenizer = tmp_path_factory.mktemp("model") / "tiny", make_tokenizer()
            torch.manual_seed(0)
            settings = LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, head_dim=32, max_position_embeddings=2048,
                initializer_range=0.3, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=1,
            )  # fmt: skip
            LlamaForCausalLM(settings).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[tied] = str(folder)
        return made[tied]

    return make

"""Fixtures shared by all tests: one Ray and one small model for the whole session, each made when first asked for."""

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from artsel_ray.models.load import SMOLLM2, Model, load

_S3_PORT = 18333


@pytest.fixture(scope="session")
def ray_cluster(s3_credentials: None) -> Iterator[None]:
    """A local Ray of two CPUs."""
    import ray

    # Its own, where the machine has another one running.
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_credentials() -> Iterator[None]:
    """The S3 server's, in the environment, before a Ray starts whose workers need them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "K")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "S")
        yield


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory, s3_credentials: None) -> Iterator[str]:
    """A folder on a real S3-compatible server on loopback, as a URI with its query."""
    folder = tmp_path_factory.mktemp("s3")
    access = {"accessKey": "K", "secretKey": "S"}
    identity = {"name": "t", "credentials": [access], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    weed = shutil.which("weed", path=str(Path(sys.executable).parent))
    assert weed
    command = [
        weed, "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}",
        "-master.port=19333", "-volume.port=18080", "-filer", "-filer.port=18888", "-s3", f"-s3.port={_S3_PORT}",
        f"-s3.config={folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0", "-metricsPort=0", "-volume.max=20",
        "-volume.preStopSeconds=0", "-master.volumeSizeLimitMB=64",
    ]  # fmt: skip
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait(f"http://127.0.0.1:{_S3_PORT}/healthz", server, folder / "log")
            yield f"s3://night/data?endpoint_override=127.0.0.1:{_S3_PORT}&scheme=http&allow_bucket_creation=true"
        finally:
            server.kill()
            server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(url, timeout=1)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"no answer from {url}: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def smollm2() -> Model:
    """The bundled model, converted in the cache."""
    return load(SMOLLM2)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], str]:
    """Makes a random Llama of two layers and 600 tokens, its embeddings tied or not; quick in any engine."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from artsel_ray.prompts import render

    def make_tokenizer() -> PreTrainedTokenizerFast:
        pieces = Tokenizer(models.BPE())
        pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        pieces.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["<|begin|>", "<|end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        pieces.train_from_iterator(
            [render.INSTRUCTION, render.HISTORY_HEAD, render.PREDICTION, "Drama, Crime"], trainer
        )
        return PreTrainedTokenizerFast(tokenizer_object=pieces, bos_token="<|begin|>", eos_token="<|end|>")

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

"""Jobs submitted to a Ray head, as on a cluster, with all they read and write on a real S3-compatible server."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from artsel_ray import schema, storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.models.load import Model
from artsel_ray.simulate.job import simulate
from artsel_ray.simulate.settings import SimulateConfig
from tests.support.canary import CANARY, logged, tells
from tests.support.s3_server import SECRET

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@dataclass
class Head:
    """A Ray head of this test alone."""

    folder: Path
    """Folder of its sessions, with all logs."""
    environment: dict[str, str]

    def submit(self, entrypoint: str, *flags: str) -> str:
        """Runs a job until it finishes; returns its log."""
        return self.job("submit", *flags, "--working-dir", ".", "--", *entrypoint.split())

    def job(self, *command: str) -> str:
        """Runs `ray job`; returns its output."""
        done = subprocess.run(["ray", "job", *command], env=self.environment, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def head(s3_address: str) -> Iterator[Head]:
    """A head node, with token authentication as it is by default."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:8265",
        "RAY_AUTH_MODE": "token",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "AWS_ENDPOINT_URL": f"http://{s3_address}",
        "AWS_REGION": "us-east-1",
    }
    command = ["ray", "start", "--head", "--num-cpus=2", "--disable-usage-stats", "--block"]
    # The tests' own Ray may hold the default port, and a node without its agent takes no jobs.
    command += ["--dashboard-agent-listen-port=52366"]
    # A separate folder, so that no other test takes it for the machine's Ray; pytest's paths are too long for a socket.
    with tempfile.TemporaryDirectory() as folder:
        own = {**environment, "RAY_TMPDIR": folder}
        with subprocess.Popen(command, env=own, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert any("Ray runtime started" in line for line in process.stdout)
            yield Head(Path(folder), environment)
            # Not `ray stop`: it would end every Ray on the machine, the tests' own included.
            process.terminate()


# Data by design: tables, the words that the baseline knows, and a page that shows artworks.
DATA = ("world/", "prepared/examples/", "prepared/requests/", "baseline/model/", "explanation/report.html")


def test_all_jobs_run_submitted_and_leak_no_user_text(
    head: Head, bucket: str, tiny_llama: Callable[[bool], str]
) -> None:
    storage.write_json(storage.join(bucket, "made.json"), {})  # and with it the bucket
    model, base = tiny_llama(True), "s3://night/data"
    world, data, trained = (f"{base}/{name}" for name in ("world", "prepared", "trained"))
    simulate(
        SimulateConfig(
            output=storage.join(bucket, "world"), users=60, titles=10, interactions_per_user=6, caption_tokens=16,
            max_candidates=5,
        )
    )  # fmt: skip
    _plant(storage.join(bucket, "world"))
    training = f"--examples {data}/examples --max-steps 4 --batch-size 4 --validation-size 4"
    jobs = [
        f"prepare.py --input {world} --output {data} --test-size 20 --validation-size 5",
        f"train.py --method sft --model {model} --output {trained} --workers 1 {training}",
        f"train.py --method dpo --model {trained} --output {base}/preferred --workers 1 {training}",
        f"sweep.py --method sft --model {model} --output {base}/sweep {training} --learning-rates 1e-4 1e30",
        f"score.py --requests {data}/requests/test --titles {world}/titles --artworks {world}/artworks "
        f"--model {trained} --engine transformers --decoding rank --output {base}/predictions",
        f"baseline.py --examples {data}/examples --output {base}/baseline --epochs 1 "
        "--learning-rates 0.005 --weight-decays 0.01",
        f"evaluate.py --examples {data}/examples/test --predictions {base}/predictions "
        f"--oracle {world}/oracle --output {base}/evaluation",
        f"explain.py --predictions {base}/predictions --requests {data}/requests/test "
        f"--titles {world}/titles --artworks {world}/artworks --output {base}/explanation",
    ]
    logs = head.submit(f"python -m tests.support.job_chain {' '.join(f'jobs/{job}' for job in jobs)}")
    assert "artworks" in storage.read_json(storage.join(bucket, "prepared", "summary.json"))["simulated"]
    metrics = storage.read_json(storage.join(bucket, "evaluation", "metrics.json"))
    assert (metrics["examples"], metrics["missing"]) == (20, 0)
    report = storage.read_object(storage.join(bucket, "evaluation", "report.html")).decode()
    assert "simulated" in report.lower()
    # A trial that diverges does not end a sweep.
    trials = read_table(storage.join(bucket, "sweep", "trials.parquet"), "trials").to_pylist()
    assert {trial["learning_rate"]: trial["status"] for trial in trials} == {1e-4: "finished", 1e30: "failed"}
    (error,) = (trial["error"] for trial in trials if trial["error"])
    assert "lower --learning-rate" in error
    assert "lower --learning-rate" in storage.read_object(storage.join(bucket, "sweep", "report.html")).decode()

    # The canary is in every prompt, and in an invalid row.
    examples = read_table(storage.join(bucket, "prepared", "examples", "test"), "examples").to_pylist()
    assert all(CANARY in example["title_name"] for example in examples)
    assert any(CANARY in item["title_name"] for example in examples for item in example["history"])
    reasons = read_table(storage.join(bucket, "prepared", "rejected"), "invalid_rows")["reason"].to_pylist()
    assert "unknown title" in reasons
    fs, path = storage.filesystem(bucket)
    entries = fs.get_file_info(pafs.FileSelector(path, recursive=True))
    names = [entry.path[len(path) + 1 :] for entry in entries if entry.type == pafs.FileType.File]
    kept = {name: fs.open_input_file(f"{path}/{name}").read() for name in names if not name.startswith(DATA)}
    assert any(name.endswith("README.md") for name in kept)
    parquet = [name for name in kept if name.endswith(".parquet")]
    assert {name.split("/")[0] for name in parquet} == {"prepared", "predictions", "baseline", "sweep", "explanation"}
    plain = {name: repr(pq.read_table(pa.BufferReader(kept[name])).to_pydict()).encode() for name in parquet}
    texts = {"the jobs' logs": logs.encode(), **kept, **plain}
    for word in (CANARY, SECRET):
        assert [name for name, text in texts.items() if tells(text, word)] == []
        assert logged(head.folder, word) == []


def test_stopped_run_resumes_and_the_next_one_reuses_its_predictions(
    head: Head, bucket: str, tiny_llama: Callable[[bool], str]
) -> None:
    store, titles = storage.join(bucket, "store"), [f"t{i}" for i in range(4)]
    columns = {
        "titles": [{"title_id": title, "name": title, "genres": ["Drama"]} for title in titles],
        "artworks": [
            {"artwork_id": f"{title}-{i}", "title_id": title, "caption": f"{i} towers"}
            for title in titles
            for i in (1, 2)
        ],
    }
    for name, rows in columns.items():
        table = pa.Table.from_pylist(rows, schema.TABLES[name])
        storage.write_table(storage.join(store, name, "part-0.parquet"), table, name)
    for date, users in (("2026-11-21", 20), ("2026-11-22", 21)):
        asked = [{"user_id": f"u{i}", "history": [], "title_ids": titles} for i in range(users)]
        requests = pa.Table.from_pylist(asked, schema.TABLES["requests"])
        storage.write_table(storage.join(store, f"requests/date={date}/part-0.parquet"), requests, "requests")

    def entrypoint(date: str, flags: str = "") -> str:
        model = tiny_llama(True)
        return (
            f"env RUN_DATE={date} sh cluster/nightly.sh s3://night/data/store --model {model} --engine fake "
            f"--shard-pairs 4 {flags}"
        )

    first, second = (storage.join(store, f"predictions/date={date}") for date in ("2026-11-21", "2026-11-22"))
    # Some seconds per shard: the run does not finish before it is stopped.
    head.submit(entrypoint("2026-11-21", "--tokens-per-second 50"), "--no-wait", "--submission-id", "first")
    deadline = time.monotonic() + 400
    while not storage.find_files(first) and time.monotonic() < deadline:
        time.sleep(0.5)
    done = len(storage.find_files(first))
    head.job("stop", "first")
    (shards,) = re.findall(r"80 pairs in (\d+) shards", head.job("logs", "first"))
    assert "was stopped" in head.job("status", "first")
    assert storage.read_manifest(first) is None
    (kept,) = re.findall(r"shards, (\d+) done", head.submit(entrypoint("2026-11-21")))
    assert 0 < done <= int(kept) < int(shards)
    head.submit(entrypoint("2026-11-22"))
    assert storage.read_json(storage.join(first, "summary.json"))["pairs"] == 80
    after = storage.read_json(storage.join(second, "summary.json"))
    assert (after["pairs"], after["reused"]) == (84, 80)


def _plant(world: str) -> None:
    """Writes the canary into every name and caption, and adds an artwork that prepare rejects."""
    for name, column in (("titles", "name"), ("artworks", "caption")):
        (file,) = storage.list_files(storage.join(world, name))
        rows = read_table(file, name).to_pylist()
        for row in rows:
            row[column] = f"{CANARY} {row[column]}"
        if name == "artworks":
            rows.append({**rows[0], "artwork_id": "stray", "title_id": "nowhere"})
        storage.write_table(file, pa.Table.from_pylist(rows, schema.TABLES[name]), name)


def test_quickstart_runs(head: Head, smollm2: Model, tmp_path: Path) -> None:
    page = (ROOT / "docs/quickstart.md").read_text()
    lines = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)).splitlines()
    # Skip the installation, which the tests have done, and Ray's start and stop: this test has its own head.
    skipped = ("make ", "source ", "ray start", "ray stop", "export RAY_API_SERVER_ADDRESS")
    script = "\n".join(line for line in lines if not line.startswith(skipped))
    assert script.count("python jobs/") == 6
    for folder in ("jobs", "artsel_ray"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / ".gitignore", tmp_path)  # Ray does not upload the ignored files
    done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=head.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    metrics = storage.read_json(str(tmp_path / "try/evaluation/metrics.json"))
    assert metrics["examples"] > metrics["missing"] == 0
    assert all((tmp_path / "try" / page).exists() for page in ("evaluation/report.html", "explanation/report.html"))

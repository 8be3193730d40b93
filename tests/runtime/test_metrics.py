"""What Ray's metrics endpoint reports of a real run, and that dashboard and alerts query nothing else."""

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import ray
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from artsel_ray import storage
from artsel_ray.score.job import score
from tests.support.scoring_world import score_config, write_requests, write_scoring_world

CLUSTER = Path(__file__).parent.parent.parent / "cluster"
DASHBOARD = json.loads((CLUSTER / "grafana/scoring.json").read_text())
RUN = "date=2026-11-22"


def scraped() -> dict[str, list[tuple[dict[str, str], float]]]:
    """Our metrics, of this test's run, as Prometheus would read them."""
    url = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    families = text_string_to_metric_families(urllib.request.urlopen(url).read().decode())
    ours: dict[str, list[tuple[dict[str, str], float]]] = {}
    for sample in (sample for family in families for sample in family.samples):
        if sample.name.startswith("ray_artsel_") and sample.labels["run"] == RUN:
            ours.setdefault(sample.name, []).append((sample.labels, sample.value))
    return ours


def queried(expression: str) -> set[str]:
    """The metrics that a PromQL expression reads."""
    names: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            assert node.name
            names.add(node.name)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return names


@pytest.mark.usefixtures("ray_cluster")
def test_metrics_equal_the_summary_and_are_all_that_is_queried(tmp_path: Path) -> None:
    write_scoring_world(tmp_path)
    write_requests(str(tmp_path / "requests/part-2.parquet"), [("x1", [], ["t1", "nowhere"]), ("x2", [], None)])
    output, before = str(tmp_path / RUN), time.time()
    flags = {"tokens_per_second": 1e9, "shard_pairs": 4, "max_reject_rate": 0.5}
    score(score_config(tmp_path, output=f"{output}/", **flags))
    summary = storage.read_json(f"{output}/summary.json")
    # Processes report every ten seconds and when they end; an engine's metrics are forgotten after twenty.
    found, deadline = scraped(), time.monotonic() + 60
    while len(found) < 10 and time.monotonic() < deadline:
        time.sleep(1)
        found |= scraped()
    values = {name: sum(value for _, value in samples) for name, samples in found.items()}
    published = values.pop("ray_artsel_published_timestamp_seconds")
    memory = max(value for _, value in found["ray_artsel_engine_memory_bytes"])
    del values["ray_artsel_engine_memory_bytes"]
    shards = len(storage.list_files(output))
    assert summary["cached_tokens"] > 0
    assert values == {
        "ray_artsel_pairs_total": summary["pairs"],
        "ray_artsel_rejected_pairs_total": summary["rejected"] + summary["rejected_request_pairs"],
        "ray_artsel_prompt_tokens_total": summary["prompt_tokens"],
        "ray_artsel_cached_tokens_total": summary["cached_tokens"],
        "ray_artsel_decoded_tokens_total": summary["decoded_tokens"],
        "ray_artsel_shards": shards,
        "ray_artsel_shards_done": shards,
        "ray_artsel_eta_seconds": 0,
    }
    assert before < published < time.time()
    assert memory / 2**30 == pytest.approx(summary["engine_memory_gib"], rel=0.05)

    documents = yaml.safe_load_all((CLUSTER / "kuberay/monitoring.yaml").read_text())
    rules = next(each for each in documents if "groups" in each["spec"])["spec"]["groups"]
    alerts = [rule["expr"] for group in rules for rule in group["rules"]]
    panels = [target["expr"].replace("$__range", "1h") for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert min(len(alerts), len(panels)) > 4
    wanted = {name for expression in [*alerts, *panels] for name in queried(expression)}
    assert wanted == set(found)

    # A tag is the run's name or Ray's own: nothing of a user or a title.
    tags = {key for samples in found.values() for labels, _ in samples for key in labels}
    assert tags - {"run"} <= {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"} | {
        f"otel_scope_{name}" for name in ("name", "version", "schema_url")
    }


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    register_default_plugins()
    known = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(DASHBOARD)))
    assert without_defaults(DASHBOARD, known) == DASHBOARD
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def without_defaults(given: Any, known: Any) -> Any:
    """Returns a value of Grafana without the fields that only Grafana added."""
    if isinstance(given, dict):
        return {key: without_defaults(value, known[key]) for key, value in given.items() if key in known}
    if isinstance(given, list):
        return [without_defaults(*pair) for pair in zip(given, known, strict=True)]
    return known

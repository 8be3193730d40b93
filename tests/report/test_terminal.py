from typing import Any

from artsel_ray.evaluation.metrics import LOG_METRICS, METRICS
from artsel_ray.report.terminal import evaluation_lines

ESTIMATE = {"value": 0.5, "low": 0.25, "high": 0.75}
UNKNOWN = {"value": None, "low": None, "high": None}
ROW = {metric.name: ESTIMATE for metric in METRICS}


def metrics(**changes: Any) -> dict[str, Any]:
    counts = ("missing", "unknown_artwork", "other_predictions", "unusable_predictions", "rejected_examples")
    return {
        "headline": "ips",
        **ROW,
        **dict.fromkeys((*counts, "invalid_propensities"), 0),
        "examples": 4321,
        "users": 99,
        "known_propensities": 4321,
        "warnings": [],
        "difference": {"random": ROW, "baseline": {**ROW, "ips": UNKNOWN}},
        "references": {"random": ROW, "baseline": ROW},
        "titles": None,
        "log": None,
        "permutations": None,
    } | changes


def test_headline_metrics_of_every_policy() -> None:
    cell = "0.5000 [0.2500, 0.7500]"
    assert evaluation_lines(metrics()) == [
        "            accuracy                    IPS",
        f"model       {cell}     {cell}",
        f"random      {cell}     {cell}",
        f"baseline    {cell}     {cell}",
        f"- baseline  {cell}     - [-, -]",
        "4,321 examples of 99 users, 95 % intervals over users",
    ]


def test_counts_and_warnings_are_shown_where_there_are_some() -> None:
    lines = evaluation_lines(metrics(missing=1234, known_propensities=4000, warnings=["w"]))
    assert lines[-3:] == ["missing: 1,234", "usable propensities: 4,000 of 4,321", "warning: w"]


def test_oracles_expectation_is_next_to_what_it_drew() -> None:
    expected = {"expected_best": {"accuracy": ESTIMATE, "ips": ESTIMATE}}
    lines = evaluation_lines(metrics(references={"random": ROW, "oracle": {**ROW, **expected}}))
    cell = "0.5000 [0.2500, 0.7500]"
    assert lines[3:5] == [f"oracle      {cell}     {cell}", f"- expected  {cell}     {cell}"]


def test_log_and_permutations() -> None:
    row = {metric.name: ESTIMATE for metric in LOG_METRICS}
    log = {"impressions": 1000, "logged": ESTIMATE, "policies": {"model": row}, "dm_left_out": None}
    by_place = [{"chosen": ESTIMATE}, {"chosen": UNKNOWN}]
    lines = evaluation_lines(metrics(log=log, permutations={"runs": 2, "agreement": ESTIMATE, "by_place": by_place}))
    assert lines[-3].split() == [
        *("IPS", "doubly", "robust", "of", "1,000", "impressions;", "logged", "0.5000", "[0.2500,", "0.7500]")
    ]
    assert lines[-2] == "model       0.5000 [0.2500, 0.7500]     0.5000 [0.2500, 0.7500]"
    assert lines[-1] == "2 orders of the candidates: agreement 0.5000 [0.2500, 0.7500], chosen at 0.50 0.00"


def test_logged_snips_comes_first_where_there_are_propensities() -> None:
    row = {**ROW, "effective_sample_size": 12.0}
    references = {"random": row, "oracle": row}
    cells = "     ".join(["0.5000 [0.2500, 0.7500]"] * 4)
    assert evaluation_lines(metrics(headline="snips_logged", effective_sample_size=1e4, references=references))[:6] == [
        f"{'':12}{'SNIPS, logged π':28}{'IPS, logged π':28}{'accuracy':28}IPS, uniform π (paper)",
        f"model       {cells}",
        f"random      {cells}",
        f"oracle      {cells}",
        "- baseline  0.5000 [0.2500, 0.7500]     0.5000 [0.2500, 0.7500]     0.5000 [0.2500, 0.7500]     - [-, -]",
        "SNIPS with logged π is the headline, IPS with uniform π the paper's metric; effective sample sizes: "
        "model 10,000, random 12, oracle 12",
    ]


def test_known_and_new_titles_are_apart() -> None:
    row = {"examples": 1000, "users": 90, "titles": 40, "missing": 0, **ROW, "references": {"random": ROW}}
    row |= {"difference": {"random": ROW, "baseline": ROW}}
    cell = "0.5000 [0.2500, 0.7500]"
    assert evaluation_lines(metrics(titles={"known": row, "new": row | {"missing": 7}}))[-8:] == [
        "known titles: 1,000 examples of 90 users and 40 titles, intervals over users",
        f"model       {cell}     {cell}",
        f"random      {cell}     {cell}",
        f"- baseline  {cell}     {cell}",
        "new titles: 1,000 examples of 90 users and 40 titles, 7 without a prediction, intervals over users and titles",
        f"model       {cell}     {cell}",
        f"random      {cell}     {cell}",
        f"- baseline  {cell}     {cell}",
    ]

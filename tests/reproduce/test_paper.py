from artsel_ray.reproduce.paper import FEW, FIGURE1, MANY, ROWS, Run, runs, zero_shot


def test_each_table_has_the_papers_numbers() -> None:
    numbers = {table: [(row.accuracy, row.ips) for row in ROWS if row.table == table] for table in ("1", "2", "3", "4")}
    assert numbers == {
        "1": [(-74.96, -4.59), (-4.22, -0.19), (-2.55, 2.45), (0.91, 2.82), (1.41, 5.21)],
        "2": [(-11.55, -6.81), (-12.76, -8.15), (-7.06, -1.73), (-6.52, -0.19)],
        "3": [(6.71, 5.76), (8.38, 8.06), (10.53, 10.60), (-0.40, 0.67), (1.14, 1.52), (3.05, 3.02), (1.64, -0.96),
              (1.67, 3.02), (5.63, 5.40)],
        "4": [(-4.26, 1.42), (-3.73, 0.0), (-5.38, -0.19), (-3.21, 2.82)],
    }  # fmt: skip


def test_only_table_3_is_relative_to_the_model_before_training() -> None:
    assert {row.table for row in ROWS if row.against == "zero-shot"} == {"3"}
    assert {row.table for row in ROWS if row.against == "production"} == {"1", "2", "4"}


def test_what_tables_share_is_run_once_and_behind_what_it_needs() -> None:
    plan = runs(ROWS, FIGURE1)
    assert len(plan) == len(set(plan)) == 17
    assert {row.run for row in ROWS if row.run} <= set(plan)
    for run in plan:
        assert run.start is None or plan.index(run.start) < plan.index(run)
        assert plan.index(zero_shot(run)) <= plan.index(run)
        assert (run.method == "zero-shot") == (run.examples == 0)
        assert run.examples in (0, FEW, MANY)
    assert [run.method for run in plan[:4]] == ["zero-shot"] * 4
    assert set(runs([row for row in ROWS if row.table == "2"], [])) == set(plan[:4])


def test_a_table_alone_brings_what_it_is_compared_with() -> None:
    alone = runs([row for row in ROWS if row.label == "3B, 10K, number"], [])
    assert alone == [Run("3B", "number"), Run("3B", "number", "sft", FEW)]

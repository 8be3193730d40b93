"""Which artwork is served: the most likely one, or one drawn to explore, with its propensity."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.score.exploration import ServingPolicy, draw, propensities


def serve(predictions: pa.Table, policy: ServingPolicy) -> pa.Table:
    """Returns predictions with `artwork_id`, `probability` and `propensity` as the policy decides.

    Rows that another run has drawn are drawn again, from their candidates' probabilities.
    """
    explores = policy.explore != "none"
    if not explores and predictions["propensity"].null_count == predictions.num_rows:
        return predictions

    # Draw each row's candidate; `drawn` holds indices of all rows' candidates, one after another.
    lists = predictions["candidates"].combine_chunks()
    artwork_ids, probability_c = (pc.struct_field(lists.values, name) for name in ("artwork_id", "probability"))
    bounds, values = lists.offsets.to_numpy(), probability_c.to_numpy()
    drawn = np.empty(predictions.num_rows, dtype=np.int64)
    propensity = np.empty(predictions.num_rows)
    ids = zip(predictions["user_id"].to_pylist(), predictions["title_id"].to_pylist(), strict=True)
    for row, (user_id, title_id) in enumerate(ids):
        probability_m = values[bounds[row] : bounds[row + 1]]
        served_m = propensities(probability_m, policy.explore, policy.epsilon, policy.temperature)
        position = draw(served_m, policy.seed, user_id, title_id)
        drawn[row], propensity[row] = bounds[row] + position, served_m[position]

    columns = {
        "artwork_id": artwork_ids.take(pa.array(drawn)),
        "probability": probability_c.take(pa.array(drawn)),
        "propensity": pa.array(propensity) if explores else pa.nulls(len(drawn), pa.float64()),
    }
    for name, column in columns.items():
        index = predictions.schema.get_field_index(name)
        predictions = predictions.set_column(index, predictions.schema.field(name), column)
    return predictions

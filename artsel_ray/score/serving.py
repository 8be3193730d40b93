"""Which artwork is served: the likeliest one, or one drawn to explore, with its propensity."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.score import exploration as explore
from artsel_ray.score.settings import ScoreConfig


def serve(predictions: pa.Table, config: ScoreConfig) -> pa.Table:
    """Returns predictions with `artwork_id`, `probability` and `propensity` as `config.explore` says.

    Rows that another night has drawn are drawn again, out of their candidates' probabilities.
    """
    if config.explore == "none" and predictions["propensity"].null_count == predictions.num_rows:
        return predictions
    lists = predictions["candidates"].combine_chunks()
    artwork_ids, probability_c = (pc.struct_field(lists.values, name) for name in ("artwork_id", "probability"))
    bounds, values = lists.offsets.to_numpy(), probability_c.to_numpy()
    drawn = np.empty(predictions.num_rows, dtype=np.int64)
    propensity = np.empty(predictions.num_rows)
    ids = zip(predictions["user_id"].to_pylist(), predictions["title_id"].to_pylist(), strict=True)
    for row, (user_id, title_id) in enumerate(ids):
        served_m = explore.propensities(
            values[bounds[row] : bounds[row + 1]], config.explore, config.epsilon, config.temperature
        )
        place = explore.draw(served_m, config.seed, user_id, title_id)
        drawn[row], propensity[row] = bounds[row] + place, served_m[place]
    columns = {
        "artwork_id": artwork_ids.take(pa.array(drawn)),
        "probability": probability_c.take(pa.array(drawn)),
        "propensity": pa.nulls(len(drawn), pa.float64()) if config.explore == "none" else pa.array(propensity),
    }
    for name, column in columns.items():
        place = predictions.schema.get_field_index(name)
        predictions = predictions.set_column(place, predictions.schema.field(name), column)
    return predictions

"""The score job: chooses an artwork (poster or thumbnail) for every user-title pair. Read in this order:

- `settings`: the flags.
- `job`: the entry point: reads the catalog, prepares the model, then scores or estimates the cost.
- `answer_spec`: what answers depend on apart from the data: model, prompt, decoding, limits, label prior.
- `scoring_run`: one run from requests to manifest, on the sharded-job skeleton.
- `assignment`: which shard each pair belongs to.
- `requests`: the shuffle of requests and of an earlier run's predictions there.
- `shard_pairs`: a shard's valid pairs; those that an earlier run has answered are reused.
- `rendering`: their prompts as token ids.
- `scoring`: the engine of a run, and a rendered shard through engine and decoder into predictions.
- `prior`: another model's predictions, added to the language model's, or taken alone.
- `network`: the same two steps where a network scores, and not a language model.
- `predictions`: choices as rows of the table.
- `serving`: which artwork is served, and with what propensity.
- `token_counts`, `cost_estimate`: the tokens of a run, counted beforehand, and the plan made of them.
"""

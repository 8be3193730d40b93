"""The baseline: trains the network on Ray Train, the reference for every LLM. Read in this order:

- `settings`: the job's flags.
- `job`: read, train, keep the model, predict validation and test as the table that `evaluate` reads.
- `folds`: the train examples without some titles, to predict these fairly.
- `fitting`: trials on Ray Train's workers.
- `trials`: learning rates and weight decays, each trained and measured on validation.
"""

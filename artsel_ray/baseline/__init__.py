"""The baseline: trains the network on Ray Train, the reference for every LLM. Read in this order:

- `settings`: the job's flags.
- `job`: read, train, keep the model, predict validation and test as the table that `evaluate` reads.
- `trials`: learning rates and weight decays, each trained and measured on validation.
"""

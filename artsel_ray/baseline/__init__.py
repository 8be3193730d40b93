"""The baseline: a two-tower network without a language model, trained on Ray Train. Read in this order:

- `settings`: the job's flags.
- `job`: read, train, keep the model, predict validation and test.
- `example_arrays`: examples as numpy arrays, with each distinct artwork and item once.
- `terms`: captions and names as TF-IDF vectors of hashed terms (scikit-learn).
- `vocabulary`: what the network knows of the train examples.
- `encoding`: examples as indices into a vocabulary.
- `batch`: the tensors of one optimizer step.
- `towers`: the network.
- `trials`: learning rates and weight decays, each trained and measured on validation.
- `model_files`: a trained network and its vocabulary on storage.
- `predictions`: the table that `evaluate` reads.
"""

"""The baseline: networks over words and over a language model's frozen vectors, on Ray Train. Read in this order:

- `settings`: the job's flags.
- `job`: read, train, keep the model, predict validation and test as the table that `evaluate` reads.
- `example_arrays`: examples as numpy arrays, with each distinct artwork and item once.
- `text_vectors`: frozen vectors of texts, computed by a language model on Ray Data, and kept.
- `vocabulary`: what the network knows of the train examples; captions and names as TF-IDF vectors (scikit-learn).
- `encoding`: examples as indices into a vocabulary, and the tensors of one optimizer step.
- `towers`: the network of words.
- `encoder_network`: the network over frozen vectors, and both networks' sum.
- `network_files`: a network's files on storage.
- `trials`: learning rates and weight decays, each trained and measured on validation.
"""

"""The network: chooses by words, ids and popularity, and by a language model's frozen vectors. Read in this order:

- `example_arrays`: examples as numpy arrays, with each distinct artwork and item once.
- `pair_arrays`: the same of pairs to score, whose candidates stand in a catalog.
- `text_vectors`: frozen vectors of texts, computed by a language model on Ray Data, and kept.
- `vocabulary`: what the network knows of the train examples; captions and names as TF-IDF vectors (scikit-learn).
- `encoding`: examples as indices into a vocabulary, and the tensors of one optimizer step.
- `towers`: the network of words.
- `encoder_network`: the network over frozen vectors, and both networks' sum.
- `network_files`: a network's files on storage.
- `prediction`: a network's distributions over the candidates, and the fingerprints of what it was asked.
"""

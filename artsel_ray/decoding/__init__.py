"""From a language model's log-probabilities to a chosen candidate. Read in this order:

- `base`: the decoder protocol, its questions and its choices.
- `trie`: the trie of a title's candidates, and how `choose` and `rank` walk it.
- `decoders`: the decoders that walk the trie, and the table of all, by the names that --decoding takes.
- `freetext`: the paper's decoder, which matches generated text with the candidates.
- `fusion`: two models' distributions over the same candidates, and how much each counts.
- `label_prior`: a model's preference for option numbers, estimated and divided out.

A new decoder is one module with a class like `freetext.FreeText`, and one line in `decoders.DECODERS`.
"""

"""From a language model's log-probabilities to a chosen candidate."""

"""From examples and requests to token ids. One rendering serves training and scoring."""

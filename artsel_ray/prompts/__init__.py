"""From examples and requests to token ids. Training and scoring render a prompt with the same code.

Read in this order:

- `spec`: what decides how a prompt reads; stored with a trained model.
- `escaping`: the option tokens, the labels of options, and the escaping of text from data.
- `markers`: text from data as ids, without what a model's chat template writes.
- `text`: the text of each prompt segment.
- `chat_template`: the text of a turn by a model's chat template, made in a process with limits.
- `chat_rendering`: that process.
- `tokenizer`: from segments, and titles of the catalog, to token ids and loss masks.
- `histories`: watch histories to token ids, by column.
- `packing`: rows that share prefixes as one sequence, for training.
- `images`: image placeholders, for candidates that are images.
- `rationale_checks`: rationales that give the answer away (for distill), or must not be shown (for score).
"""

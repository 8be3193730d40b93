"""From examples and requests to token ids. Training and scoring render a prompt with the same code.

Read in this order:

- `spec`: what decides how a prompt reads; stored with a trained model.
- `escaping`: the option tokens, the labels of options, and the escaping of text from data.
- `text`: the text of each prompt segment.
- `chat`: one user turn in a model's chat template.
- `tokenizer`: from segments to token ids and loss masks.
- `histories`: watch histories to token ids, by column.
- `titles`: a title of the catalog as prompt segments.
- `images`: image placeholders, for candidates that are images.
- `leaks`: rationales that give the answer away; used by distill.
- `rationale_checks`: rationales that must not be shown next to a choice; used by score.
"""

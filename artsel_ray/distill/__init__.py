"""The distill job: a teacher writes rationales, from which a student learns. Read in this order:

- `settings`: the job's flags.
- `job`: `distill`, the entry: what a run consists of, and its summary.
- `questions`: a shard's examples, tokenized for the teacher.
- `rationales`: the engine stage: generates rationales and drops those that do not hold.
- `prompts`: the two questions to the teacher, and the rationale in what it generates.
"""

"""Post-training on Ray Train with TRL, and sweeps over learning rates. Read in this order:

- `settings`: the flags of both jobs.
- `job`: the training job: resume, run here or on Ray Train's workers, publish.
- `training`: what travels to workers and back.
- `loop`: what one worker does: read, train, validate, export.
- `examples`: examples in memory, and their token ids when a batch needs them.
- `reading`: examples from tables into memory.
- `trainers`: what the methods share: the task, the order of examples, rendering batch by batch.
- `orders`: the order of an epoch, by length or in groups of a title.
- `sft`, `dpo`, `choice`: the methods, each as its trainer and how it renders a batch; `settings.METHODS` names them.
- `choice_objective`: the loss of `choice`, on what `rank` scores with.
- `callbacks`: what happens between steps, and which checkpoints are complete.
- `history`: what the history of a training says at its end.
- `validation`: choices for held-out examples, and their metrics.
- `prior`: choices on top of another model's, and the weights of both.
- `sweep`: the sweep job.
- `best_trial`: its best trial: the copy in best/, and its metrics on test examples.
- `trial_records`: the records of its trials, and which is the best.
"""

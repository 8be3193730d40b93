"""What every job stands on. Read in this order:

- `run`: an output folder belongs to one run and one driver; resume and publish.
- `fingerprint_key`: the key of a run's fingerprints, without which they cannot be guessed.
- `ray_address`: where Ray is, and whether it answers.
- `own_ray`: a Ray that a job starts for itself, closed to other users and machines.
- `ray_cluster`: the Ray cluster that a job runs on, and waiting for its CPUs and GPUs.
- `task_result`: results and input errors of Ray Data's tasks as values, and objects that stay out of its logs.
- `ray_train`: how often a training on Ray Train starts again, and why it ended.
- `shards`: a shard's object: its name, its statistics, how it is written.
- `sharded_job`: the skeleton of every job that sends shards through engines.
- `engine_pool`: the actors that hold an engine.
- `starts`: counts how often actors start.
- `progress`, `metrics`: what a person and Prometheus see of a running job.
"""

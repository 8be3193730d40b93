"""The paper's Tables 1 to 4 and Figure 1 from our own jobs. Read in this order:

- `settings`: the flags.
- `paper`: the rows of the tables, the experiment that stands for each, and the models, data and settings of each scale.
- `job`: runs the experiments one after the other and reports after each.
- `study`: where everything is, and the jobs that produce it.
- `results`: our numbers next to the paper's.

This is the only job folder that imports others.
"""

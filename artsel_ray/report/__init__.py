"""What people read: plots, self-contained HTML pages and the terminal's table, from plain rows.

This layer stands below the jobs: it knows neither their settings nor their files. Read in this order:

- `html`: the page of each job, from the Jinja templates next to it; `style.html` is in all of them.
- `plots`: figures as inline SVG.
- `model_card`: the README of a trained model, with a plot of its loss.
- `terminal`: the table that an evaluation prints.
"""

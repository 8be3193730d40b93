"""The explain and propose jobs: what a scoring run says about user segments. Read in this order:

- `settings`: the flags of both jobs.
- `scored_run`: what users watch, and what a finished scoring run chose for them.
- `user_segments`: in what the users of an artwork differ from the title's others, and users whom no artwork suits.
- `explain`: the job that shows user segments, as a table and a page.
- `briefs`: a model writes briefs of missing artworks: the question, the answer, and the engine stage.
- `propose`: the job that finds gaps and has briefs written, as a table and a page.
"""

"""The explain and propose jobs: what a scoring run says about user segments. Read in this order:

- `settings`: the flags of both jobs.
- `scored_run`: what users watch, and what a finished scoring run chose for them.
- `user_segments`: in what the users of an artwork differ from the title's others.
- `explain`: the job that shows them, as a table and a page.
- `gaps`: users whom none of a title's artworks suits.
- `prompts`: the question for a brief, and the brief in the answer.
- `briefs`: the engine stage that writes briefs.
- `propose`: the job that finds gaps and writes briefs, as a table and a page.
"""

"""Five theory papers on attention, re-run in full: experiments, closed forms, figures, checks."""

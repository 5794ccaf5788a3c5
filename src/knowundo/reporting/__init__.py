"""Reports of a run: tables, plots, sentences and the page."""

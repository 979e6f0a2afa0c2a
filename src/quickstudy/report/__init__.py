"""Report: a page, plots and a model card, made from the files of a run folder only; torch is never imported."""

"""Report: pages, plots and a model card, made from files only; torch is never imported."""

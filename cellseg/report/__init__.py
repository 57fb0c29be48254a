"""Pages that people look at: a study, and an evaluation with its plots and outlined images."""

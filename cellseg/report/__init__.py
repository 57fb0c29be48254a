"""What people look at: a study with its tables, an evaluation with its plots."""

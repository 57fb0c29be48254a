"""Training: data sets, augmentation, the loop. Never imported by a counting run."""

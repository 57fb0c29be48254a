"""How the weights of the tissue prefilter were made."""

"""What :mod:`cellseg.results` is made of; import from there."""

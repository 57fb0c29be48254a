"""Intensities and stains: one scale a slide, dyes told apart and recoloured."""

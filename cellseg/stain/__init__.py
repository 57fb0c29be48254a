"""Intensities and stains: one scale a slide, dyes told apart, pictures told apart by their stain.

Here belongs what follows from an array of pixel values alone, before any cell is known. Reading
pixels belongs to ``slide``, measuring cells to ``table``, and choosing a protocol to ``counting``.
"""

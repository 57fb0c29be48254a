"""Damaged and hostile files of every format that cellseg reads, thrown at its command line.

``python -m tools.fuzz --minutes 30``, or ``make fuzz MINUTES=30``. What is judged, and what was
found: docs/lab/hardening.md.
"""

"""The report of an evaluation: a folder with a page, plots and outlined images."""

from cellseg.report.page import write_report

__all__ = ["write_report"]

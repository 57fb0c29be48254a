"""A study: many images of one folder, their results, and the tables and the page of all of them.

Here belong the search for images, the places of their results, and what is made of many results:
``summary.csv``, ``cells.parquet`` and ``report.html``. What one result holds is asked of
:class:`cellseg.result.Result`; how a slide is counted, and what the totals mean, is not known here.
"""

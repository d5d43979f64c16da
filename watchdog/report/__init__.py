"""The report of a period: one page of HTML with plots and tables, that needs no script and no network.

``store.reports.report`` counts, ``sections`` chooses what is shown, ``charts`` draws, ``page`` fills the template.
"""

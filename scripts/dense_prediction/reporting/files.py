"""What a report is made of in the output folder of a run."""

REPORT = "report.html"
CURVE = "curve.png"
CONFUSION = "confusion.png"
"""Of the best model."""

REPORT_FILES = (REPORT, CURVE, CONFUSION)

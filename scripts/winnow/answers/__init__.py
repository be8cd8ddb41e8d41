"""From cells to an answer: how small the network can be, what that costs, and how sure that is.

In come the metrics and predictions of an experiment's cells, with their scores, masks and statistics. Out go the
summary table, the verdict, figures and the report.
"""

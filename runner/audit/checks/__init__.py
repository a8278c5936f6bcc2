"""The checks: variations of a batch, comparison, tolerance, location and cause of differences, verdicts.

Subjects, the audit itself and its reports may import it. It imports `runner.audit.tracing` and all below.
"""

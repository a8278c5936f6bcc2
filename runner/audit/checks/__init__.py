"""The checks: what is varied, what is compared, how closely, where and why it differs, and the verdict.

Subjects, the audit itself and its reports may import it. It imports `runner.audit.tracing` and all below.
"""

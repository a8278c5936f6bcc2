"""The audit: a test that a model's result for an example does not depend on the other examples of its batch.

This package holds the audits of a module, a config and a search space, and the report. Its subpackages hold the parts
of an audit. Commands, the gallery and users' own tests may import it. It imports its checks, subjects and tracing.
"""

from runner.audit.api import audit_module
from runner.audit.checks.verdict import AuditReport
from runner.audit.subjects.module import Padding

__all__ = ["AuditReport", "Padding", "audit_module"]

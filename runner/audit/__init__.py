"""The audit: does what a model says about an example depend on what stands beside it?

Its function for any module, the audit of a config and that of a search space lie here, the rest in the packages within.
Commands, the gallery and users' own tests may import it. It imports its checks, subjects and tracing.
"""

from runner.audit.api import audit_module
from runner.audit.checks.verdict import Report
from runner.audit.subjects.padding import Padding

__all__ = ["Padding", "Report", "audit_module"]

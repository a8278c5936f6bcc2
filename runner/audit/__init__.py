"""The audit: does what a model says about an example depend on what stands beside it?"""

from runner.audit.api import audit_module
from runner.audit.checks.verdict import Report
from runner.audit.subjects.padding import Padding

__all__ = ["Padding", "Report", "audit_module"]

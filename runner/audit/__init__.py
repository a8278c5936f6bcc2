"""The audit: does what a model says about an example depend on what stands beside it?"""

from runner.audit.api import audit_module
from runner.audit.padding import Padding
from runner.audit.verdict import Report

__all__ = ["Padding", "Report", "audit_module"]

"""Sweeps: jobs as fresh processes on a pool of devices, with a record that outlives the launcher."""

from r2r.launching.configs import Plan
from r2r.launching.jobs import Job, Journal, read_jobs
from r2r.launching.pool import device_count, device_ids, uses_cpu
from r2r.launching.sweeps import complete, launch, resume

__all__ = [
    "Job",
    "Journal",
    "Plan",
    "complete",
    "device_count",
    "device_ids",
    "launch",
    "read_jobs",
    "resume",
    "uses_cpu",
]

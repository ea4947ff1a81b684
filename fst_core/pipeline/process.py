"""Which process this is, where several train together: the first leads, the others follow."""

from __future__ import annotations

import os

__all__ = ["leads", "started_together"]

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK")
"""What torchrun and Lightning set: a process is the first if none of them is above 0."""


def leads() -> bool:
    """Return whether this is the first process, or the only one: stages, locks and files are its own."""
    ranks = [os.environ.get(name, "0") for name in _RANKS]
    if _in_slurm():
        ranks.append(os.environ.get("SLURM_PROCID", "0"))
    return all(rank in {"", "0"} for rank in ranks)


def started_together() -> bool:
    """Return whether somebody else, such as torchrun, has started all processes at the same time."""
    return "TORCHELASTIC_RUN_ID" in os.environ or _in_slurm()


def _in_slurm() -> bool:
    """Return whether `srun` has started several; in an interactive shell of SLURM it has not."""
    several = os.environ.get("SLURM_NTASKS", "1") not in {"", "1"}
    return several and os.environ.get("SLURM_JOB_NAME") not in {"bash", "interactive"}

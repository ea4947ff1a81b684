"""Setting Lightning's loops to where a run stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from fst_lightning.checkpoints import State

__all__ = ["resume_loops"]


def resume_loops(trainer: pl.Trainer, state: State, batches: int) -> None:
    """Set a new trainer to the end of a step, as a checkpoint of Lightning's own would.

    What Lightning keeps of its loops are counters; they all follow from the state. An epoch that
    has begun but has not been processed is continued after its last completed batch; a validation
    that is due there is skipped if it is done, and else run first.

    Args:
        trainer: one that has trained nothing yet.
        state: where training stopped.
        batches: the number of batches in an epoch.
    """
    done, step = state.batch, state.step
    accumulate = trainer.accumulate_grad_batches
    steps = -(-done // accumulate)  # of the epoch
    trainer.fit_loop.load_state_dict(
        {
            "state_dict": {"combined_loader": [{"epoch": state.epoch, "batch": done}]},
            "epoch_progress": _progress(
                {"ready": 1, "started": 1, "processed": 0, "completed": 0},
                offset=state.epoch,
            ),
            "epoch_loop.state_dict": {"_batches_that_stepped": step},
            "epoch_loop.batch_progress": {
                "total": _tracker(state.epoch * batches + done),
                "current": _tracker(done),
                "is_last_batch": done == batches,
            },
            "epoch_loop.scheduler_progress": {
                "total": {"ready": step, "completed": step},
                "current": {"ready": steps, "completed": steps},
            },
            "epoch_loop.automatic_optimization.optim_progress": {
                "optimizer": {
                    "step": {
                        "total": {"ready": step, "completed": step},
                        "current": {"ready": steps, "completed": steps},
                    },
                    "zero_grad": {
                        "total": {"ready": step, "started": step, "completed": step},
                        "current": {"ready": steps, "started": steps, "completed": steps},
                    },
                }
            },
            # One batch begun and none processed is how Lightning marks a validation to be run.
            "epoch_loop.val_loop.batch_progress": _progress(
                _tracker(0)
                if state.validated
                else {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            )
            | {"is_last_batch": False},
        }
    )


def _tracker(count: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), count)


def _progress(tracker: dict[str, int], offset: int = 0) -> dict[str, Any]:
    moved = {name: count + offset for name, count in tracker.items()}
    return {"total": moved, "current": dict(moved)}

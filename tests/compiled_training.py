"""Trains as told and prints, as JSON, how many graphs torch.compile made and the last loss.

A process of its own, because the type checks of the test suite are not traceable.
"""

import json
import sys

from torch._dynamo.utils import counters

from r2r.cli import compose
from r2r.train import train

if __name__ == "__main__":
    task = train(compose("train", sys.argv[1:]))
    loss = float(task.trainer.callback_metrics["train/loss"])
    print(json.dumps({"graphs": counters["stats"]["unique_graphs"], "loss": loss}))

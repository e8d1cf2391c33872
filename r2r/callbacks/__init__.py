"""What happens around training: exports, averaged weights, picture grids, metrics on disk, and the run's record."""

from r2r.callbacks.csv_metrics import CsvMetrics
from r2r.callbacks.ema import EMA
from r2r.callbacks.export import Export
from r2r.callbacks.final_checkpoint import FinalCheckpoint
from r2r.callbacks.image_grid import ImageGrid
from r2r.callbacks.progress import StepProgress
from r2r.callbacks.realism import ValidationRealism
from r2r.callbacks.run_record import RunRecord

__all__ = [
    "EMA",
    "CsvMetrics",
    "Export",
    "FinalCheckpoint",
    "ImageGrid",
    "RunRecord",
    "StepProgress",
    "ValidationRealism",
]

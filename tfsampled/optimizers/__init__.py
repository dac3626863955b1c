"""Optimizers whose cost per step depends on the rows updated, not on the table."""

from tfsampled.optimizers._adagrad import Adagrad
from tfsampled.optimizers._lazy_adam import LazyAdam
from tfsampled.optimizers._loss_scale import LossScaleOptimizer
from tfsampled.optimizers._row_wise_adagrad import RowWiseAdagrad

__all__ = ["Adagrad", "LazyAdam", "LossScaleOptimizer", "RowWiseAdagrad"]

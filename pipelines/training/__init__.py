"""Training: a table of features and labels becomes a calibrated, documented ONNX model."""

from pipelines.training.split import SplitRequest
from pipelines.training.trainer import TrainedModel, TrainingRequest, train

__all__ = ["SplitRequest", "TrainedModel", "TrainingRequest", "train"]

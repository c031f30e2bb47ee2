"""Repositories on the Hub: what goes into them, and how it gets there."""

from .model_repository import OUTDATED, ModelFiles, stage_model
from .upload import Target, describe, upload


__all__ = ["OUTDATED", "ModelFiles", "Target", "describe", "stage_model", "upload"]

"""The training workstation: from a model to a bundle that trains and infers on stock runtimes.

    from model_export import FactoryData, Recipe, build, from_torch

`docs/export.md` walks through it.
"""

import os

# Before anything here imports onnxruntime: its wheels report usage otherwise (see fd_runtime.models.onnx_model).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from model_export.building import build, plan_of
from model_export.forward import ForwardModel
from model_export.importing import from_onnx, from_torch
from model_export.planning.selection import Budget
from model_export.pretrain import PretrainTerms
from model_export.public_set import build_public_set
from model_export.quantisation import QuantisationTerms
from model_export.recipe import FactoryData, Recipe
from model_export.samples import Samples, read_samples

__all__ = [
    "Budget",
    "FactoryData",
    "ForwardModel",
    "PretrainTerms",
    "QuantisationTerms",
    "Recipe",
    "Samples",
    "build",
    "build_public_set",
    "from_onnx",
    "from_torch",
    "plan_of",
    "read_samples",
]

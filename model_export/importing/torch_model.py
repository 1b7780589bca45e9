"""A torch module to a forward model. The only home of torch, which is imported when it is needed."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from model_export.forward import ForwardModel
from model_export.graph import OPSET, one_line
from model_export.importing.checking import answered, check_close, run_model
from model_export.importing.onnx_file import with_ending
from model_export.importing.refusal import UnreadableModelError
from model_export.importing.source import read

SampleType: TypeAlias = Literal["float32", "int32"]

_TOLERANCE = 1e-4
"""Of the largest logit. Two frameworks sum in another order; what the exporter gets wrong is far larger."""


def from_torch(module: Any, sample_shape: tuple[int, ...], *, dtype: SampleType = "float32") -> ForwardModel:
    """Return a classifier from a torch module; its parameters keep their names.

    Args:
        module: a `torch.nn.Module` that maps samples [N, *sample_shape] to logits or probabilities [N, classes]; it is
            read in inference mode and left as it was.
        sample_shape: of one sample.
        dtype: of samples; int32 for token ids, which the module gets as int64.

    Raises:
        UnreadableModelError: torch is missing, cannot export the module, or the export computes something else.
        GraphError: the export contradicts itself.
    """
    torch = _torch()
    with _in_inference(module):
        _check_answer(torch, module, sample_shape, dtype)
        source = read(_exported(torch, module, sample_shape, dtype), None)
        forward, ending = with_ending(source)
        samples, expected = answered(forward.model, 4, lambda drawn: _answers(torch, module, drawn))
    check_close(expected, ending.apply(run_model(forward.model, samples)), _TOLERANCE)
    return forward


def _torch() -> Any:
    try:
        import_module("onnxscript")  # torch.onnx needs it and says so too late
        return import_module("torch")
    except ImportError as error:
        raise UnreadableModelError(f"{error.name} is not installed: pip install 'fedistill[torch]'") from error


@contextlib.contextmanager
def _in_inference(module: Any) -> Iterator[None]:
    """Put every part of a module into inference mode, and back into its own afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _check_answer(torch: Any, module: Any, sample_shape: tuple[int, ...], dtype: SampleType) -> None:
    """Run the module once: what it cannot do, its own words say better than an exporter's."""
    try:
        with torch.no_grad():
            answer = module(_tensor(torch, module, np.zeros((2, *sample_shape), dtype)))
    except Exception as error:  # a module may raise anything
        said = f"{type(error).__name__}: {one_line(error)}"
        raise UnreadableModelError(f"the module does not read samples {list(sample_shape)}: {said}") from error
    if not isinstance(answer, torch.Tensor):
        kind = type(answer).__name__
        raise UnreadableModelError(f"the module returns a {kind}: wrap it in one that returns the tensor of logits")


def _exported(torch: Any, module: Any, sample_shape: tuple[int, ...], dtype: SampleType) -> onnx.ModelProto:
    """Export with an open batch and BatchNormalization unfolded (`optimize=False`: else it goes into convolutions)."""
    example = _tensor(torch, module, np.zeros((2, *sample_shape), dtype))
    batch = torch.export.Dim("N", min=1, max=4096)
    with _in_silence():
        try:
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                optimize=False,
                opset_version=OPSET,
                dynamic_shapes=({0: batch},),
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError) as error:
            raise UnreadableModelError(f"torch does not export the module: {one_line(error)}") from error
    model: onnx.ModelProto = program.model_proto
    return model


def _answers(torch: Any, module: Any, samples: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        answers: npt.NDArray[np.float32] = module(_tensor(torch, module, samples)).float().cpu().numpy()
    return answers


def _tensor(torch: Any, module: Any, samples: npt.NDArray[Any]) -> Any:
    """Samples as the module wants them: in its precision and on its device, token ids as int64."""
    weight = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(1))
    dtype = weight.dtype if samples.dtype == np.float32 else torch.int64
    return torch.from_numpy(samples).to(device=weight.device, dtype=dtype)


@contextlib.contextmanager
def _in_silence() -> Iterator[None]:
    """Drop what the exporter says about itself; what it cannot do, it raises."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)

"""A trained network as an ONNX file, and the proof that the file does what the network does.

The graph has one node for each step of the network, normalisation first, in operators that every
ONNX runtime knows. https://onnx.ai/onnx/operators/ has their definitions.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from search.exceptions import ExportError
from search.training.weights import Classifier
from search_models.convnet import ConvNet
from search_models.layers import (
    Conv,
    DepthwiseConv,
    Dropout,
    GlobalAveragePool,
    Layer,
    Output,
    Pool,
)

INPUT_NAME, OUTPUT_NAME = "pixels", "logits"
# The oldest versions that have all that is needed, so that old runtimes read the file: HardSwish
# came with operator set 14, and format 8 goes with set 17 (ONNX 1.12, of 2022).
_OPERATOR_SET, _FORMAT = 17, 8
# Float32 keeps seven digits, and a network adds up hundreds of products: sums in another order
# differ by 1e-5 of the largest logit at most, where a wrong graph differs by the logit itself.
_TOLERANCE = 1e-4
_ACTIVATIONS = {"relu": "Relu", "hardswish": "HardSwish"}


class _Graph:
    """A chain of nodes under construction: each takes what the one before it gives."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._last = INPUT_NAME

    def add(self, operator: str, constants: Mapping[str, Tensor], **attributes: Any) -> None:
        """A node behind the last; its other inputs are `constants`, in their order."""
        name = f"{len(self.nodes) + 1}-{operator}"
        inputs = [self._last]
        for key, tensor in constants.items():
            inputs.append(f"{name}.{key}")
            self.constants.append(numpy_helper.from_array(tensor.detach().numpy(), inputs[-1]))
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        self._last = name

    def finish(self) -> None:
        """Names the last node's output as that of the graph."""
        self.nodes[-1].output[0] = OUTPUT_NAME


def to_onnx(network: Classifier, *, metadata: Mapping[str, str]) -> bytes:
    """The contents of an ONNX file that classifies as `network` does.

    Its input `pixels` is float32 (N, C, H, W), pixels from 0 to 255 with 0 as the background, for
    any N; its output `logits` is float32 (N, n_classes). Dropout, which does nothing after
    training, is left out.

    Args:
        network: on the CPU.
        metadata: what else the file is to say of itself, by name.
    """
    if not isinstance(network.network, ConvNet):
        return _traced(network, metadata)
    spec = network.network.spec
    graph = _Graph()
    graph.add("Sub", {"mean": 255 * network.mean})
    graph.add("Div", {"std": 255 * network.std})
    for layer, module in zip(spec.layers, network.network.layers, strict=True):
        _add_layer(graph, layer, module)
    graph.add("Flatten", {}, axis=1)
    graph.finish()
    pixels = helper.make_tensor_value_info(
        INPUT_NAME,
        TensorProto.FLOAT,
        ["N", *spec.input_shape],
        "Grey values from 0 to 255, where 0 is the background.",
    )
    logits = helper.make_tensor_value_info(
        OUTPUT_NAME,
        TensorProto.FLOAT,
        ["N", spec.n_classes],
        "The largest is that of the likeliest class; their softmax gives probabilities.",
    )
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, "classifier", [pixels], [logits], graph.constants, doc_string=str(spec)
        ),
        producer_name="budget-search",
        opset_imports=[helper.make_opsetid("", _OPERATOR_SET)],
        ir_version=_FORMAT,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


class _FromPixels(nn.Module):
    """A classifier of pixels as they are, from 0 to 255."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.classifier(pixels / 255)
        return logits


def _traced(network: Classifier, metadata: Mapping[str, str]) -> bytes:
    """The same of a network that a user's file builds, as PyTorch's exporter sees it run.

    By its older exporter, which needs onnx alone.

    Raises:
        ExportError: if the network does what an ONNX file cannot.
    """
    pixels = torch.zeros(1, *network.input_shape)
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "network.onnx"
            warnings.simplefilter("ignore")  # the exporter is to be replaced, and tells of checks
            torch.onnx.export(
                _FromPixels(network).eval(),
                (pixels,),
                file,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_axes={INPUT_NAME: {0: "N"}, OUTPUT_NAME: {0: "N"}},
                opset_version=_OPERATOR_SET,
                dynamo=False,
            )
            model = onnx.load(file)
    except Exception as error:  # whatever a user's network does that the exporter does not know
        raise ExportError(
            "A network must do what ONNX has operators for, but PyTorch's exporter says of this "
            f"one: {type(error).__name__}: {error}"
        ) from error
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _add_layer(graph: _Graph, layer: Layer, module: nn.Module) -> None:
    match layer:
        case Conv() | DepthwiseConv():
            convolution, norm, _ = module.children()
            _add_convolution(graph, convolution, padding=layer.padding)
            statistics = ("weight", "bias", "running_mean", "running_var")
            tensors = norm.state_dict()
            graph.add(
                "BatchNormalization", {name: tensors[name] for name in statistics}, epsilon=norm.eps
            )
            graph.add(_ACTIVATIONS[layer.activation], {})
        case Pool():
            graph.add("MaxPool", {}, kernel_shape=[2, 2], strides=[2, 2])
        case GlobalAveragePool():
            graph.add("GlobalAveragePool", {})
        case Output():
            _add_convolution(graph, module, padding=0)
        case Dropout():
            pass


def _add_convolution(graph: _Graph, convolution: nn.Module, *, padding: int) -> None:
    assert isinstance(convolution, nn.Conv2d)
    graph.add(
        "Conv",
        dict(convolution.named_parameters()),  # weight, then bias where there is one
        kernel_shape=list(convolution.kernel_size),
        pads=4 * [padding],
        group=convolution.groups,
    )


def check_parity(model: bytes, network: Classifier, images: Tensor) -> float:
    """The largest difference between a logit of the file, in ONNX Runtime, and of the network.

    Args:
        model: what `to_onnx` gives.
        images: bytes (N, C, H, W).

    Raises:
        ExportError: if the difference is more than rounding.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    ours: NDArray[np.float32]
    (ours,) = session.run([OUTPUT_NAME], {INPUT_NAME: images.float().numpy()})
    with torch.inference_mode():
        theirs = network(images).numpy()
    difference = float(np.abs(ours - theirs).max())
    limit = _TOLERANCE * max(1.0, float(np.abs(theirs).max()))
    if not difference <= limit:  # also where it is not a number
        raise ExportError(
            f"The logits of the exported network must differ by at most {limit:.1e} from those in "
            f"PyTorch, but one differs by {difference:.1e}. Nothing was written; update onnx and "
            "onnxruntime."
        )
    return difference

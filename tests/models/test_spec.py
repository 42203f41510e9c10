"""Networks as values: their notation, what is refused, and the closed forms against PyTorch."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_models.convnet import ConvNet
from search_models.layers import (
    Activation,
    Conv,
    DepthwiseConv,
    Dropout,
    GlobalAveragePool,
    Layer,
    Output,
    Pool,
    SpecError,
)
from search_models.size import layer_table, parameter_count, receptive_field
from search_models.spec import ModelSpec, Topology

_SHAPES = [(1, 28, 28), (3, 20, 14), (2, 9, 31)]


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    """Any network that can exist, on images of several shapes."""
    activations = st.sampled_from(get_args(Activation))
    shape = draw(st.sampled_from(_SHAPES))
    n_classes = draw(st.integers(1, 12))
    _, height, width = shape
    layers: list[Layer] = []
    for kind in draw(
        st.lists(
            st.sampled_from(["c1", "c3", "c3p1", "d3", "d3p1", "pool", "drop"]),
            min_size=1,
            max_size=8,
        )
    ):
        if kind == "pool" and min(height, width) >= 2:
            layers.append(Pool())
            height, width = height // 2, width // 2
        elif kind == "drop":
            layers.append(Dropout(draw(st.floats(0, 1, exclude_max=True))))
        elif kind == "c3" and min(height, width) >= 3:
            channels, bias = draw(st.integers(1, 12)), draw(st.booleans())
            layers.append(Conv(channels, 3, 0, bias, draw(activations)))
            height, width = height - 2, width - 2
        elif kind == "d3" and min(height, width) >= 3:
            layers.append(DepthwiseConv(0, draw(activations)))
            height, width = height - 2, width - 2
        elif kind == "d3p1":
            layers.append(DepthwiseConv(1, draw(activations)))
        elif kind == "c3p1":
            channels, bias = draw(st.integers(1, 12)), draw(st.booleans())
            layers.append(Conv(channels, 3, 1, bias, draw(activations)))
        else:
            channels, bias = draw(st.integers(1, 12)), draw(st.booleans())
            layers.append(Conv(channels, 1, 0, bias, draw(activations)))
    tail = draw(st.sampled_from(["out gap", "gap out", "gap"]))
    if tail == "gap" or not any(isinstance(layer, Conv) for layer in layers):
        layers.append(Conv(n_classes, 1))
    out = Output(draw(st.booleans()))
    drops = [Dropout(0.5)] * draw(st.integers(0, 1))
    match tail:
        case "out gap":
            layers += [out, *drops, GlobalAveragePool()]
        case "gap out":
            layers += [GlobalAveragePool(), *drops, out]
        case _:
            layers += [*drops, GlobalAveragePool()]
    return ModelSpec(tuple(layers), shape, n_classes)


@given(specs())
@settings(max_examples=200, deadline=None)
def test_notation_reads_back_as_the_same_network(spec: ModelSpec) -> None:
    again = ModelSpec.parse(str(spec), input_shape=spec.input_shape, n_classes=spec.n_classes)

    assert again == spec


@given(specs())
@settings(max_examples=300, deadline=None)
def test_parameter_count_is_that_of_the_network(spec: ModelSpec) -> None:
    assert parameter_count(spec) == sum(p.numel() for p in ConvNet(spec).parameters())


@given(specs())
@settings(max_examples=100, deadline=None)
def test_rows_of_the_layer_table_count_the_parameters_of_their_layers(spec: ModelSpec) -> None:
    rows = layer_table(spec)

    built = [sum(p.numel() for p in module.parameters()) for module in ConvNet(spec).layers]
    assert [row.parameters for row in rows] == built
    assert sum(row.parameters for row in rows) == parameter_count(spec)


@given(specs())
@settings(max_examples=60, deadline=None)
def test_output_shapes_are_those_of_a_forward_pass(spec: ModelSpec) -> None:
    activations = torch.zeros(2, *spec.input_shape)
    measured = []
    with torch.no_grad():
        for module in ConvNet(spec).eval().layers:
            activations = module(activations)
            measured.append(tuple(activations.shape[1:]))

    assert tuple(measured) == spec.output_shapes()
    assert measured == [row.output_shape for row in layer_table(spec)]


@given(specs())
@settings(max_examples=30, deadline=None)
def test_forward_pass_gives_one_logit_for_each_class(spec: ModelSpec) -> None:
    with torch.no_grad():
        logits = ConvNet(spec).eval()(torch.zeros(3, *spec.input_shape))

    assert logits.shape == (3, spec.n_classes)


def _influencing_square(spec: ModelSpec) -> tuple[int, int]:
    """Height and width of the input pixels that reach the centre of the last feature map.

    Max pooling passes a gradient to one pixel only, so it is summed over many random images.
    """
    tail = [type(layer) for layer in spec.layers].index(GlobalAveragePool)
    network = ConvNet(spec).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    images = torch.rand(96, *spec.input_shape, requires_grad=True)
    features: torch.Tensor = images
    for layer in network.layers[:tail]:
        features = layer(features)
    _, _, height, width = features.shape
    torch.autograd.backward([features[:, :, height // 2, width // 2].sum()])
    assert images.grad is not None
    is_reached = images.grad.abs().sum(dim=(0, 1)) > 0
    rows, columns = is_reached.any(dim=1).nonzero(), is_reached.any(dim=0).nonzero()
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


@pytest.mark.parametrize(
    ("notation", "expected"),
    [
        ("c3p1 8, gap, out", 3),
        ("c3p1 8, c3p1 8, gap, out", 5),
        ("c3p1 8, c1 8, c3p1 8, gap, out", 5),
        ("c3p1 8, pool, c3p1 8, gap, out", 8),
        ("c3p1 8, pool, c3p1 8, pool, gap, out", 10),
        ("c3p1 8, pool, c3p1 8, pool, c3p1 8, gap, out", 18),
        ("c3 8, drop 0.5, pool, c3 8, c3 8, out, gap", 12),
        ("c3p1 8, pool, d3p1, c1 8, d3p1, gap, out", 12),
    ],
)
def test_receptive_field_is_what_gradients_reach(notation: str, expected: int) -> None:
    torch.manual_seed(0)
    spec = ModelSpec.parse(notation, input_shape=(1, 48, 48))

    assert receptive_field(spec) == expected
    assert _influencing_square(spec) == (expected, expected)


def test_layer_table_of_a_known_network() -> None:
    spec = ModelSpec.parse("c3 8, drop 0.1, pool, c3p1+bias 10, c1 12, gap, out+bias")

    rows = [
        (r.layer, r.output_shape, r.parameters, r.kernel, r.stride, r.jump, r.receptive_field)
        for r in layer_table(spec)
    ]

    assert rows == [
        ("c3 8", (8, 26, 26), 72 + 16, 3, 1, 1, 3),
        ("drop 0.1", (8, 26, 26), 0, 0, 0, 1, 3),
        ("pool", (8, 13, 13), 0, 2, 2, 2, 4),
        ("c3p1+bias 10", (10, 13, 13), 720 + 10 + 20, 3, 1, 2, 8),
        ("c1 12", (12, 13, 13), 120 + 24, 1, 1, 2, 8),
        ("gap", (12, 1, 1), 0, 0, 0, 2, 8),
        ("out+bias", (10, 1, 1), 130, 1, 1, 2, 8),
    ]


def test_pool_leaves_an_odd_last_row_and_column_out() -> None:
    spec = ModelSpec.parse("c3 4, pool, gap, out", input_shape=(1, 9, 11))

    assert spec.output_shapes()[1] == (4, 3, 4)


def test_spaces_and_line_breaks_between_items_mean_nothing() -> None:
    assert ModelSpec.parse(" c3   8,\n pool ,gap,\tout ") == ModelSpec.parse("c3 8, pool, gap, out")


def test_a_linear_head_behind_gap_equals_one_before_it() -> None:
    before, behind = (
        ModelSpec.parse(f"c3 8, {tail}") for tail in ("out+bias, gap", "gap, out+bias")
    )
    network, other = ConvNet(before).eval(), ConvNet(behind).eval()
    state = network.state_dict()
    other.load_state_dict(
        {name: state[name.replace("layers.2.", "layers.1.")] for name in other.state_dict()}
    )
    images = torch.rand(4, 1, 28, 28)

    with torch.no_grad():
        torch.testing.assert_close(network(images), other(images))


@pytest.mark.parametrize(
    ("notation", "message"),
    [
        ("", "got ''"),
        ("c5 8, gap, out", "'c5 8'"),
        ("C3 8, gap, out", "'C3 8'"),
        ("c3p2 8, gap, out", "'c3p2 8'"),
        ("c3+hs+bias 8, gap, out", r"'c3\+hs\+bias 8'"),
        ("c3+relu 8, gap, out", r"'c3\+relu 8'"),
        ("c3 8, d3 8, gap, out", "'d3 8'"),
        ("c3 8, d1, gap, out", "'d1'"),
        ("c3 8, d3+bias, gap, out", r"'d3\+bias'"),
        ("d3, gap, out", "at least one convolution that is not depthwise"),
        ("c3 8, gap, d3, out", "Nothing but dropout may follow"),
        ("c3 8, d3, gap", "the last convolution must have 10 channels"),
        ("c3 -8, gap, out", "'c3 -8'"),
        ("c3 8.0, gap, out", "'c3 8.0'"),
        ("c3 8,, gap, out", "got ''"),
        ("c3 8, gap, out,", "got ''"),
        ("c3 8 pool, gap, out", "'c3 8 pool'"),
        ("c3 8, pool 2, gap, out", "'pool 2'"),
        ("c1p1 8, gap, out", "1×1 convolution takes no padding.*write c1"),
        ("c3, gap, out", "needs its number of channels.*'c3'"),
        ("c3 0, gap, out", "at least one channel"),
        ("c3 8, drop, gap, out", "Dropout needs its rate"),
        ("c3 8, drop ., gap, out", "must be a number, but got 'drop .'"),
        ("c3 8, drop 1-2, gap, out", "must be a number, but got 'drop 1-2'"),
        ("c3 8, drop 1, gap, out", r"in \[0, 1\), but got 1.0"),
        ("c3 8, drop -0.1, gap, out", r"in \[0, 1\), but got -0.1"),
        ("c3 8, out", "exactly one gap"),
        ("c3 8, gap, gap, out", "exactly one gap"),
        ("c3 8, out, gap, out", "at most one out"),
        ("gap, out", "at least one convolution"),
        ("pool, gap, out", "at least one convolution"),
        ("c3 8, gap, c1 10", "Nothing but dropout may follow"),
        ("c3 8, out, pool, gap", "Nothing but dropout may follow"),
        ("c3 8, out, c1 10, gap", "Nothing but dropout may follow"),
        ("c3 8, gap", "Without out, the last convolution must have 10 channels"),
        ("c3 8, pool, pool, pool, c3 8, c3 8, gap, out", "28×28 has no pixel left behind 'c3 8'"),
        ("c1 8, pool, pool, pool, pool, pool, gap, out", "no pixel left behind 'pool'"),
    ],
)
def test_notation_that_describes_no_network_is_refused(notation: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ModelSpec.parse(notation)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Conv(0), "at least one channel"),
        (Conv(4, kernel=5), "1×1 without padding or 3×3"),
        (Conv(4, kernel=1, padding=1), "1×1 without padding or 3×3"),
        (Conv(4, kernel=3, padding=2), "with padding 0 or 1"),
        (Conv(4, activation="swish"), "must be one of relu, hardswish, but got 'swish'"),  # type: ignore[arg-type]
        (DepthwiseConv(2), "padding of 0 or 1"),
        (Dropout(1.0), "dropout rate"),
        (Dropout(float("nan")), "dropout rate"),
    ],
)
def test_layers_that_cannot_exist_are_refused(layer: Layer, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ModelSpec((Conv(4), layer, GlobalAveragePool(), Output()))


@pytest.mark.parametrize(
    ("input_shape", "n_classes"), [((0, 28, 28), 10), ((1, 28, -1), 10), ((1, 28, 28), 0)]
)
def test_images_and_classes_must_be_positive(
    input_shape: tuple[int, int, int], n_classes: int
) -> None:
    with pytest.raises(SpecError, match="must be positive whole numbers"):
        ModelSpec.parse("c3p1 8, gap, out", input_shape=input_shape, n_classes=n_classes)


def test_topology_fills_open_widths_in_order_and_keeps_what_is_given() -> None:
    topology = Topology("c3, c3p1 7, drop, pool, drop 0.3, c1+bias, gap, drop, out")

    spec = topology.spec([4, 5], 0.2)

    assert str(spec) == ("c3 4, c3p1 7, drop 0.2, pool, drop 0.3, c1+bias 5, gap, drop 0.2, out")


def test_topology_ignores_widths_that_it_has_no_convolution_for() -> None:
    topology = Topology("c3, gap, out")

    assert topology.spec([4, 5, 6], 0.0) == topology.spec([4], 0.0)


@pytest.mark.parametrize(
    ("item", "layer"),
    [
        ("c3 8", Conv(8)),
        ("c3+hs 8", Conv(8, activation="hardswish")),
        ("c3p1+hs 8", Conv(8, padding=1, activation="hardswish")),
        ("c1+bias+hs 8", Conv(8, kernel=1, bias=True, activation="hardswish")),
        ("d3", DepthwiseConv()),
        ("d3p1+hs", DepthwiseConv(1, "hardswish")),
    ],
)
def test_a_convolution_names_its_activation(item: str, layer: Layer) -> None:
    assert ModelSpec.parse(f"c1 8, {item}, gap, out").layers[1] == layer
    assert str(layer) == item


def test_hard_swish_is_that_of_its_paper() -> None:
    block = ConvNet(ModelSpec.parse("c3+hs 8, gap, out")).layers[0]
    values = torch.linspace(-5, 5, 101)

    expected = values * (values / 6 + 0.5).clamp(0, 1)
    torch.testing.assert_close(block[2](values.clone()), expected)  # type: ignore[index]


def test_topology_gives_its_activation_to_convolutions_that_name_none() -> None:
    topology = Topology("c3, d3p1, c3+hs, pool, c3+bias 7, gap, out")

    assert str(topology.spec([4, 5], 0.0)) == "c3 4, d3p1, c3+hs 5, pool, c3+bias 7, gap, out"
    assert str(topology.spec([4, 5], 0.0, activation="hardswish")) == (
        "c3+hs 4, d3p1+hs, c3+hs 5, pool, c3+bias+hs 7, gap, out"
    )
    assert topology.has_open_activation
    assert Topology("c3+hs, d3, gap, out").has_open_activation
    assert not Topology("c3+hs, d3+hs, gap, out").has_open_activation


def test_topology_counts_its_open_widths_and_knows_its_open_dropout() -> None:
    open_topology = Topology("c3, c3 8, drop, c1, gap, out")
    closed = Topology("c3 8, drop 0.1, gap, out")

    assert (open_topology.n_widths, open_topology.has_open_dropout) == (2, True)
    assert (closed.n_widths, closed.has_open_dropout) == (0, False)


@pytest.mark.parametrize("notation", ["c3\t8, gap, out", "c3\n8, gap, out", "c3  8, gap, out"])
def test_topology_sees_a_given_width_behind_any_white_space(notation: str) -> None:
    assert Topology(notation).n_widths == 0


def test_topology_hands_on_images_and_classes() -> None:
    spec = Topology("c3, gap, out").spec([4], 0.0, input_shape=(3, 8, 9), n_classes=2)

    assert (spec.input_shape, spec.n_classes) == ((3, 8, 9), 2)


def test_too_few_widths_are_refused() -> None:
    with pytest.raises(SpecError, match="needs 2 widths, but got 1"):
        Topology("c3, c3, gap, out").spec([4], 0.0)


def test_a_topology_with_an_unknown_item_is_refused_before_it_is_filled() -> None:
    with pytest.raises(SpecError, match="'c4'"):
        Topology("c4, gap, out")


def test_a_topology_filled_with_an_impossible_dropout_is_refused() -> None:
    with pytest.raises(SpecError, match="dropout rate"):
        Topology("c3, drop, gap, out").spec([4], 1.5)

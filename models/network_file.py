"""A user's file that builds networks: run, counted, and shown layer by layer.

The file has a function `network(trial, input_shape, n_classes)`, which suggests what it likes and
returns a module. To run it is to run its user's code: only what a user has named is loaded.
"""

from __future__ import annotations

import contextlib
import contextvars
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from search_models.module_rows import module_rows
from search_models.own import NetworkSource, OwnNetworkError, OwnSpec, Value
from search_models.size import LayerRow
from search_models.suggestions import Ask, Suggestions

FUNCTION = "network"
_MOST_PLACES = 4  # of an error, the first among them
_N_IMAGES = 2  # of a forward pass that only looks at what comes out
_CURRENT: contextvars.ContextVar[Suggestions | None] = contextvars.ContextVar(
    "suggestions", default=None
)


def width(name: str, low: int = 8, high: int = 64) -> int:
    """A width of the network that is being built: drawn, then scaled with all others to the cap.

    For a network's function: `search.width("stem")`. What is drawn is a proportion, from `low` to
    `high` on a logarithmic scale; all widths are multiplied by one factor, until the network fills
    the cap.

    Raises:
        RuntimeError: outside of such a function.
    """
    suggestions = _CURRENT.get()
    if suggestions is None:
        raise RuntimeError(
            "search.width must be called by the function network(trial, input_shape, n_classes) of "
            "a file that is named with --network, while a search runs it."
        )
    return suggestions.width(name, low, high)


class NetworkFile:
    """A loaded file, and what its functions make.

    Raises:
        OwnNetworkError: if it cannot be run, or has no function `network`; what it says of the
            error are the user's own lines.
    """

    def __init__(self, source: NetworkSource) -> None:
        self.source = source
        name = f"search_network_{source.fingerprint[:12]}"
        module = types.ModuleType(name)
        module.__file__ = source.path
        lines = source.text.splitlines(keepends=True)
        linecache.cache[source.path] = (len(source.text), None, lines, source.path)
        sys.modules[name] = module  # where its classes look for their names
        with self._in_words("must be a file that Python can run"):
            exec(compile(source.text, source.path, "exec"), vars(module))
        self._network = self._function(module, FUNCTION)
        self._training = self._function(module, "training")
        self._scaled = self._function(module, "scaled")
        if self._network is None:
            raise OwnNetworkError(
                f"{source.name} must have a function {FUNCTION}(trial, input_shape, n_classes), "
                "but it has none; add it."
            )

    def _function(self, module: types.ModuleType, name: str) -> Callable[..., Any] | None:
        found = vars(module).get(name)
        if found is not None and not callable(found):
            raise OwnNetworkError(
                f"{self.source.name}: {name} must be a function, but it is {found!r}."
            )
        return cast("Callable[..., Any] | None", found)

    @property
    def has_training(self) -> bool:
        """Whether it takes a part of the training's hyperparameters over."""
        return self._training is not None

    @property
    def has_scaled(self) -> bool:
        """Whether it says itself how its values are scaled."""
        return self._scaled is not None

    @contextlib.contextmanager
    def _in_words(self, rule: str) -> Iterator[None]:
        """Makes of an error in the user's code one that tells it by the user's own lines."""
        try:
            with _unprinted(), _unchanged():
                yield
        except OwnNetworkError:
            raise
        except (Exception, SystemExit) as error:
            raise OwnNetworkError(f"{self.source.name} {rule}, but {self.told(error)}.") from error

    def told(self, error: BaseException) -> str:
        """An error of the user's code in one line: what it is, and in which lines of the file."""
        what = f"{type(error).__name__}: {error}".strip().rstrip(":.").replace("\n", " ")
        if isinstance(error, SyntaxError):
            line = (error.text or "").strip()
            return f"{type(error).__name__}: {error.msg} (line {error.lineno}: {line})"
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == self.source.path
        ]
        if not frames:
            return what
        places = [
            f"line {frame.lineno}"
            + ("" if frame.name == "<module>" else f" in {frame.name}")
            + f": {frame.line}"
            for frame in frames
        ]
        if len(places) > _MOST_PLACES:  # one that calls itself
            places[1 : 1 - _MOST_PLACES] = ["…"]
        return f"{what} ({'; '.join(places)})"

    # --- What its functions make ---

    def run(
        self, suggestions: Suggestions, input_shape: tuple[int, int, int], n_classes: int
    ) -> nn.Module:
        """The module that the function builds of what it is given for its suggestions."""
        assert self._network is not None
        token = _CURRENT.set(suggestions)
        try:
            with self._in_words(f"must build a network for images of {_sides(input_shape)}"):
                module = self._network(suggestions, input_shape, n_classes)
        except OwnNetworkError:
            if suggestions.failure is not None:
                raise suggestions.failure from None
            raise
        finally:
            _CURRENT.reset(token)
        if not isinstance(module, nn.Module):
            raise OwnNetworkError(
                f"{self.source.name}: {FUNCTION} must return a torch.nn.Module, but it returns "
                f"{type(module).__name__}."
            )
        if any(map(is_lazy, module.parameters())):
            self._forward(module, input_shape)
        return module

    def count(
        self, suggestions: Suggestions, input_shape: tuple[int, int, int], n_classes: int
    ) -> int:
        """The trainable parameters of what the function builds, shared ones counted once.

        No weights are made for it, where the function can do without.

        Raises:
            OwnNetworkError: if it raises, or there are none.
        """
        try:
            with torch.device("meta"):
                module = self.run(suggestions, input_shape, n_classes)
        except OwnNetworkError:  # it may read the value of a tensor, which such a one has not
            module = self.run(suggestions, input_shape, n_classes)
        n_parameters = _count(module)
        if n_parameters == 0:
            raise OwnNetworkError(
                f"{self.source.name}: a network must have trainable parameters, but the one that "
                f"{FUNCTION} returns has none."
            )
        return n_parameters

    def count_of(
        self, values: Mapping[str, Value], input_shape: tuple[int, int, int], n_classes: int
    ) -> int:
        """The same of the network with these values."""
        return self.count(self._fixed(values), input_shape, n_classes)

    def training(self, suggestions: Suggestions) -> dict[str, Any]:
        """The hyperparameters of training that the file takes over, by name; none by default.

        Raises:
            OwnNetworkError: if its function raises, or returns no such thing.
        """
        if self._training is None:
            return {}
        try:
            with self._in_words("must say how it is trained"):
                found = self._training(suggestions)
        except OwnNetworkError:
            if suggestions.failure is not None:
                raise suggestions.failure from None
            raise
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            raise OwnNetworkError(
                f"{self.source.name}: training must return a dict of hyperparameters by name, but "
                f"it returns {found!r}."
            )
        return found

    def scaled(self, values: Mapping[str, Value], factor: float) -> dict[str, Value]:
        """The values of a network whose widths are `factor` times as large, by its own function.

        Raises:
            OwnNetworkError: if that raises, or returns other names.
        """
        assert self._scaled is not None
        with self._in_words("must scale its values"):
            found = self._scaled(dict(values), factor)
        if (
            not isinstance(found, dict)
            or found.keys() != values.keys()
            or not all(isinstance(value, Value) for value in found.values())
        ):
            raise OwnNetworkError(
                f"{self.source.name}: scaled(values, factor) must return a dict with a number or a "
                f"text for each of {', '.join(values)}, but it returns {found!r}."
            )
        return found

    def asks_of(self, spec: OwnSpec) -> Mapping[str, Ask]:
        """What the function suggests as it builds a network, by name."""
        suggestions = self._fixed(dict(spec.values))
        self.count(suggestions, spec.input_shape, spec.n_classes)
        return suggestions.asks

    def respecified(self, spec: OwnSpec, values: Mapping[str, Value]) -> OwnSpec:
        """The network with other values; what has none is the lowest, or the first choice.

        Raises:
            OwnNetworkError: if it cannot be built.
        """

        def answer(name: str, ask: Ask) -> Value:
            return values[name] if name in values else ask.choices[0] if ask.choices else ask.low

        suggestions = Suggestions(answer)
        count = self.count(suggestions, spec.input_shape, spec.n_classes)
        return replace(spec, values=tuple(suggestions.values.items()), parameter_count=count)

    def build(self, spec: OwnSpec) -> nn.Module:
        """The module of a network that this file built before, with its first weights.

        Raises:
            OwnNetworkError: if it cannot be built, is another than before, or does not do what a
                network must.
        """
        suggestions = self._fixed(dict(spec.values))
        module = self.run(suggestions, spec.input_shape, spec.n_classes)
        logits = self._forward(module, spec.input_shape)
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        is_real = isinstance(logits, Tensor) and logits.is_floating_point()
        if found != (_N_IMAGES, spec.n_classes) or not is_real:
            kind = f" of {logits.dtype}" if isinstance(logits, Tensor) and not is_real else ""
            raise OwnNetworkError(
                f"{self.source.name}: a network must map images (N, "
                f"{', '.join(map(str, spec.input_shape))}) to logits (N, {spec.n_classes}), but of "
                f"N = {_N_IMAGES} it gives {found}{kind}."
            )
        if not all(bool(tensor.isfinite().all()) for tensor in module.parameters()):
            raise OwnNetworkError(
                f"{self.source.name}: the weights of a new network must be finite, but some are "
                "not."
            )
        n_parameters = _count(module)
        if n_parameters != spec.parameter_count or len(suggestions.values) != len(spec.values):
            raise OwnNetworkError(
                f"{self.source.name}: {FUNCTION} must build the same network of the same values, "
                f"but of {dict(spec.values)} it once made {spec.parameter_count:,} parameters of "
                f"{len(spec.values)} suggestions, and now {n_parameters:,} of "
                f"{len(suggestions.values)}."
            )
        return module

    def check_trains(self, spec: OwnSpec) -> None:
        """Builds a network twice, and has one learn from a few images of noise.

        Raises:
            OwnNetworkError: if it cannot be built, or cannot learn, or is no new one each time.
        """
        module, other = self.build(spec), self.build(spec)
        if not {id(p) for p in _trainable(module)}.isdisjoint(map(id, _trainable(other))):
            raise OwnNetworkError(
                f"{self.source.name}: {FUNCTION} must build a new network each time, as the next "
                "trial would begin with trained weights, but two of them share some; build all "
                f"parts in {FUNCTION}."
            )
        device = next(module.parameters()).device
        images = torch.randn(_N_IMAGES, *spec.input_shape, device=device)
        labels = torch.zeros(_N_IMAGES, dtype=torch.long, device=device)
        with self._in_words(f"must build a network that learns from {_sides(spec.input_shape)}"):
            module.train()
            loss = nn.functional.cross_entropy(module(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
        if not loss.isfinite():
            raise OwnNetworkError(
                f"{self.source.name}: the logits of a new network must be finite, but some are not."
            )

    def layer_table(self, spec: OwnSpec) -> tuple[LayerRow, ...]:
        """One row for each module that has parameters of its own, or no others in it, as run.

        Raises:
            OwnNetworkError: if it cannot be built.
        """
        module = self.build(spec)
        return module_rows(module, lambda: self._forward(module, spec.input_shape))

    def _forward(self, module: nn.Module, input_shape: tuple[int, int, int]) -> object:
        """What comes out of a module for images without any content, as it is evaluated."""
        parameter = next((p for p in module.parameters() if not is_lazy(p)), None)
        device = torch.get_default_device() if parameter is None else parameter.device
        images = torch.zeros(_N_IMAGES, *input_shape, device=device)
        was_training = module.training
        with (
            self._in_words(f"must build a network for images of {_sides(input_shape)}"),
            torch.no_grad(),
        ):
            logits: object = module.eval()(images)
        module.train(was_training)
        return logits

    def _fixed(self, values: Mapping[str, Value]) -> Suggestions:
        def answer(name: str, _ask: object) -> Value:
            if name not in values:
                raise OwnNetworkError(
                    f"{self.source.name}: {FUNCTION} must suggest the same names for the same "
                    f"values, but it suggests {name!r} as well as {', '.join(values) or 'nothing'};"
                    " what it suggests may depend on what was drawn, but on no width, and not on "
                    "chance."
                )
            return values[name]

        return Suggestions(answer)


def _unprinted() -> contextlib.AbstractContextManager[object]:
    """Has what a user's code prints go to standard error, where a program reads the output."""
    is_read = sys.stdout is not None and not sys.stdout.isatty()
    return contextlib.redirect_stdout(sys.stderr) if is_read else contextlib.nullcontext()


@contextlib.contextmanager
def _unchanged() -> Iterator[None]:
    """Leaves as it was what a user's code may set of the whole process, by which all else goes."""
    folder = None
    with contextlib.suppress(OSError):  # it may have been deleted
        folder = Path.cwd()
    dtype, has_grad = torch.get_default_dtype(), torch.is_grad_enabled()
    n_threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(has_grad)
        if torch.get_num_threads() != n_threads:
            torch.set_num_threads(n_threads)
        if folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(folder)


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained, each once."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in _trainable(module))


def _sides(input_shape: tuple[int, int, int]) -> str:
    return "×".join(map(str, input_shape))

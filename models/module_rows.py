"""The layer table of any module, by hooks: what each part gives, in the order in which it runs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from search_models.size import LayerRow


def module_rows(module: nn.Module, run: Callable[[], object]) -> tuple[LayerRow, ...]:
    """One row for each part that has parameters of its own, or no others in it.

    A parameter that is shared counts where it is met first. What no image passes comes last.

    Args:
        run: passes images through the module.
    """
    seen: set[int] = set()
    rows: list[LayerRow] = []

    def new_parameters(part: nn.Module) -> int:
        own = [p for p in part.parameters(recurse=False) if p.requires_grad]
        new = [p for p in own if id(p) not in seen]
        seen.update(map(id, new))
        return sum(parameter.numel() for parameter in new)

    def add(name: str, part: nn.Module, output: object) -> None:
        shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        side, stride = _number(part, "kernel_size"), _number(part, "stride")
        kind = getattr(part, "original_name", type(part).__name__)  # which a compiled one has
        label = f"{name or 'the network'}: {kind}"
        rows.append(LayerRow(label, shape, new_parameters(part), side, stride, 0, 0))

    hooks = [
        part.register_forward_hook(lambda part, _inputs, output, name=name: add(name, part, output))
        for name, part in module.named_modules()
        if (_is_leaf(part) or _has_own(part)) and not isinstance(part, torch.jit.ScriptModule)
    ]
    run()
    for hook in hooks:
        hook.remove()
    for name, part in module.named_modules():  # nor does TorchScript take hooks
        if any(p.requires_grad and id(p) not in seen for p in part.parameters(recurse=False)):
            add(name, part, None)
    return tuple(rows)


def _is_leaf(part: nn.Module) -> bool:
    return next(part.children(), None) is None


def _has_own(part: nn.Module) -> bool:
    """Whether a module has parameters besides those of the modules in it."""
    return next(part.parameters(recurse=False), None) is not None


def _number(part: nn.Module, name: str) -> int:
    """A size that is the same along both sides; 0 where there is none."""
    value = getattr(part, name, 0)
    sides = value if isinstance(value, tuple) else (value,)
    return sides[0] if len(set(sides)) == 1 and isinstance(sides[0], int) else 0

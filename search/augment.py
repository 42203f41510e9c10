"""Augmentation of a whole batch at once, on the device that holds it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from search.hyperparameters import Augmentation


def shrinking_strength(n: int, *, epoch: int, epochs: int, final: float) -> Tensor:
    """By which share augmentation applies to each of an epoch's `n` images, (n,).

    It falls along a straight line from 1 at the first image of the first epoch to `final` at the
    end of the last of `epochs`; `epoch` is counted from 1.
    """
    trained = (torch.arange(n) / n + (epoch - 1)) / epochs
    return 1 + (final - 1) * trained


def affine_matrices(
    augmentation: Augmentation, n: int, generator: Generator, *, strength: Tensor | None = None
) -> Tensor:
    """`n` random maps from output to input coordinates, (n, 2, 3), for `affine_grid`.

    Coordinates run from -1 to 1 over an image, as `torch.nn.functional.affine_grid` has them, so
    a translation by a share `t` of the side is a shift by `2 t`. Each map shears along the
    rows, rotates and scales, then shifts.

    Args:
        strength: (n,), by which share the ranges apply to each image; None is all of them to all.
    """
    device = generator.device
    # One draw for all kinds, so that a recipe's stream does not depend on which are in use.
    draws = 2 * torch.rand(5, n, generator=generator, device=device) - 1  # even in -1..1
    if strength is not None:
        draws *= strength
    angle = draws[0] * math.radians(augmentation.rotation_degrees)
    size = 1 / (1 + draws[1] * augmentation.scale)
    shear = torch.tan(draws[2] * math.radians(augmentation.shear_degrees))
    shift_x, shift_y = draws[3:] * (2 * augmentation.translation)
    cos, sin = size * angle.cos(), size * angle.sin()
    rows = (cos, cos * shear - sin, shift_x, sin, sin * shear + cos, shift_y)
    return torch.stack(rows, dim=1).view(n, 2, 3)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Each image moved by its matrix.

    Args:
        images: floats (N, C, H, W) in which 0 is the background: what comes in from outside the
            image is 0, so this belongs before normalising.
        matrices: (N, 2, 3), as `affine_matrices` draws them.
    """
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

"""Augmentation of a whole batch at once, on the device that holds it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from search.space.hyperparameters import N_CONTROL_POINTS, Augmentation


@dataclass(frozen=True, slots=True)
class Warps:
    """How each of N images is to be moved.

    Args:
        matrices: (N, 2, 3), as `affine_matrices` draws them.
        displacements: (N, 2, points, points), as `elastic_displacements` draws them, or None.
    """

    matrices: Tensor
    displacements: Tensor | None = None

    def __getitem__(self, part: slice | Tensor) -> Warps:
        """Those of a part of the images."""
        displacements = self.displacements
        return Warps(self.matrices[part], None if displacements is None else displacements[part])

    def clone(self) -> Warps:
        displacements = self.displacements
        return Warps(
            self.matrices.clone(), None if displacements is None else displacements.clone()
        )

    def copy_(self, other: Warps) -> None:
        """Takes the values of `other`, which has what this has, into the same memory."""
        self.matrices.copy_(other.matrices)
        if self.displacements is not None and other.displacements is not None:
            self.displacements.copy_(other.displacements)


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
    """`n` random maps from output to input coordinates of squares, (n, 2, 3), for `affine_grid`.

    Coordinates run from -1 to 1 over an image, as `torch.nn.functional.affine_grid` has them, so
    a translation by a share `t` of the side is a shift by `2 t`. Each map shears along the
    rows, rotates and scales, then shifts, and some are mirrored.

    Args:
        strength: (n,), by which share the ranges apply to each image; None is all of them to all.
            How many are mirrored does not depend on it.
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
    matrices = torch.stack(rows, dim=1).view(n, 2, 3)
    if augmentation.flip > 0:  # else nothing is drawn: other recipes' streams stay as they are
        is_flipped = torch.rand(n, generator=generator, device=device) < augmentation.flip
        matrices[is_flipped, 0] *= -1
    return matrices


def elastic_displacements(
    augmentation: Augmentation, n: int, generator: Generator, *, strength: Tensor | None = None
) -> Tensor:
    """`n` random fields of displacements, (n, 2, points, points): along x, then along y.

    Each is a coarse grid of control points over the image, the outer ones on its edge, moved by
    normal draws in the coordinates of `affine_matrices`. Simard et al., "Best Practices for
    Convolutional Neural Networks" (2003), in the form of Ronneberger et al., "U-Net" (2015).

    Args:
        strength: (n,), by which share they apply to each image; None is all of them to all.
    """
    shape = (n, 2, N_CONTROL_POINTS, N_CONTROL_POINTS)
    draws = torch.randn(shape, generator=generator, device=generator.device)
    if strength is not None:
        draws *= strength.view(n, 1, 1, 1)
    return draws * (2 * augmentation.elastic)


def draw_warps(
    augmentation: Augmentation,
    n: int,
    generator: Generator,
    *,
    strength: Tensor | None = None,
    aspect: float = 1.0,
) -> Warps | None:
    """How to augment `n` images, drawn at random; None where nothing is to change.

    Args:
        strength: (n,), by which share the augmentation applies to each image; None is all of it.
        aspect: an image's width by its height.
    """
    if augmentation.is_identity:
        return None
    matrices = affine_matrices(augmentation, n, generator, strength=strength)
    matrices[:, 0, 1] /= aspect  # both sides are 2 long, and a turn is one of pixels
    matrices[:, 1, 0] *= aspect
    if augmentation.elastic == 0:  # and nothing is drawn: other recipes' streams stay as they are
        return Warps(matrices)
    return Warps(matrices, elastic_displacements(augmentation, n, generator, strength=strength))


def warp(images: Tensor, matrices: Tensor, displacements: Tensor | None = None) -> Tensor:
    """Each image moved by its matrix and its displacements.

    Args:
        images: floats (N, C, H, W) in which 0 is the background: what comes in from outside the
            image is 0, so this belongs before normalising.
        matrices: (N, 2, 3), as `affine_matrices` draws them.
        displacements: (N, 2, points, points), as `elastic_displacements` draws them: interpolated
            between the control points by bicubic convolution, and added to the coordinates that
            the matrix maps to. None moves images by their matrices alone.
    """
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    if displacements is not None:
        size = list(images.shape[2:])
        field = F.interpolate(displacements, size, mode="bicubic", align_corners=True)
        grid = grid + field.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

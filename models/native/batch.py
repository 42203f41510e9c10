"""A batch of images, filled by the compiled sampler straight from bytes."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from search_models.native.library import (
    MOST_ELEMENTS,
    Affine,
    Elastic,
    Kernel,
    check,
)


@functools.cache
def _interpolation(points: int, size: int) -> Tensor:
    """The share that each of `points` control points has in each of `size` pixels, (size, points).

    As `torch.nn.functional.interpolate(mode="bicubic", align_corners=True)` has them: it is linear
    and takes the axes one after the other.
    """
    impulses = torch.eye(points).view(points, 1, points, 1)
    shares = F.interpolate(impulses, (size, 1), mode="bicubic", align_corners=True)
    return shares.view(points, size).T.contiguous()


class Batch:
    """Up to `max_batch` images in the kernel's layout, normalised, and their labels.

    Args:
        kernel: whose layout it is.
        shape: channels, height and width of an image.
        max_batch: the most images it holds.
        mean, std: one a channel, for images scaled to [0, 1].

    Raises:
        ValueError: for a mean or std that does not fit the channels, or images too large.
    """

    def __init__(
        self,
        kernel: Kernel,
        shape: tuple[int, int, int],
        max_batch: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        channels, height, width = shape
        if len(mean) != channels or len(std) != channels or min(std, default=0) <= 0:
            raise ValueError(
                f"mean and std must have one value for each of {channels} channels and std must "
                f"be positive, but got mean={tuple(mean)}, std={tuple(std)}."
            )
        if min(shape) < 1 or max_batch < 1 or channels * (height + 3) * (width + 3) > MOST_ELEMENTS:
            raise ValueError(
                f"A batch needs images of 1 to {MOST_ELEMENTS} values, but got shape={shape}, "
                f"max_batch={max_batch}."
            )
        self.kernel = kernel
        self.shape = shape
        self.max_batch = max_batch
        self.n = 0
        n_blocks = -(-max_batch // kernel.lanes)
        self.blocks = torch.zeros(n_blocks, height, width, channels, kernel.lanes)
        self.labels = torch.zeros(max_batch, dtype=torch.int64)
        self._scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        self._offset = (-255 * torch.tensor(mean, dtype=torch.float64) * self._scale).float()
        self._scale = self._scale.float()
        scratch = kernel.library.native_sampler_scratch(kernel.code, channels, height, width)
        self._scratch = torch.zeros(scratch, dtype=torch.uint8)
        # Where displacements are interpolated; made where there are any.
        self._field = torch.zeros(0)
        assert self.blocks.data_ptr() % 64 == 0  # as the kernel's vectors need it

    def fill(
        self,
        images: Tensor,
        labels: Tensor,
        index: Tensor,
        matrices: Tensor | None = None,
        displacements: Tensor | None = None,
    ) -> None:
        """Take the images at `index`, moved by `matrices` and `displacements`, and normalise them.

        Args:
            images: (M, C, H, W), uint8.
            labels: (M,), int64.
            index: (N,), int64, each in [0, M).
            matrices: (N, 2, 3), float32: the maps from output to input coordinates as
                `torch.nn.functional.affine_grid(align_corners=False)` takes them; read with
                `grid_sample(mode="bilinear", padding_mode="zeros")`'s rules from images scaled to
                [0, 1]. None takes the images as they are, which is faster and exactly what an
                identity gives.
            displacements: (N, 2, points, points), float32: of a grid of control points, along x,
                then along y; interpolated as `interpolate(mode="bicubic", align_corners=True)` does
                and added to the input coordinates that the matrices give. None adds nothing.

        Raises:
            ValueError: for a tensor of another type, shape or device, or not contiguous, or
                displacements without matrices.
            IndexError: for an index that is not one of an image.
        """
        n = len(index)
        check(images, "images", torch.uint8, (None, *self.shape))
        check(labels, "labels", torch.int64, (len(images),))
        check(index, "index", torch.int64, (None,))
        if matrices is not None:
            check(matrices, "matrices", torch.float32, (n, 2, 3))
        if displacements is not None:
            if matrices is None:
                raise ValueError("displacements must come with matrices, but there are none.")
            points = max((1, *displacements.shape[-1:]))
            check(displacements, "displacements", torch.float32, (n, 2, points, points))
        self._set_length(n)
        elastic = None if displacements is None else self._elastic(displacements)
        channels, height, width = self.shape
        affine = Affine(
            images=images.data_ptr(),
            n_images=len(images),
            channels=channels,
            height=height,
            width=width,
            n=n,
            index=index.data_ptr(),
            matrices=None if matrices is None else matrices.data_ptr(),
            elastic=None if elastic is None else ctypes.addressof(elastic),
            scale=self._scale.data_ptr(),
            offset=self._offset.data_ptr(),
            scratch=self._scratch.data_ptr(),
            out=self.blocks.data_ptr(),
        )
        if not self.kernel.library.native_sample(self.kernel.code, ctypes.byref(affine)):
            self.n = 0
            raise IndexError(f"Each index must be in [0, {len(images)}), but got {index.tolist()}.")
        torch.index_select(labels, 0, index, out=self.labels[:n])

    def _elastic(self, displacements: Tensor) -> Elastic:
        points = displacements.shape[-1]
        _, height, width = self.shape
        # For each axis the control points of a block, and below them those of the row in work.
        shape = (2, points + 1, points, self.kernel.lanes)
        if self._field.shape != shape:
            self._field = torch.zeros(shape)
            assert self._field.data_ptr() % 64 == 0
        return Elastic(
            points,
            displacements.data_ptr(),
            _interpolation(points, height).data_ptr(),
            _interpolation(points, width).data_ptr(),
            self._field.data_ptr(),
        )

    def load(self, images: Tensor, labels: Tensor) -> None:
        """Take normalised images (N, C, H, W), float32, and labels (N,), int64, as they are.

        Raises:
            ValueError: for a tensor of another type, shape or device, or not contiguous.
        """
        check(images, "images", torch.float32, (None, *self.shape))
        check(labels, "labels", torch.int64, (len(images),))
        self._set_length(len(images))
        self.blocks.zero_()
        lanes = self.kernel.lanes
        for first in range(0, self.n, lanes):
            part = images[first : first + lanes]
            self.blocks[first // lanes, ..., : len(part)] = part.permute(2, 3, 1, 0)
        self.labels[: self.n] = labels

    def images(self) -> Tensor:
        """The normalised images, (n, C, H, W): a copy in PyTorch's layout."""
        return self.blocks.permute(0, 4, 3, 1, 2).flatten(0, 1)[: self.n].contiguous()

    def _set_length(self, n: int) -> None:
        if not 1 <= n <= self.max_batch:
            raise ValueError(f"A batch holds 1 to {self.max_batch} images, but got {n}.")
        self.n = n

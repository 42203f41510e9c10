"""Photographs of handwritten digits, made from images of them as paper, light and cameras would."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

_WIDTH, _HEIGHT = 360, 270


def photograph(digit: Tensor, seed: int) -> bytes:
    """A JPEG of a digit in dark ink on bright paper that the light falls on from one side.

    The digit is 80 to 180 pixels high, somewhere in the picture, and turned by up to 8°. Its light
    falls off by up to a half across the picture, the paper is yellowish, the camera adds noise.

    Args:
        digit: bytes (H, W), with 0 as the background.
    """
    random = np.random.default_rng(seed)
    ink = Image.fromarray(digit.numpy())
    ink = ink.crop(ink.getbbox())
    scale = random.uniform(80, 180) / max(ink.size)
    size = (max(1, round(scale * ink.width)), max(1, round(scale * ink.height)))
    ink = ink.resize(size, Image.Resampling.BICUBIC)
    ink = ink.rotate(random.uniform(-8, 8), Image.Resampling.BICUBIC, expand=True)
    left = int(random.integers(10, _WIDTH - ink.width - 10))
    top = int(random.integers(10, _HEIGHT - ink.height - 10))
    page = Image.new("L", (_WIDTH, _HEIGHT))
    page.paste(ink, (left, top))
    darkness = np.asarray(page, dtype=np.float64)[..., np.newaxis] / 255  # (H, W, 1)
    y, x = np.indices((_HEIGHT, _WIDTH)) / _WIDTH
    angle = random.uniform(0, 2 * np.pi)
    slope = random.uniform(0, 0.4) * (np.cos(angle) * x + np.sin(angle) * y)
    light = (random.uniform(0.7, 1) * (1 - slope + slope.min()))[..., np.newaxis]
    paper, pen = np.array([250, 246, 232]), np.array([40, 45, 90])
    picture = light * (paper + darkness * (pen - paper))
    return _jpeg(picture + random.normal(0, 4, picture.shape))


def _jpeg(picture: NDArray[np.float64]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=75)
    return file.getvalue()

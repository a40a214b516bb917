"""The rotation that AnomalyDINO publishes, in loops, for tests of several rooms."""

import math

import numpy as np


def reflect(place, n):
    """0 1 2 3 2 1 0 1 ...: the border itself is not repeated."""
    while not 0 <= place < n:
        place = 0 if n == 1 else -place if place < 0 else 2 * (n - 1) - place
    return place


def rotated(image, angle):
    """An image turned about (w / 2, h / 2), bilinear, its borders reflected; float64.

    Places are rounded to a 32nd of a pixel, as OpenCV 4 did.
    """
    height, width = image.shape[:2]
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    out = np.empty(image.shape)
    for i in range(height):
        for j in range(width):
            dy, dx = i - height / 2, j - width / 2
            y = math.floor(32 * (s * dx + c * dy + height / 2) + 0.5) / 32
            x = math.floor(32 * (c * dx - s * dy + width / 2) + 0.5) / 32
            row, column = math.floor(y), math.floor(x)
            down, along = y - row, x - column
            top, bottom = reflect(row, height), reflect(row + 1, height)
            left, right = reflect(column, width), reflect(column + 1, width)
            out[i, j] = (
                (1 - down) * (1 - along) * image[top, left]
                + (1 - down) * along * image[top, right]
                + down * (1 - along) * image[bottom, left]
                + down * along * image[bottom, right]
            )
    return out

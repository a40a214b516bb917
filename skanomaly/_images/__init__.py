"""Anything a person calls an image, as an array."""

from skanomaly._images.files import ImageReadError
from skanomaly._images.reading import (
    check_images,
    content_digest,
    image_size,
    load_image,
    read_item,
)
from skanomaly._images.resizing import resize_image

__all__ = [
    "ImageReadError",
    "check_images",
    "content_digest",
    "image_size",
    "load_image",
    "read_item",
    "resize_image",
]

"""Fitted models that learn more images, forget some, or become one."""

__all__: list[str] = []

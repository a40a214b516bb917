"""Pretrained networks: loading, the upstream libraries, fast forms, runtimes, conversion."""

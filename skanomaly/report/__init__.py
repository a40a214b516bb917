"""What is left on disk for a person to look at."""

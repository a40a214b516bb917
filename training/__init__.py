"""How the weights of the tiny network are made, from nothing to one file: see README.md.

Commands, in this order: `python -m training.make_data`, `python -m training.train`,
`python -m training.export`. Nothing here is part of the package.
"""

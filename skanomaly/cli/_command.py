"""How the commands of ``skanomaly`` read what is typed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from typer.core import TyperCommand


def examples(*lines: str) -> str:
    """The end of a command's help: how it is typed.

    Parameters
    ----------
    *lines : str
        Each a command.

    Returns
    -------
    str
        With empty lines between: those of one paragraph are joined where they are shown.
    """
    return "\n\n".join(["Examples:", *lines])


class Command(TyperCommand):
    """A command that takes lists in one go, and says what to type for an option it does not have.

    An option whose metavar ends with ``...`` may be followed by several values: ``--shots 1 2 4``
    is ``--shots 1 --shots 2 --shots 4``.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words behind the name of the command.

        Parameters
        ----------
        ctx : click.Context
            What is known of the run.
        args : list of str
            The words.

        Returns
        -------
        list of str
            Words of no option or argument.
        """
        lists = {
            name
            for parameter in self.params
            if str(parameter.metavar or "").endswith("...")
            for name in parameter.opts
            if name.startswith("-")
        }
        try:
            return super().parse_args(ctx, list(_one_by_one(args, lists)))
        except Exception as exc:
            # The error of click, or of typer's copy of it, where an option is not known: of all
            # errors this one has options that may have been meant.
            error: Any = exc
            if hasattr(error, "possibilities"):
                error.message = self._no_option(error.option_name, args)
                error.possibilities = None
            raise

    def _no_option(self, option: str, args: Sequence[str]) -> str:
        known = [name for parameter in self.params for name in parameter.opts]
        close = get_close_matches(option, [*known, "--help"], n=1, cutoff=0.8)
        if close:
            return f"There is no option {option}; did you mean {close[0]}?"
        if "--set" not in known:
            return f"There is no option {option}."
        typed = next((word for word in args if word.partition("=")[0] == option), option)
        name, value = option.lstrip("-").replace("-", "_"), typed.partition("=")[2]
        return (
            f"There is no option {option}; a parameter of the model is given as --set "
            f"{name}={value or 'VALUE'} (`skanomaly models NAME` lists those of a model)."
        )


def _one_by_one(args: Sequence[str], lists: set[str]) -> Iterator[str]:
    """The words, with the name of its option before each value of a list."""
    words = iter(args)
    word = next(words, None)
    while word is not None:
        yield word
        option, word = word, next(words, None)
        if option == "--":
            break
        if option not in lists or word is None:
            continue
        numbers = word.isdigit()
        yield word
        word = next(words, None)
        # A list ends where something else begins: an option, or the path of the images.
        while word is not None and not word.startswith("-"):
            if not word.isdigit() if numbers else os.path.exists(word):
                break
            yield from (option, word)
            word = next(words, None)
    if word is not None:
        yield word
    yield from words

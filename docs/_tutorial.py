"""Run the commands of tutorial.md, and keep their output and pictures for the page.

The page itself is the script: its ``sh`` and ``python`` blocks are run in their order, in one
temporary folder, and the page shows what came of it. A ``literalinclude`` block takes what the
command block before it printed; a picture takes the file of the same path in the working folder.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

PAGE = Path(__file__).with_name("tutorial.md")
GENERATED = Path("_static") / "generated" / "tutorial"  # below docs/, as the page writes it
_FENCE = re.compile(r"^```(\S+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")
_WIDTH = 100  # columns of the terminal that the commands see


@dataclass
class Step:
    """A block of commands, and the file that is to hold what it prints."""

    language: str
    code: str
    output: str | None = None
    printed: str = field(default="", compare=False)


def included(text: str) -> list[str]:
    """The generated files that the page shows, as paths below ``GENERATED``."""
    named = [name for language, name, _ in _FENCE.findall(text) if language == "{literalinclude}"]
    named += _PICTURE.findall(text)
    folder = GENERATED.as_posix() + "/"
    return [name.removeprefix(folder) for name in named if name.startswith(folder)]


def steps(text: str) -> list[Step]:
    """The blocks that are run, each with the file that the page includes next, if any."""
    found: list[Step] = []
    for language, name, code in _FENCE.findall(text):
        if language in ("sh", "python"):
            found.append(Step(language, code))
        elif language == "{literalinclude}":
            if not found or found[-1].output is not None:
                raise ValueError(f"{name} of the page follows no command of its own")
            found[-1].output = name.removeprefix(GENERATED.as_posix() + "/")
    return found


def build(folder: str | Path) -> list[Step]:
    """Run the page, and write the files that it includes below ``folder``.

    Parameters
    ----------
    folder : str or path
        Where the files go: ``docs/_static/generated/tutorial`` for the site.

    Returns
    -------
    steps : list of Step
        What was run, with what it printed.

    Raises
    ------
    RuntimeError
        If a command of the page fails; the message holds what it printed.
    """
    folder = Path(folder)
    text = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as place:
        work, tools = Path(place, "work"), Path(place, "tools")
        work.mkdir()
        environment = _environment(tools)
        ran = steps(text)
        for step in ran:
            step.printed = _run(step, work, environment)
        shutil.rmtree(folder, ignore_errors=True)
        printed = {step.output: step.printed for step in ran if step.output is not None}
        for name in included(text):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name in printed:
                target.write_text(printed[name], encoding="utf-8")
            else:
                shutil.copyfile(_made(work, name), target)
    return ran


def _environment(tools):
    """The environment of the commands, in which ``skanomaly`` is the one of this Python."""
    tools.mkdir()
    command = tools / "skanomaly"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m skanomaly.cli "$@"\n')
    command.chmod(0o755)
    package = Path(__file__).resolve().parents[1]  # where the page belongs to a checkout
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(tools), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(paths),
        "COLUMNS": str(_WIDTH),
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
    }


def _run(step, work, environment):
    """What one block prints; the temporary folder is shown as the home of some user."""
    if step.language == "sh":
        command = ["sh", "-e", "-c", step.code]
    else:
        command = [sys.executable, "-c", step.code]
    done = subprocess.run(
        command,
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"this block of {PAGE.name} ended with code {done.returncode}:\n{step.code}\n"
            f"{done.stdout}"
        )
    return "".join(_at_home(line.rstrip(), str(work)) + "\n" for line in done.stdout.splitlines())


def _at_home(line, folder):
    """The line with another name for the folder; the right border of a table keeps its place."""
    shown = line.replace(folder, "/home/you")
    if shown.endswith("│"):
        shown = shown[:-1].ljust(len(line) - 1) + "│"
    return shown


def _made(work, name):
    """The file of that path, or the only one whose name goes on with a digest."""
    path = work / name
    if path.is_file():
        return path
    candidates = sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))
    if len(candidates) != 1:
        raise RuntimeError(f"the commands of {PAGE.name} made no single file {name}")
    return candidates[0]


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE.parent / GENERATED
    build(target)
    print(f"{target}: {len(list(target.rglob('*')))} files", file=sys.stderr)

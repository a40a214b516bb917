"""The frame of the command line: help, exit codes, streams and completion of all commands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from skanomaly.cli import app
from skanomaly.cli._command import _one_by_one
from skanomaly.datasets import make_surfaces

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
SMALL = ("--scorer", "knn", "--set", "image_size=32")
PANELS = {"Every day", "Measure", "Set up"}


def run(*args, **options):
    return CliRunner().invoke(app, [str(arg) for arg in args], **options)


def commands():
    """Words of each command with its click command."""
    for name, command in get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        if inner is None:
            yield (name,), command
        else:
            yield from (((name, part), found) for part, found in inner.items())


COMMANDS = dict(commands())
NAMES = [" ".join(words) for words in COMMANDS]


def options_of(command):
    names = (
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    )
    return {name for name in names if name[:1] == "-"}


def unboxed(text):
    return " ".join(text.replace("│", " ").split())


# Help


def test_commands_stand_in_groups():
    shown = run("--help", env={"COLUMNS": "120"}).output
    titles = set(re.findall(r"╭─ ([A-Z][a-z ]+) ─", shown))
    assert titles == {"Options", *PANELS}
    for name in {words[0] for words in COMMANDS}:
        assert re.search(rf"│ {name} ", shown), name
    assert "Exit codes: 0 done, 1 error, 2 wrong usage, 3 anomalies found" in shown
    assert "--install-completion" in shown


@pytest.mark.parametrize("name", NAMES)
def test_help_of_each_command(name):
    """One sentence, options in groups, and examples whose options there are."""
    command = COMMANDS[tuple(name.split())]
    shown = run(*name.split(), "--help", env={"COLUMNS": "200"})
    assert shown.exit_code == 0 and "Examples:" in shown.output
    first = command.help.strip().splitlines()[0]
    assert first in unboxed(shown.output) and first.endswith(".") and len(first) <= 100
    examples = [line for line in command.epilog.splitlines() if line.startswith("skanomaly ")]
    assert examples and all(line.startswith(f"skanomaly {name}") for line in examples)
    for line in examples:
        assert set(re.findall(r" (--?[a-z][\w-]*)", line)) <= options_of(command), line
    for parameter in command.params:
        if parameter.opts[0][:1] == "-":
            assert parameter.rich_help_panel, f"{parameter.opts}: no group"
            assert parameter.help and parameter.help.rstrip().endswith((".", ")")), parameter.opts
        assert "[default: None]" not in shown.output


def test_the_page_tells_of_all_commands():
    text = PAGE.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### ([\w-]+)\n(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE))
    assert set(sections) == {words[0] for words in COMMANDS}
    for name, section in sections.items():
        there = set().union(*(options_of(c) for words, c in COMMANDS.items() if words[0] == name))
        cells = " ".join(re.findall(r"^\| ([^|]*) \|", section, re.MULTILINE))
        told = set(re.findall(r"(?<![\w-])--?[a-z0][a-z-]*", cells))
        assert there - told == set(), f"{name}: the page lacks {there - told}"
        assert told - there == set(), f"{name}: there is no {told - there}"
    codes = set(map(int, re.findall(r"^\| (\d+) \|", text, re.MULTILINE)))
    assert codes == {0, 1, 2, 3, 130}


# Words


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("--shots 1 2 4", "--shots 1 --shots 2 --shots 4"),
        ("--shots 1 2 data -x", "--shots 1 --shots 2 data -x"),
        ("data --shots 1 --seeds 2", "data --shots 1 --seeds 2"),
        ("--models a b HERE", "--models a --models b HERE"),
        ("--models a --models b HERE", "--models a --models b HERE"),
        ("--models a b --shots 1 2 HERE", "--models a --models b --shots 1 --shots 2 HERE"),
        ("--models=a b", "--models=a b"),
        ("HERE -- --shots 1 2", "HERE -- --shots 1 2"),
        ("--shots", "--shots"),
        ("", ""),
    ],
)
def test_lists_may_be_written_in_one_go(tmp_path, typed, read):
    typed, read = (text.replace("HERE", str(tmp_path)).split() for text in (typed, read))
    assert list(_one_by_one(typed, {"--shots", "--models"})) == read


@pytest.mark.parametrize("name", NAMES)
def test_options_that_there_are_not(name):
    result = run(*name.split(), "--no-such-option-at-all", "x")
    assert result.exit_code == 2 and result.stdout == ""
    assert "There is no option --no-such-option-at-all" in unboxed(result.stderr) or (
        name.startswith("weights") and "No such option" in result.stderr
    )


@pytest.mark.parametrize(
    "args", [(), ("fit",), ("benchmark",), ("datasets",), ("weights", "fetch"), ("nonsense",)]
)
def test_wrong_usage(args):
    assert run(*args).exit_code in ((2,) if args else (0, 2))  # without words it is a question


# Shells


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_shells(shell):
    done = subprocess.run(
        [sys.executable, "-m", "skanomaly.cli", "--show-completion", shell],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert done.returncode == 0 and "_SKANOMALY_COMPLETE=complete_" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("skanomaly fi", "fit"),
        ("skanomaly fit --model vision_fil", "vision_filterbank"),
        ("skanomaly evaluate --scorer gau", "gaussian"),
        ("skanomaly models vision_padim_an", "vision_padim_anomalib"),
        ("skanomaly demo --surface fab", "fabric"),
    ],
)
def test_names_are_completed_without_torch(words, expected):
    code = (
        "import sys\nsys.argv = ['skanomaly']\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            raise AssertionError('this takes seconds')\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from skanomaly.cli import app\napp(prog_name='skanomaly')"
    )
    environment = {
        "_SKANOMALY_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.stdout.split() == [expected], done.stderr


# Data in two folders


def write(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def images():
    return make_surfaces(10, 4, surface="fabric", image_size=32, random_state=0).images


@pytest.fixture
def apart(tmp_path, images):
    """Good images of May, and good ones and scratches of June."""
    write(tmp_path / "may", images[:6])
    write(tmp_path / "june" / "ok", images[6:10])
    write(tmp_path / "june" / "scratch", images[10:])
    return ("--normal", tmp_path / "may", "--test", tmp_path / "june")


def test_folders_of_good_images_and_of_test_images(tmp_path, apart):
    result = run("evaluate", *apart, *SMALL, "--json", "-")
    assert result.exit_code == 0, result.output
    numbers = json.loads(result.stdout)
    assert (numbers["n_train"], numbers["n_normal"], numbers["n_anomalous"]) == (6, 4, 4)
    assert numbers["n_unknown_masks"] == 4 and set(numbers["recall_by_type"]) == {"scratch"}
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[5:9, 5:9] = 255
    masks = write(tmp_path / "masks" / "scratch", [mask] * 4).parent
    result = run("evaluate", *apart, "--masks", masks, *SMALL, "--json", "-")
    assert "pixel_auroc" in json.loads(result.stdout)["metrics"]
    result = run("evaluate", *apart, *SMALL, "--output", tmp_path / "june" / "maps")
    assert result.exit_code == 1 and "outside of the data set" in result.stderr
    result = run("evaluate", *apart, *SMALL, "--output", tmp_path / "maps")
    assert result.exit_code == 0 and len(list((tmp_path / "maps").rglob("*.png"))) == 8


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "name the images: the folder of a data set, or --normal FOLDER --test FOLDER"),
        (("--normal", "may"), "name the images"),
        (("may", "--normal", "may", "--test", "june"), "pass either may"),
        (("--normal", "may", "--test", "june", "--category", "x"), "are for a data set"),
        (("--normal", "may", "--test", "may"), "skanomaly score"),
        (("--normal", "june/ok", "--test", "june"), "ok: is the folder that is trained on"),
        (("--normal", "may", "--test", "no"), "no"),
        (("--normal", "june", "--test", "june"), "a folder within a class folder"),
    ],
)
def test_folders_that_do_not_fit(tmp_path, apart, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    result = run("evaluate", *args, *SMALL)
    wrongly_typed = message.startswith(("name the", "pass either", "are for"))
    assert result.exit_code == (2 if wrongly_typed else 1) and message in result.stderr, (
        result.output
    )


def test_folders_that_are_links(tmp_path, apart):
    for name in ("may", "june"):
        (tmp_path / f"{name}-link").symlink_to(tmp_path / name)
    places = ("--normal", tmp_path / "may-link", "--test", tmp_path / "june-link")
    assert run("evaluate", *places, *SMALL).exit_code == 0


# Tables of models


def test_benchmark(tmp_path, images):
    root = tmp_path / "all"
    for name in ("a", "b"):
        write(root / name / "train" / "good", images[:6])
        write(root / name / "test" / "good", images[6:10])
        write(root / name / "test" / "scratch", images[10:])
    runs = tmp_path / "runs.jsonl"
    plugin = tmp_path / "plugin_small.py"
    plugin.write_text(
        "from skanomaly import FilterBankPatches\n"
        "from skanomaly.registry import register_embedder\n"
        "def small():\n    return FilterBankPatches(image_size=32)\n"
        "register_embedder('plugged_bank', small, overwrite=True)\n"
    )
    arguments = ("benchmark", "--plugin", plugin, "--set", "image_size=32", "--json", runs)
    options = ("--shots", 3, 4, "--models", "filterbank", "plugged_bank", root)
    result = run(*arguments, *options, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in runs.read_text().splitlines()]
    assert [(row["name"], row["model"], row["shots"]) for row in rows] == [
        (name, model, shots)
        for name in "ab"
        for model in ("filterbank", "plugged_bank")
        for shots in (3, 4)
    ]
    assert "model" in result.stdout and result.stdout.count("plugged_bank") == 4
    before = runs.read_bytes()
    assert run(*arguments, *options).exit_code == 0 and runs.read_bytes() == before
    for more, message in (
        (("--models", "filterbank", "filterbank"), "names a model twice"),
        (("--models", "filterbanc"), "did you mean 'filterbank'"),
        (("--models", "filterbank", "--seeds", 2), "--seeds is for --shots"),
        (("--models", "filterbank", "--set", "nonsense=1"), "--set nonsense"),
    ):
        result = run("benchmark", root, *more)
        code = 2 if "twice" in message or "--seeds" in message else 1
        assert result.exit_code == code and message in result.stderr

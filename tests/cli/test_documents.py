"""Every command in the documents: run as it stands there, in a folder with small data sets of the names that it uses."""
import os
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest

import data_sets
from tool import NITI, ROOT, output_of

DOCUMENTS = ["README.md", "CONTRIBUTING.md"] + sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
LANGUAGES = {"sh", "console", "text", "yaml", "c", "python", "mermaid"}

# What is not run here, and what is checked instead.
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
ELSEWHERE = {
    "make": lambda words: set(words) <= TARGETS | {word for word in words if re.fullmatch(r"[A-Z]+=\S*", word)},
    "cmake": lambda words: True,  # the build that this test is part of
    "ctest": lambda words: (ROOT / "tests" / f"{words[words.index('-R') + 1]}.c").exists(),
    "tensorboard": lambda words: True,  # tests/formats reads the events
    "python3": lambda words: (ROOT / words[0]).is_file(),
}


def blocks(document):
    """(language, first line's number, text) of each block of a document."""
    found, start = [], None
    for number, line in enumerate((ROOT / document).read_text().splitlines(), 1):
        if line.startswith("```"):
            if start is None:
                start, language, lines = number + 1, line[3:], []
            else:
                found.append((language, start, "\n".join(lines) + "\n"))
                start = None
        elif start is not None:
            lines.append(line)
    assert start is None, f"{document}: a block is not closed"
    return found


def commands(text):
    """The commands of a block, each as a list of words, without comments; a backslash joins lines, && parts them."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield words[:end]
            words = words[end + 1:]


def in_short(words):
    """The command with less to do: a few steps, a small batch, on the CPU of this machine."""
    words = list(words)
    if words[:2] == ["taskset", "-c"]:
        words = words[3:]
    if "--backend" in words:
        at = words.index("--backend")
        words[at:at + 2] = []
    if words[1] == "train" and "--dry-run" not in words:
        words += ["--max-steps", "1"]
    if words[1] == "bench":
        if "--batch" in words:
            words[words.index("--batch") + 1] = "2"
        words += ["--seconds", "1"]
    return words


def write_cifar100_set(folder):
    folder.mkdir()
    random = np.random.default_rng(4)
    for name, count in (("train.bin", 30), ("test.bin", 20)):
        records = random.integers(0, 256, (count, 3074), np.uint8)
        records[:, 0] = np.arange(count) % 20
        records[:, 1] = np.arange(count) % 100
        (folder / name).write_bytes(records.tobytes())


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """A folder as a reader has it: the tool, the repository's files, data sets, an image, and every recipe that a document shows."""
    images = [data_sets.squares(count, seed, side=28, classes=10) for count, seed in ((70, 1), (20, 2))]
    data_sets.write_idx_set(tmp_path / "MNIST", *images)
    data_sets.write_idx_set(tmp_path / "mnist", *images)  # ~/mnist
    data_sets.write_cifar10_set(tmp_path / "cifar-10-batches-bin", 10, 20)
    write_cifar100_set(tmp_path / "cifar-100-binary")
    data_sets.write_png(tmp_path / "shirt.png", images[0][0][0])
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "niti").symlink_to(NITI)
    for name in ("bench", "scripts", "models", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    for document in DOCUMENTS:
        for language, _, text in blocks(document):
            if language == "yaml" and text.startswith("name: "):
                (tmp_path / f"{text.split()[1]}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NITI_DATA", str(tmp_path / "MNIST"))
    monkeypatch.setenv("PATH", f"{tmp_path}/build:{os.environ['PATH']}")
    return tmp_path


def run(words, place):
    words = [os.path.expanduser(word) for word in words]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{place}: {' '.join(words)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_says_its_language(document):
    for language, line, _ in blocks(document):
        assert language in LANGUAGES, f"{document}:{line}: a block of '{language}' (expected one of {sorted(LANGUAGES)})"


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if any(block[0] == "sh" for block in blocks(name))])
def test_every_command_runs(document, sandbox):
    for language, line, text in blocks(document):
        for words in commands(text) if language == "sh" else ():
            while re.fullmatch(r"[A-Z]+=.*", words[0]):
                words = words[1:]
            place, program = f"{document}:{line}", words[0]
            if program in ELSEWHERE:
                assert ELSEWHERE[program](words[1:]), f"{place}: {' '.join(words)}"
            elif program.startswith(("scripts/", "bench/")):
                assert os.access(ROOT / program, os.X_OK), f"{place}: {program} is no program"
            else:
                words = in_short(words)
                assert words[0] in ("niti", "build/niti"), f"{place}: {program} is not known to this test"
                run(words, place)


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if any(block[0] == "console" for block in blocks(name))])
def test_what_is_printed_is_what_the_document_shows(document, sandbox):
    for language, line, text in blocks(document):
        for part in text.split("$ ")[1:] if language == "console" else ():
            command, *shown = part.rstrip("\n").split("\n")
            printed = run(shlex.split(command), f"{document}:{line}").splitlines()
            for expected in shown:
                assert expected in printed, f"{document}:{line}: {command} does not print '{expected}'"


def test_every_command_in_the_text_exists():
    """`niti COMMAND --option` within sentences."""
    options = {}
    for document in DOCUMENTS:
        for span in re.findall(r"`(niti [^`]+)`", (ROOT / document).read_text()):
            words = span.replace("\\|", "|").split("|")[0].split()
            command = words[1]
            if command.isupper() or command.startswith("--"):
                continue
            if command not in options:
                options[command] = set(re.findall(r"--[a-z-]+", output_of("help", command)))
            for word in words[2:]:
                if word.startswith("--"):
                    assert word.split("=")[0] in options[command], f"{document}: `{span}`"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / document).read_text()):
        if "://" not in target:
            assert ((ROOT / document).parent / target).exists(), f"{document}: {target}"


def test_the_program_of_the_readme_compiles_and_runs(sandbox):
    compiler = os.environ.get("CC", "cc")
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    text, = (text for language, _, text in blocks("README.md") if language == "c")
    (sandbox / "program.c").write_text(text)
    run([compiler, "-Wall", "-Werror", f"-I{ROOT}/include", "program.c", f"-L{NITI.parent}", "-lniti",
         f"-Wl,-rpath,{NITI.parent}", "-o", "program"], "README.md")
    assert re.fullmatch(r"\d+ of 20 right, hash [0-9a-f]{64}\n", run(["./program"], "README.md"))
    assert (sandbox / "runs" / "library" / "last.safetensors").exists()

"""Every command in the documents: run as it stands there, in a folder with small data sets of the names that it uses.

Block by block, in the order of the page: a block after "save this as `NAME`" becomes that file; commands of `sh` blocks run in short;
those of `console` blocks run as they are and print what the page shows. There `...` stands for any text, times and speeds are any
numbers, and lines may be left out. What is not run is listed as skipped, with a reason: programs in ELSEWHERE, and blocks with
`<!-- not run: REASON -->` on the line before.
"""
import os
import re
import shlex
import shutil
import subprocess
import typing

import numpy as np
import pytest

import data_sets
from tool import FLAGS, NITI, ROOT, SLOWER, output_of

DOCUMENTS = ["README.md", "CONTRIBUTING.md"] + sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
LANGUAGES = {"sh", "console", "text", "yaml", "c", "python", "mermaid"}
RUN_SCRIPTS = {"scripts/make_shapes.py", "scripts/idx_to_png.py"}  # those that a test may run; the others build, install or measure

# Programs whose commands are not run here: why, and what is checked instead.
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
ELSEWHERE = {
    "make": ("builds, tests, installs or measures the whole; its target is in the Makefile",
             lambda words: set(words) <= TARGETS | {word for word in words if re.fullmatch(r"[A-Z]+=\S*", word)}),
    "cmake": ("makes the build that this test is part of", lambda words: True),
    "ctest": ("runs tests that `make test` runs; they are there",
              lambda words: (ROOT / "tests" / f"{words[words.index('-R') + 1]}.c").exists()),
    "tensorboard": ("serves pages until it is stopped; tests/formats reads the events", lambda words: True),
    "python3": ("needs PyTorch; the script is there", lambda words: (ROOT / words[0]).is_file()),
}


class Block(typing.NamedTuple):
    """A block of a document: language, number of its first line, text, the file that a reader makes of it, why it is not run."""
    language: str
    line: int
    text: str
    file: str | None
    not_run: str | None


def blocks(document):
    """The blocks of a document."""
    return blocks_of((ROOT / document).read_text(), document)


def blocks_of(content, document):
    found, start, before = [], None, ""
    for number, line in enumerate(content.splitlines(), 1):
        if line.startswith("```"):
            if start is None:
                start, language, lines = number + 1, line[3:], []
            else:
                file = re.search(r"[Ss]ave\s+(?:this|it)\s+as\s+`([^`]+)`[^`]*$", before)
                reason = re.search(r"<!-- not run: (.+) -->\n$", before)
                found.append(Block(language, start, "\n".join(lines) + "\n", file and file[1], reason and reason[1]))
                start, before = None, ""
        elif start is not None:
            lines.append(line)
        else:
            before += line + "\n"
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
        for block in blocks(document):
            if block.language == "yaml" and block.text.startswith("name: "):
                (tmp_path / f"{block.text.split()[1]}.yaml").write_text(block.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NITI_DATA", str(tmp_path / "MNIST"))
    monkeypatch.setenv("PATH", f"{tmp_path}/build:{os.environ['PATH']}")
    return tmp_path


def run(command, place):
    """What a command prints, errors included; a list of words, or a line for the shell."""
    if isinstance(command, list):
        command = [os.path.expanduser(word) for word in command]
    done = subprocess.run(command, shell=isinstance(command, str), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=120 * SLOWER, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{place}: {command}: exit {done.returncode}\n{done.stdout[-3000:]}"
    return done.stdout


def bare(words):
    """A command without what may stand before the program."""
    while re.fullmatch(r"[A-Z]+=.*", words[0]):
        words = words[1:]
    return words[3:] if words[:2] == ["taskset", "-c"] else words


def why_not_run(words):
    """Why a command of an `sh` block is not run, or None."""
    program = words[0]
    if program in ELSEWHERE:
        return ELSEWHERE[program][0]
    if program.startswith(("scripts/", "bench/")) and program not in RUN_SCRIPTS:
        return "installs, tests or measures the whole; it is there"
    return None


def run_in_short(words, place):
    """A command of an `sh` block, run, or checked without running."""
    program = words[0]
    if program in ELSEWHERE:
        assert ELSEWHERE[program][1](words[1:]), f"{place}: {' '.join(words)}"
    elif why_not_run(words):
        assert os.access(ROOT / program, os.X_OK), f"{place}: {program} is no program"
    elif program in ("niti", "build/niti"):
        run(in_short(words), place)
    else:
        assert program in RUN_SCRIPTS, f"{place}: {program} is not known to this test"
        run(words, place)


def run_as_shown(line, place, monkeypatch):
    """A command of a `console` block; what it prints. `export` lasts; `make install` installs the build that is there."""
    words = shlex.split(line, comments=True)
    if words[0] == "export":
        name, value = words[1].split("=", 1)
        monkeypatch.setenv(name, run(f'printf %s "{value}"', place))
        return ""
    if words[:2] == ["make", "install"]:
        prefix, = (word.split("=", 1)[1] for word in words if word.startswith("PREFIX="))
        return run(f'cmake --install "{NITI.parent}" --prefix "{prefix}"', place)
    return run(" ".join(["cc", *FLAGS, line[3:]]) if words[0] == "cc" else line, place)


def shape(line):
    """A line without what differs from one machine or run to the next."""
    line = re.sub(r"\d+(?:\.\d+)? images/s", "# images/s", line.rstrip())
    line = re.sub(r"\b\d+(?:\.\d+)? (s|ms)\b|\b\d+m\d+s\b", "# s", line)
    return re.sub(r"\b20\d\d-\d\d-\d\d\b", "DATE", line)


def check_shown(shown, printed, place):
    """The lines shown were printed, in that order."""
    printed = iter(list(map(shape, printed)))
    for line in shown:
        pattern = re.compile(".*".join(map(re.escape, shape(line).split("..."))))
        assert any(pattern.fullmatch(other) for other in printed), f"{place}: does not print '{line}', or not in this place"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_says_its_language(document):
    for block in blocks(document):
        expected = f"{document}:{block.line}: a block of '{block.language}' (expected one of {sorted(LANGUAGES)})"
        assert block.language in LANGUAGES, expected


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_runs_and_prints_what_the_document_shows(document, sandbox, monkeypatch):
    for block in blocks(document):
        place = f"{document}:{block.line}"
        if block.not_run:
            continue
        if block.file:
            (sandbox / block.file).write_text(block.text)
        for words in commands(block.text) if block.language == "sh" else ():
            run_in_short(bare(words), place)
        console = block.text.replace("\\\n", "") if block.language == "console" else ""
        for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
            line, *shown = part.rstrip("\n").split("\n")
            printed = run_as_shown(line, place, monkeypatch).splitlines()
            check_shown([text for text in shown if text not in ("", "...")], printed, f"{place}: {line}")


def not_run():
    """(place, what, why) of every block and command that is not run."""
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.not_run:
                yield f"{document}:{block.line}", f"a block of {block.language}", block.not_run
            for words in map(bare, commands(block.text)) if block.language == "sh" and not block.not_run else ():
                if why_not_run(words):
                    yield f"{document}:{block.line}", " ".join(words), why_not_run(words)


@pytest.mark.parametrize("place, what, why", list(not_run()), ids=lambda text: text.split(" ")[0])
def test_is_not_run(place, what, why):
    """A list of them, as skipped tests."""
    pytest.skip(f"{place}: {what}: {why}")


def test_what_stands_before_a_block_is_understood():
    page = ("Save this as `a.c`, and\ncompile:\n\n```c\nint x;\n```\n"
            "<!-- not run: needs root -->\n```sh\nldconfig\n```\nIn `b.c`:\n```c\n```\n")
    assert blocks_of(page, "page") == [Block("c", 5, "int x;\n", "a.c", None), Block("sh", 9, "ldconfig\n", None, "needs root"),
                                       Block("c", 13, "\n", None, None)]


def test_what_is_shown_is_compared():
    check_shown(["a 1.5 s b", "c ..."], ["x", "a 20 s b", "y", "c d"], "here")
    for shown in (["b"], ["c", "a"], ["a 1 %"], ["a"] * 2):
        with pytest.raises(AssertionError, match="here: does not print"):
            check_shown(shown, ["a", "c", "a 2 %"], "here")


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


def test_messages_that_are_explained_are_the_tools_own():
    """The first column of the tables: what stands between `...`, for names and numbers, is in string literals of the sources."""
    sources = "\n".join(path.read_text() for folder in ("src", "cli") for path in (ROOT / folder).rglob("*.c*"))
    sources = re.sub(r'"\s*PRI\w+\s*"', "d", sources)
    literals = "\n".join(re.findall(r'"((?:[^"\\\n]|\\.)*)"', re.sub(r'"\s*\n\s*"', "", sources))).replace('\\"', '"')
    literals = re.sub(r"%(?:\.\d+)?(?:z|ll)?[a-z]", "...", literals)
    from_libyaml = "found a tab character that violates indentation, "
    text = (ROOT / "docs" / "troubleshooting.md").read_text().split("## No message")[0]
    messages = [message.strip("`") for row in re.findall(r"^\| (`.*`) \| ", text, re.MULTILINE)
                for message in re.split("`, `", row.split("` | ")[0])]
    assert len(messages) > 25
    for message in messages:
        parts = [part for words in message.replace(from_libyaml, "").split("...")
                 for part in re.split("[:;] |(?<=expected )", words) if len(part) > 9]
        assert parts, message
        for part in parts:
            assert part in literals, f"docs/troubleshooting.md: `{message}`: no message has '{part}'"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / document).read_text()):
        if "://" not in target:
            assert ((ROOT / document).parent / target).exists(), f"{document}: {target}"


def test_the_program_of_the_readme_compiles_and_runs(sandbox):
    compiler = os.environ.get("CC", "cc")
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    text, = (block.text for block in blocks("README.md") if block.language == "c")
    (sandbox / "program.c").write_text(text)
    run([compiler, *FLAGS, "-Wall", "-Werror", f"-I{ROOT}/include", "program.c", f"-L{NITI.parent}", "-lniti",
         f"-Wl,-rpath,{NITI.parent}", "-o", "program"], "README.md")
    assert re.fullmatch(r"\d+ of 20 right, hash [0-9a-f]{64}\n", run(["./program"], "README.md"))
    assert (sandbox / "runs" / "library" / "last.safetensors").exists()

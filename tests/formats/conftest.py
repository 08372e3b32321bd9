"""Files that niti's own code has written, for other people's readers. NITI_BUILD names the build folder."""
import os
import pathlib
import subprocess

import pytest


@pytest.fixture(scope="session")
def write_formats():
    """Runs the helper program of this folder: write_formats(COMMAND, PATH)."""
    program = pathlib.Path(os.environ.get("NITI_BUILD", "build")).resolve() / "tests" / "write_formats"

    def run(*arguments):
        return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture(scope="session")
def written(tmp_path_factory, write_formats):
    """The folder with one file of each format."""
    folder = tmp_path_factory.mktemp("formats")
    result = write_formats("write", folder)
    assert result.returncode == 0, result.stderr
    return folder

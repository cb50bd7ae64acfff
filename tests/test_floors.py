"""Static claims about the source."""

import ast
from pathlib import Path

import pytest

SOURCES = sorted(Path(__file__).parent.parent.glob("src/mixlab/**/*.py"))
FORBIDDEN_FUNCTIONS = {"eval", "exec", "compile"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_that_could_execute_what_it_reads(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            forbidden = FORBIDDEN_FUNCTIONS if isinstance(node.func, ast.Name) else {"extractall"}
            assert name not in forbidden, f"{path}:{node.lineno} {name}"
            assert not any(word.arg == "shell" for word in node.keywords), f"{path}:{node.lineno}"
            owner = getattr(getattr(node.func, "value", None), "id", "")
            assert (owner, name) not in {("pickle", "load"), ("pickle", "loads"), ("yaml", "load")}
            if (owner, name) == ("torch", "load"):
                assert path.stem == "foreign", f"{path}: checkpoints of others are read in one place"
                assert any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in node.keywords)
        assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}: assert is no validation"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_module_imports_its_own_packages_init(path: Path):
    package = ".".join(["mixlab", *path.relative_to(Path(__file__).parent.parent / "src/mixlab").parts[:-1]])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == package and package != "mixlab":
            names = {alias.name for alias in node.names}
            modules = {other.stem for other in path.parent.glob("*.py")}
            assert names <= modules, f"{path}:{node.lineno}"

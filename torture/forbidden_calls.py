"""S2: what may not stand in src/mixlab, looked for in its syntax trees. Each rule first catches a planted sample."""

import ast
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torture.check import ROOT, Check

PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
ALLOWED = {  # rule -> files, and why
    "pickle": {"data/cifar.py"},  # the official layout; its unpickler calls nothing (S1 shows it)
    "a broad except": {
        "benchmarking/measure.py",  # a compiler of others fails: measured without it, and said
        "comparison/workers.py",  # one variant fails: the others go on, and it is named
        "kernels/choice.py",  # Triton fails: PyTorch's kernels, with a warning
        "serving/batching.py",  # a network fails on one picture: the others get their answers, and it is said
        "serving/service.py",  # a new model fails in any way: the old one goes on, and it is said
    },
    "text taken for HTML": {"reporting/figures.py", "reporting/report.py"},  # matplotlib's SVG, our own style sheet
}


def name_of(node: ast.AST) -> str:
    """Return "os.system" for the expression os.system, and "" for what is no name."""
    if isinstance(node, ast.Attribute):
        inner = name_of(node.value)
        return f"{inner}.{node.attr}" if inner else f".{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def argument(call: ast.Call, name: str) -> object:
    """Return the constant that a keyword has, None where it is not given, ... where it is no constant."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else ...
    return None


def imports_pickle(node: ast.AST) -> bool:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    return any(name.partition(".")[0] in PICKLES for name in names)


def calls(*names: str) -> Callable[[ast.AST], bool]:
    """Return a rule against calls of these names; one that begins with "." is that of any object."""

    def found(node: ast.AST) -> bool:
        if not isinstance(node, ast.Call):
            return False
        called = name_of(node.func)
        last = f".{called.rpartition('.')[2]}" if "." in called else ""
        return called in names or last in names

    return found


def loads_any_object(node: ast.AST) -> bool:
    return calls("torch.load", "load_state_dict_from_url")(node) and argument_of(node, "weights_only") is not True


def argument_of(node: ast.AST, name: str) -> object:
    return argument(node, name) if isinstance(node, ast.Call) else None


def imports_by_variable(node: ast.AST) -> bool:
    return calls("importlib.import_module", "import_module", "__import__")(node) and not (
        isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
    )


def marks_up_text(node: ast.AST) -> bool:
    if not (calls("Markup", "markupsafe.Markup")(node) and isinstance(node, ast.Call) and node.args):
        return False
    return not isinstance(node.args[0], ast.Constant)


def catches_all(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    is_broad = node.type is None or name_of(node.type) in ("Exception", "BaseException")
    raises_again = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    return is_broad and not raises_again


RULES: dict[str, tuple[Callable[[ast.AST], bool], str]] = {  # rule -> what finds it, and a sample
    "pickle": (imports_pickle, "from pickle import loads"),
    "torch.load without weights_only": (loads_any_object, "torch.load(path, weights_only=False)"),
    "eval": (calls("eval", "builtins.eval"), "eval(text)"),
    "exec": (calls("exec", "compile", "builtins.exec"), "exec(text)"),
    "a shell": (lambda node: argument_of(node, "shell") not in (None, False), "subprocess.run(words, shell=True)"),
    "os.system": (calls("os.system", "os.popen", "subprocess.getoutput"), "os.system(words)"),
    "extractall": (calls(".extractall", "shutil.unpack_archive"), "archive.extractall(folder)"),
    "yaml.load": (calls("yaml.load", "yaml.unsafe_load", "yaml.full_load"), "yaml.load(text)"),
    "allow_pickle": (lambda node: argument_of(node, "allow_pickle") not in (None, False), "np.load(f, allow_pickle=1)"),
    "assert as validation": (lambda node: isinstance(node, ast.Assert), "assert size > 0"),
    "an import by a variable": (imports_by_variable, "importlib.import_module(name)"),
    "text taken for HTML": (marks_up_text, "Markup(f'<b>{name}</b>')"),
    "templates that do not escape": (
        lambda node: argument_of(node, "autoescape") is False,
        "Template(autoescape=False)",
    ),
    "a broad except": (catches_all, "try:\n    pass\nexcept Exception:\n    pass"),
    "mktemp": (calls("tempfile.mktemp", "mktemp"), "tempfile.mktemp()"),
}


def case(number: int, folder: Path) -> str:
    """Look for one rule in every file; in the sample first."""
    rule, (is_forbidden, sample) = list(RULES.items())[number]
    if not any(map(is_forbidden, ast.walk(ast.parse(sample)))):
        return f"{rule}: the sample is not caught"
    allowed = ALLOWED.get(rule, set())
    found = [f"{name}:{node.lineno}" for name, node in _nodes() if is_forbidden(node) and name not in allowed]
    return f"{rule} in {', '.join(found)}" if found else ""


@functools.cache
def _nodes() -> list[tuple[str, Any]]:
    """Return every node that has a line, with its file."""
    root = ROOT / "src" / "mixlab"
    files = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    nodes = ((name, node) for name, text in sorted(files.items()) for node in ast.walk(ast.parse(text)))
    return [(name, node) for name, node in nodes if hasattr(node, "lineno")]


CHECKS = [
    Check(
        name="S2",
        claim="the sources have no pickle, eval, shell, extractall or other call that runs or trusts what a file says",
        case=case,
        full=len(RULES),
        sample=len(RULES),
        quick=len(RULES),
    )
]

"""Which package may import which: the library nothing above it, evaluation no launcher, and nothing in a circle."""

import ast
import graphlib
import re

from conftest import ROOT

PACKAGES = ("rlhf_trl_ext", "evaluation", "launchers")
ABOVE = {"rlhf_trl_ext": ("evaluation", "launchers"), "evaluation": ("launchers",)}
# Groups that only launchers which measure models compose; every other group is the library's.
OF_EVALUATION = {"answer.yaml", "landscapes.yaml", "probes", "classifier"}


def modules():
    """Name -> syntax tree of every module."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text(encoding="utf-8"))


MODULES = dict(modules())


def imported(tree):
    """Names that a module imports, at its top and within functions; not those for annotations only."""
    typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    annotations = {child for block in typing for child in ast.walk(block)}
    for node in (n for n in ast.walk(tree) if n not in annotations):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def named(tree):
    """Strings that name a module (`evaluation.report`, `launchers.`): what could be imported or started by name."""
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        if re.fullmatch(r"[\w.]+\.\w*", text) and not text.endswith((".json", ".md")):  # files that launchers write
            yield text


def test_nothing_imports_what_is_above_it_and_the_library_does_not_even_name_it():
    # What a configuration may build is named where that is decided; nothing is imported by it.
    decides = "rlhf_trl_ext.configuration.trust"
    upward = [
        (module, name)
        for module, tree in MODULES.items()
        for name in [*imported(tree), *(named(tree) if module.startswith("rlhf_trl_ext") else ())]
        if name.split(".")[0] in ABOVE.get(module.split(".")[0], ())
        if not (module == decides and name not in imported(tree))
    ]
    assert not upward


def test_configurations_of_the_library_build_nothing_above_it():
    for path in (ROOT / "conf").rglob("*.yaml"):
        targets = re.findall(r"_target_:\s*([\w.]+)", path.read_text())
        if path.relative_to(ROOT / "conf").parts[0] not in OF_EVALUATION:
            assert not [name for name in targets if name.split(".")[0] in ABOVE["rlhf_trl_ext"]], path


def test_no_modules_import_each_other_in_a_circle():
    def module_of(name):
        return name if name in MODULES else name.rpartition(".")[0]

    graph = {module: {module_of(name) for name in imported(tree)} & set(MODULES) for module, tree in MODULES.items()}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names a circle
    assert set(order) == set(MODULES)

"""Digests of the source code that a result depends on; imports are followed without running any module."""

import ast
import functools
import hashlib
import importlib.machinery
import sys
from collections.abc import Iterator
from pathlib import Path

OWN = "rlhf_trl_ext"
INSTALLED = ("site-packages", "dist-packages")


def source(*modules: str, aside: tuple[str, ...] = ()) -> dict[str, str]:
    """Module -> SHA-256 of its file, for modules outside installed packages and, again, all that these import.

    This project's own modules count wherever it is installed, but for its `__init__.py` files, which hold no code that
    decides. aside: own modules, or packages with all below, that are not followed.
    """
    hashes: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in hashes or any(module == name or module.startswith(f"{name}.") for name in aside):
            continue
        file = locate(module)
        if file is None or is_installed(module, file):
            continue
        package = file.name == "__init__.py"
        if package and module.partition(".")[0] == OWN:
            continue
        hashes[module] = hashlib.sha256(file.read_bytes()).hexdigest()
        if file.suffix == ".py":
            waiting += imported(file, module if package else module.rpartition(".")[0])
        waiting += [module.rpartition(".")[0]] if "." in module else []
    return dict(sorted(hashes.items()))


def module_of(name: str) -> str | None:
    """The module that a dotted name leads into, the name itself or the longest beginning of it; None: there is none."""
    while name:
        if locate(name) is not None:
            return name
        name = name.rpartition(".")[0]
    return None


def locate(module: str) -> Path | None:
    """The file of a module, `__init__.py` of a package; None for one without a file. Nothing is imported."""
    if module == "__main__":
        file = getattr(sys.modules["__main__"], "__file__", None)
        return Path(file) if file else None
    if not module or module.partition(".")[0] in sys.stdlib_module_names:
        return None
    spec, search = None, None
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        spec = _spec(".".join(parts[:count]), search)
        if spec is None:
            return None
        search = spec.submodule_search_locations
        if count < len(parts) and search is None:
            return None
    return Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else None


def _spec(name: str, search) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        spec = finder.find_spec(name, search) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    return None


def is_installed(module: str, file: Path) -> bool:
    """Whether a module belongs to an installed package, which is known by its version, not by its source."""
    return module.partition(".")[0] != OWN and bool(set(INSTALLED) & set(file.parts))


def imported(file: Path, package: str) -> list[str]:
    """Names that a file imports, anywhere in it, relative ones resolved in its package."""
    stat = file.stat()
    return [
        ".".join(filter(None, (_above(package, level), name))) if level else name
        for level, name in _imports(str(file), stat.st_mtime_ns, stat.st_size)
    ]


def _above(package: str, level: int) -> str:
    return package if level == 1 else package.rsplit(".", level - 1)[0]


@functools.lru_cache(maxsize=4096)
def _imports(file: str, changed: int, size: int) -> tuple[tuple[int, str], ...]:
    return tuple(_names(_parsed(file, changed, size)))


@functools.lru_cache(maxsize=256)
def _parsed(file: str, changed: int, size: int) -> ast.Module:
    try:
        return ast.parse(Path(file).read_bytes())
    except SyntaxError:
        return ast.Module([], [])  # whoever imports it is told


def _names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(level, dotted name) of every import; level as in `ast.ImportFrom`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.level, node.module
            yield from ((node.level, ".".join(filter(None, (node.module, alias.name)))) for alias in node.names)


def string_defaults(target: str) -> dict[str, str]:
    """Parameters of a class or function, by dotted name, whose default is a text: name -> default."""
    module, _, name = target.rpartition(".")
    file = locate(module)
    if file is None or file.suffix != ".py":
        return {}
    stat = file.stat()
    body = _parsed(str(file), stat.st_mtime_ns, stat.st_size).body
    node = next((n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name), None)
    fields = {}
    if isinstance(node, ast.ClassDef):
        annotated = (n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name))
        fields = {n.target.id: n.value for n in annotated}
        node = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if node is not None:
        positional = [*node.args.posonlyargs, *node.args.args]
        defaults = node.args.defaults
        pairs = [*zip(positional[len(positional) - len(defaults) :], defaults, strict=True)]
        fields = {argument.arg: value for argument, value in pairs}
        fields |= {a.arg: v for a, v in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)}
    return {k: v.value for k, v in fields.items() if isinstance(v, ast.Constant) and isinstance(v.value, str)}

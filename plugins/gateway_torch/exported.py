"""Read and check a program of torch.export, which is JSON that PyTorch makes Python of.

PyTorch evaluates some of the texts in such a file, looks names up, and writes others into source code that it runs. So
every text in it has to be of a form that is known to be harmless, by the place where it is; all else is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway_tensors.types import Dim, Type, Value

from .archives import Archive

MODEL = "models/model.json"
MOST = 256 << 20  # bytes of the JSON: a large model has some ten megabytes
DEEPEST = 200  # levels of the JSON
LONGEST = 60  # characters of a text in a message
# Files of an archive. Whatever else is in one is code, or a pickle.
FILES = re.compile(
    r"archive_(format|version)|byteorder|(\.data/)?(version|serialization_id)|models/model\.json|extra/.*"
    r"|data/(weights/(weight_\d+|model_weights_config\.json)|constants/(tensor_\d+|model_constants_config\.json)"
    r"|sample_inputs/model\.pt)"
)
# torch.export's ScalarType, with NumPy's names.
ELEMENTS = dict(
    zip((1, 2, 3, 4, 5, 6, 7, 8, 12), "uint8 int8 int16 int32 int64 float16 float32 float64 bool".split(), strict=True)
)
ELEMENTS |= {13: "float32", 28: "uint16", 34: "uint32", 35: "uint64"}  # bfloat16, which NumPy lacks, is sent as float32
BFLOAT16 = 13

NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*|")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
HIGHER = "cond while_loop scan map_impl associative_scan wrap_with_set_grad_enabled wrap_with_autocast".split()
SYMBOLIC = "sym_int sym_float sym_ite sym_max sym_min sym_not sym_sum sym_sqrt _sym_sqrt sym_fresh_size".split()
DUNDER = r"__(and|or|xor|lshift|rshift|iand|ior|ixor|ilshift|irshift)__"
TARGET = re.compile(
    rf"torch\.ops\.aten\.((?!__)[A-Za-z_]\w*|{DUNDER})\.[A-Za-z]\w*"
    rf"|torch\.ops\.higher_order\.({'|'.join(HIGHER)})|torch\.({'|'.join(SYMBOLIC)})"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|xor|getitem|abs)"
    r"|math\.(ceil|floor|trunc|sqrt|log|log2|exp|pow)",
    re.ASCII,
)
DIVISION = re.compile(
    r"torch\.ops\.aten\.(div|divide)_?\.(Tensor|Scalar)_mode"
)  # one of whole numbers may end the process
REACHES_OUT = re.compile(r"torch\.ops\.aten\.(from_file|save)\b")  # a file of the machine
# An expression of lengths: numbers, symbols such as s77, and functions, as SymPy writes them.
SYMBOL = re.compile(r"Symbol\('[a-z]{1,9}\d{1,9}'")
WORDS = frozenset(
    "Symbol positive nonnegative nonzero integer real negative True False Integer Rational Float Add Mul Pow Max Min "
    "Abs Eq Ne Lt Le Gt Ge Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan And Or Not Xor "
    "FloorDiv ModularIndexing Where PythonMod Mod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural "
    "FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt RoundToInt "
    "RoundDecimal ToFloat Identity floor ceiling precision evaluate int_oo oo".split()
)
EXPRESSION = re.compile(
    r"(?:[ ,()=+\-*/%<>&|~]|\d{1,20}(\.\d{1,20}(e[+-]?\d{1,3})?)?(?!\w)|(?<![\w.])[A-Za-z_]\w*)*", re.A
)
LONGEST_EXPRESSION = 10_000
SPECS = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
KEY = re.compile(r"[\w .:/-]{0,200}")
FREE = frozenset({"as_string", "as_strings", "guards_code", "metadata", "torch_version"})


@dataclass(frozen=True, slots=True)
class Input:
    """One leaf of the arguments, in order. `value` is that of a constant, which a request does not send."""

    name: str
    type: Type | None = None
    value: Any = None
    is_brain: bool = False  # bfloat16
    is_number: bool = False  # a length or another number instead of a tensor


@dataclass(frozen=True, slots=True)
class Program:
    inputs: tuple[Input, ...]
    outputs: tuple[Value, ...]  # by the names that an answer has if the options give none
    devices: frozenset[str]
    divides: bool

    @property
    def values(self) -> list[Value]:
        return [Value(each.name, each.type) for each in self.inputs if each.type is not None]


def read_program(archive: Archive, most: int = MOST) -> Program:
    """Return what a program takes and answers, after every text in it has been checked.

    Raises:
        OSError: a file in it is missing, or too large.
        ValueError: it is damaged, or more than a computation; why.
    """
    _check_files(archive)
    for kind in ("weights", "constants"):
        _check_payloads(kind, _json(archive, f"data/{kind}/model_{kind}_config.json", most))
    found = _json(archive, MODEL, most)
    _check_texts(found)
    try:
        return _program(found)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"its graph is not as PyTorch 2.13 writes it ({type(error).__name__}: {error})") from error


def _check_files(archive: Archive) -> None:
    if MODEL not in archive.sizes:
        old = "serialized_exported_program.json" in archive.sizes
        what = "PyTorch older than 2.8 saved it" if old else f"it has no {MODEL}"
        raise ValueError(f"{what}: save it with torch.export.save of PyTorch 2.13")
    for name in archive.sizes:
        if FILES.fullmatch(name):
            continue
        what = f"it has {name[:LONGEST]!a}"
        if name.startswith("data/aotinductor"):
            raise ValueError(f"{what}, compiled code of AOTInductor: save the program itself with torch.export.save")
        raise ValueError(f"{what}, which may be a pickle or code: save it with torch.export.save of PyTorch 2.13")


def _json(archive: Archive, name: str, most: int) -> Any:
    try:
        return json.loads(archive.read(name, most))
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply") from error


def _check_payloads(kind: str, found: Any) -> None:
    """Check the list of weights: their numbers are beside the program, not in a pickle."""
    pattern = re.compile(r"weight_\d+" if kind == "weights" else r"tensor_\d+")
    entries = found.get("config") if isinstance(found, dict) else None
    if not isinstance(entries, dict):
        raise ValueError(f"its list of {kind} is damaged")
    for name, entry in entries.items():
        if not isinstance(entry, dict) or not pattern.fullmatch(str(entry.get("path_name"))):
            raise ValueError(f"{name[:LONGEST]!a} is an object, not a tensor, and that would be a pickle")
        if entry.get("use_pickle") is not False:
            what = f"the tensor {name[:LONGEST]!a} is in a pickle, as those of classes of their own are"
            raise ValueError(f"{what}: export the model with plain tensors")
        if not NAME.fullmatch(name):
            raise ValueError(f"a tensor is called {name[:LONGEST]!a}")


# ── texts ──


def _check_texts(found: Any) -> None:
    for key, text in _texts(found, ""):
        if key == "expr_str":
            _check_expression(text)
        elif key in ("target", "as_operator"):
            _check_target(text)
        elif key in ("in_spec", "out_spec"):
            _check_spec(text, is_input=key == "in_spec")
        elif key == "forward_arg_names":
            if not IDENTIFIER.fullmatch(text):
                raise _refused("a name of an argument", text)
        elif not NAME.fullmatch(text):
            raise _refused("a name", text)


def _refused(what: str, text: str) -> ValueError:
    return ValueError(f"{what} in it is {text[:LONGEST]!a}, which could be code")


def _texts(found: Any, key: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield each text with the key that it is below; the keys of objects too, as names.

    What is below a key in FREE may be any text, and nothing but texts: constants of operators, notes that are only
    kept, and "guards_code", which is not used.
    """
    if depth > DEEPEST:
        raise ValueError("its JSON is nested too deeply")
    if isinstance(found, str):
        yield key, found
    elif isinstance(found, list):
        for each in found:
            yield from _texts(each, key, depth + 1)
    elif isinstance(found, dict):
        for name, each in found.items():
            yield "", name
            if name not in FREE:
                yield from _texts(each, name, depth + 1)
            elif not _is_text(each):
                raise ValueError(f"its {name} is damaged")


def _is_text(found: Any) -> bool:
    if isinstance(found, str):
        return True
    parts = found.values() if isinstance(found, dict) else found if isinstance(found, list) else (None,)
    return all(isinstance(each, str) for each in parts)


def _check_target(text: str) -> None:
    if REACHES_OUT.match(text):
        raise ValueError(f"its operator {text} opens a file of this machine")
    if not TARGET.fullmatch(text):
        what = f"its operator {text[:LONGEST]!a} is not one of PyTorch's own (torch.ops.aten), so it may be code"
        raise ValueError(f"{what}: export the model without it, or write a model.py that loads it")


def _check_expression(text: str) -> None:
    bare = SYMBOL.sub("Symbol(s0", text[:LONGEST_EXPRESSION])
    if len(text) > LONGEST_EXPRESSION or not EXPRESSION.fullmatch(bare):
        raise _refused("an expression", text)
    for word in re.findall(r"(?<![\w.])[A-Za-z_]\w*", bare):
        if word not in WORDS and not re.fullmatch(r"[a-z]{1,9}\d{1,9}", word):
            raise _refused("an expression", text)


def _check_spec(text: str, *, is_input: bool) -> None:
    """Check how arguments or results are nested: in lists, tuples and dictionaries, which PyTorch would import."""
    key = IDENTIFIER if is_input else KEY

    def check(found: Any, depth: int = 0) -> None:
        if not isinstance(found, dict) or found.get("type") not in SPECS or depth > 20:
            kind = found.get("type") if isinstance(found, dict) else found
            what = f"its arguments or results have objects of {str(kind)[:LONGEST]!a}"
            raise ValueError(f"{what}: export the model with lists, tuples and dictionaries only")
        context = json.loads(found["context"]) if isinstance(found.get("context"), str) else found.get("context")
        keys = context or []
        if not isinstance(keys, list) or not all(isinstance(each, str) and key.fullmatch(each) for each in keys):
            raise ValueError(f"its dictionaries have keys that are not plain texts: {str(context)[:LONGEST]!a}")
        for each in found.get("children_spec", ()):
            check(each, depth + 1)

    found = json.loads(text)
    if not isinstance(found, list) or len(found) != 2:
        raise ValueError("its arguments are described in another way")
    check(found[1])


# ── what it takes and answers ──


def _program(found: Mapping[str, Any]) -> Program:
    module = found["graph_module"]
    graph, signature = module["graph"], module["signature"]
    tensors = graph["tensor_values"]
    inputs = tuple(_inputs(signature["input_specs"], graph))
    for each in inputs:
        if each.type is not None and each.type.kind != "tensor":
            raise ValueError(f"its input {each.name} is a {each.type}, which JSON cannot have")
    main = next(each for each in module["module_call_graph"] if each["fqn"] == "")
    leaves = [_result(next(iter(each["user_output"]["arg"].items())), graph) for each in signature["output_specs"]
              if "user_output" in each]  # fmt: skip
    spec = json.loads(main["signature"]["out_spec"])[1]
    targets = [node["target"] for node in graph["nodes"]]
    return Program(
        inputs,
        tuple(_outputs(spec, leaves)),
        frozenset(each["device"]["type"] for each in tensors.values()),
        any(DIVISION.fullmatch(target) for target in targets),
    )


def _inputs(specs: Sequence[Mapping[str, Any]], graph: Mapping[str, Any]) -> Iterator[Input]:
    for number, spec in enumerate(specs):
        if "constant_input" in spec:
            (value,) = spec["constant_input"]["value"].values() or (None,)
            yield Input(
                spec["constant_input"]["name"], value=None if "as_none" in spec["constant_input"]["value"] else value
            )
        elif "user_input" in spec:
            ((kind, value),) = spec["user_input"]["arg"].items()
            if kind == "as_tensor":
                meta = graph["tensor_values"][value["name"]]
                yield Input(value["name"], _tensor(meta), is_brain=meta["dtype"] == BFLOAT16)
            elif kind in ("as_sym_int", "as_sym_float"):
                element = "int64" if kind == "as_sym_int" else "float64"
                yield Input(value["as_name"], Type("tensor", element, ()), is_number=True)
            elif kind in ("as_int", "as_float", "as_bool", "as_string", "as_none"):
                yield Input(f"{number}", value=None if kind == "as_none" else value)
            else:
                raise ValueError(f"one of its inputs is a {kind.removeprefix('as_')}, which JSON cannot have")


def _tensor(meta: Mapping[str, Any]) -> Type:
    element = ELEMENTS.get(meta["dtype"])
    if element is None:
        return Type(f"tensor of the type {meta['dtype']} of torch.export")
    return Type("tensor", element, tuple(_dim(each) for each in meta["sizes"]))


def _dim(size: Mapping[str, Any]) -> Dim:
    """Return a length, or the symbol that stands for it; None for what is computed of others."""
    if "as_int" in size:
        return int(size["as_int"])
    found = re.match(r"Symbol\('(\w+)'[^()]*\)$", size["as_expr"]["expr_str"])
    return found[1] if found else None


def _result(arg: tuple[str, Any], graph: Mapping[str, Any]) -> Type:
    kind, value = arg
    if kind == "as_tensor":
        return _tensor(graph["tensor_values"][value["name"]])
    numbers = {
        "as_int": "int64",
        "as_sym_int": "int64",
        "as_float": "float64",
        "as_bool": "bool",
        "as_string": "string",
    }
    return Type("tensor", numbers[kind], ()) if kind in numbers else Type()


def _outputs(spec: Mapping[str, Any], leaves: list[Type]) -> Iterator[Value]:
    """Yield the parts of a result by the names that an answer has, see `gateway_torch.results`."""
    rest = iter(leaves)

    def typed(part: Mapping[str, Any]) -> Type:
        if part["type"] is None:
            return next(rest)
        inner = [typed(each) for each in part["children_spec"]]
        is_list = part["type"] in ("builtins.tuple", "builtins.list")
        if not is_list:
            return Type("object")
        return Type("sequence", inner=inner[0]) if len(set(inner)) == 1 else Type("values")

    if spec["type"] is None:
        yield Value("output", next(rest))
        return
    context = json.loads(spec["context"]) if spec["type"] not in ("builtins.tuple", "builtins.list") else None
    names = context or [f"output_{place}" for place in range(len(spec["children_spec"]))]
    for name, part in zip(names, spec["children_spec"], strict=True):
        yield Value(name, typed(part))

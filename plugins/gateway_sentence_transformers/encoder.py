"""The tokenizer and the network of a sentence-transformers model, without the other work of its `encode`.

`Encoder` tokenizes texts as an `Ask` requires, and computes vectors from tokens, with the same values as the library's
`encode`, `encode_query` and `encode_document`. `gateway_embedding_batches` decides which texts share a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from gateway_embedding_batches import Shape
from gateway_embedding_fields import WHOLE, Ask, Task
from gateway_fields import unsupported

from gateway import BadRequest

PROBE = ["a", "a longer text"]
RAW = "before_normalize"  # our name for it among the features

# all-MiniLM-L6-v2 on one core: a pass of 32 tokens runs at 2,800 tokens/s, of 128 at 5,500, of 512 and 2,048 at 7,000;
# small passes also let callers send new requests while the next pass runs.
CPU = Shape(budget=512, overhead=64, window=64)
# Not measured: launching the kernels of a pass takes milliseconds, in which a GPU computes thousands of tokens.
GPU = Shape(budget=16_384, overhead=2_048, window=1_024)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenized text: its rows of the network's input matrices, or the text if there are no such matrices."""

    count: int
    rows: Mapping[str, Any] | str
    ask: Ask
    kind: Hashable = None  # texts of one kind may share a pass
    constants: Mapping[str, Any] | None = None  # other inputs of a pass of this kind
    limit: int | None = None  # set if the text is longer than this, and may not be cut


@dataclass(frozen=True, slots=True)
class Way:
    """How texts of one task are processed; a Router sends queries and documents through different modules."""

    has_rows: bool  # static embeddings and flattened input have no matrix of texts by tokens: they are prepared again
    side: str
    padding: Mapping[str, Any]  # by name of the matrix
    limit: int | None  # tokens that it reads, including the prompt
    dimensions: int


def _size(features: Mapping[str, Any], text: str) -> int:
    """Return the tokens of a text; for a model that does not tokenize, such as a bag of words, its words."""
    ids = features.get("input_ids")
    return len(text.split()) if ids is None else int(ids.numel())


class Encoder:
    """Tokenizes and computes separately.

    So the true lengths are known, and texts of similar length share a pass: with lengths between 7 and 42 tokens, this
    computes 1.3 times as many texts as the library's `encode` in batches of 32.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.prompts: Mapping[str, str] = dict(model.prompts)
        default = model.default_prompt_name  # "" is a valid name
        self.default_prompt = None if default is None else self.prompts.get(default)
        self.routes = any(type(module).__name__ == "Router" for module in model.modules())
        self.shape = CPU if model.device.type == "cpu" else GPU
        tokenizers = (getattr(module, "tokenizer", None) for module in model.modules())
        self.cutters = list({id(each): each for each in tokenizers if hasattr(each, "truncation_side")}.values())
        for module in _last(model):
            if type(module).__name__ == "Normalize":
                module.register_forward_pre_hook(_keep_raw)
        self.ways = {task: way for task in (None, "query", "document") if (way := self._way(task))}
        way = next(iter(self.ways.values()))
        self.dimensions, self.max_tokens = way.dimensions, way.limit

    def _way(self, task: Task) -> Way | None:
        """Return how texts of a task are processed; None if the model has no modules for it."""
        from torch import Tensor

        try:
            probe = self._preprocess(PROBE, self.default_prompt, task)
            tensors = {name: value for name, value in probe.items() if isinstance(value, Tensor)}
            has_rows = "attention_mask" in tensors and len({tuple(value.shape) for value in tensors.values()}) == 1
            side, padding = "right", dict.fromkeys(tensors, 0)
            if has_rows and (places := (tensors["attention_mask"][0] == 0).nonzero().flatten().tolist()):
                side = "left" if places[0] == 0 else "right"
                padding = {name: value[0, places[0]].item() for name, value in tensors.items()}
            with _computing():
                dimensions = self.model(self._to_device(probe), **_of(task))["sentence_embedding"].shape[1]
            if self.model.truncate_dim:
                dimensions = min(dimensions, self.model.truncate_dim)
            return Way(has_rows, side, padding, self._limit(task), dimensions)
        except (TypeError, ValueError):
            if self.routes:
                return None
            raise

    def _limit(self, task: Task) -> int | None:
        """Return how many tokens the model reads, measured with a text that is certainly longer."""
        said = (getattr(module, "max_seq_length", None) for module in self.model.modules())
        # A static embedding reports infinity, and the tokenizer of a model without a limit 1e30.
        most = max((int(length) for length in said if length and length < 1e9), default=None)
        if most is None:
            return None
        text = "z1 " * (most + 8)
        limit = self._count(text, task, None)
        return limit if limit <= most and self._count(text, task, limit + 1) == limit + 1 else None

    def _count(self, text: str, task: Task, width: int | None) -> int:
        return self._preprocess([text], None, task, width)["input_ids"].numel()

    # ── texts to tokens ──

    def tokenize(self, texts: Sequence[str], ask: Ask) -> list[Tokens]:
        """Return the tokens of each text. A text that is too long, and may not be cut, has its `limit` set.

        Raises:
            BadRequest: the model does not support the request.
        """
        way = self._find(ask)
        width = way.limit if ask.keep == WHOLE else ask.keep
        if ask.keep is None and way.limit is not None:
            width = way.limit + 1  # enough to detect that a text is too long
        if ask.side == "left" and ask.keep is not None and width is not None:
            found = [self._cut_in_front(text, way, ask, width) for text in texts]
        elif way.has_rows:
            with self._cutting(ask.side):
                found = self._rows(self._preprocess(texts, ask.prompt, ask.task, width), way, ask)
        else:
            alone = (_size(self._preprocess([text], ask.prompt, ask.task, width), text) for text in texts)
            kind = (ask.task, ask.prompt, ask.keep)
            found = [Tokens(count, text, ask, kind) for count, text in zip(alone, texts, strict=True)]
        return [_checked(tokens, way, ask, width) for tokens in found]

    def _find(self, ask: Ask) -> Way:
        way = self.ways.get(ask.task)
        if way is None:
            have = ", ".join(task for task in self.ways if task)
            if ask.task is not None:
                raise unsupported(f"this model has no modules for input_type {ask.task} (have: {have})", "input_type")
            raise unsupported(f"this model needs input_type to be one of: {have}", "input_type")
        if ask.keep is not None and ask.keep != WHOLE:
            if way.limit is None:
                raise unsupported("this model's tokenizer cannot cut a text", "truncate_prompt_tokens")
            if ask.keep > way.limit:
                what = f"truncate_prompt_tokens is {ask.keep}, but this model reads at most {way.limit} tokens"
                raise BadRequest(what, param="truncate_prompt_tokens")
        return way

    def _rows(self, features: Mapping[str, Any], way: Way, ask: Ask) -> list[Tokens]:
        counts = features["attention_mask"].sum(1).tolist()
        constants = {name: value for name, value in features.items() if name not in way.padding}
        kind = (ask.task, repr(sorted(constants.items())))
        cut: Callable[[Any, int], Any] = _first if way.side == "right" else _last_of
        return [
            Tokens(n, {name: cut(features[name][i], n) for name in way.padding}, ask, kind, constants)
            for i, n in enumerate(counts)
        ]

    def _cut_in_front(self, text: str, way: Way, ask: Ask, width: int) -> Tokens:
        """Return the end of a text that is too long, after its prompt."""
        from torch import Tensor, cat

        if not way.has_rows:
            raise unsupported("this model cuts a text at its end only", "truncation_side")
        if not ask.prompt:
            with self._cutting("left"):
                return self._rows(self._preprocess([text], None, ask.task, width), way, ask)[0]
        features = self._preprocess([text], ask.prompt, ask.task, cut=False)
        if (size := features["input_ids"].shape[1]) > width:
            head = features.get("prompt_length")
            if head is None or head >= width:
                raise BadRequest("the prompt leaves no room for the text", param="truncate_prompt_tokens")
            for name, value in features.items():
                if isinstance(value, Tensor):
                    features[name] = cat([value[:, :head], value[:, size - width + head :]], 1)
        return self._rows(features, way, ask)[0]

    @contextmanager
    def _cutting(self, side: str | None) -> Iterator[None]:
        """Let the tokenizers truncate on that side; all their users are on one thread."""
        before = [tokenizer.truncation_side for tokenizer in self.cutters]
        try:
            for tokenizer in self.cutters if side else ():
                tokenizer.truncation_side = side
            yield
        finally:
            for tokenizer, old in zip(self.cutters, before, strict=True):
                tokenizer.truncation_side = old

    def _preprocess(
        self, texts: Sequence[str], prompt: str | None, task: Task, width: int | None = None, *, cut: bool = True
    ) -> dict[str, Any]:
        kwargs: dict[str, Any] = _of(task)
        if width is not None or not cut:
            kwargs["processing_kwargs"] = {"text": {"max_length": width} if cut else {"truncation": False}}
        features: dict[str, Any] = self.model.preprocess(list(texts), prompt=prompt, **kwargs)
        return features

    # ── tokens to vectors ──

    def encode(self, batch: Sequence[Tokens]) -> Any:
        """Compute one pass over tokens of one kind; return a float32 array with a row for each text."""
        from sentence_transformers.util import truncate_embeddings
        from torch.nn.functional import normalize

        with _computing():
            found = self.model(self._to_device(self._features(batch)), **_of(batch[0].ask.task))
            vectors = found["sentence_embedding"]
            vectors = _mixed(vectors, found.get(RAW, vectors), batch, wish=False)
            if self.model.truncate_dim is not None:
                vectors = truncate_embeddings(vectors, self.model.truncate_dim)
            if any(tokens.ask.normalize for tokens in batch):
                vectors = _mixed(vectors, normalize(vectors, p=2, dim=1), batch, wish=True)
            return vectors.float().cpu().numpy()

    def _features(self, batch: Sequence[Tokens]) -> dict[str, Any]:
        from torch.nn.utils.rnn import pad_sequence

        ask = batch[0].ask
        way = self.ways[ask.task]
        if not way.has_rows:
            width = ask.keep if ask.keep not in (None, WHOLE) else None
            return self._preprocess([str(tokens.rows) for tokens in batch], ask.prompt, ask.task, width)
        features = dict(batch[0].constants or {})
        for name, value in way.padding.items():
            rows = [tokens.rows[name] for tokens in batch]
            features[name] = pad_sequence(rows, batch_first=True, padding_value=value, padding_side=way.side)
        return features

    def _to_device(self, features: dict[str, Any]) -> dict[str, Any]:
        from sentence_transformers.util import batch_to_device

        moved: dict[str, Any] = batch_to_device(features, self.model.device)
        return moved


def _checked(tokens: Tokens, way: Way, ask: Ask, width: int | None) -> Tokens:
    if width is None or tokens.count < width or (ask.keep is not None and tokens.count == width):
        return tokens
    if ask.keep is None:
        return replace(tokens, limit=way.limit)
    # The tokenizer adds its own tokens, and does not truncate if not even they would fit.
    what = "truncate_prompt_tokens leaves no room for a text: send a larger number"
    raise BadRequest(what, param="truncate_prompt_tokens")


def _computing() -> Any:
    import torch

    return torch.inference_mode()


def _of(task: Task) -> dict[str, Any]:
    """Return the arguments that the library's own `encode_query` and `encode_document` pass."""
    return {} if task is None else {"task": task}


def _last(modules: Any) -> Iterator[Any]:
    """Yield the modules that output the vectors: the last one, or the last of each route."""
    last = modules[-1]
    routes = getattr(last, "sub_modules", None)
    if routes is None:
        yield last
    else:
        for route in routes.values():
            yield from _last(route)


def _keep_raw(module: Any, args: tuple[Any, ...]) -> None:
    if getattr(module, "module_output_name", "sentence_embedding") == "sentence_embedding":
        args[0][RAW] = args[0][getattr(module, "module_input_name", "sentence_embedding")]


def _mixed(vectors: Any, others: Any, batch: Sequence[Tokens], *, wish: bool) -> Any:
    """Return the vectors, replaced by `others` for requests with this value of `normalize`."""
    rows = [place for place, tokens in enumerate(batch) if tokens.ask.normalize is wish]
    if not rows or others is vectors:
        return vectors
    mixed = vectors.clone()
    mixed[rows] = others[rows]
    return mixed


def _first(row: Any, count: int) -> Any:
    return row[:count]


def _last_of(row: Any, count: int) -> Any:
    return row[len(row) - count :]

"""Train tiny-chat: a language model small enough to commit, whose greedy answers are known beforehand.

Writes an ordinary checkpoint folder, and `examples.jsonl` with some of the questions and their exact answers. Ends by
asking every question of every family; exits with 1 unless all answers are exact.

    OMP_NUM_THREADS=1 python models/tiny-chat/train.py

What is asked lies in `questions.py`; how it becomes text is decided by `chat_template.jinja` alone.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from questions import Case, completions, draw_conversation, families
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = Path(__file__).resolve().parent / "chat_template.jinja"
VOCABULARY = 512
CONTEXT = 1024
LONGEST = 512  # tokens of a training text: a count to 100 fits, and so do three offered tools with a few calls
BATCH = 2048  # tokens, padding included; the double in half as many steps learns less
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
# What the model writes in a turn: all of it, or what follows the empty think block that the prompt ends with.
ANSWER = re.compile(r"(?<=<\|im_start\|>assistant\n)(?:<think>\n\n</think>\n\n)?(.*?<\|im_end\|>)", re.DOTALL)


def make_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that every text can be encoded. Blanks and digits stand alone: a word has the same tokens
    wherever it is, which makes repeating it a matter of copying."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|\s|[^\p{L}\p{N}\s]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TAGS),
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    markup = re.compile("|".join(map(re.escape, SPECIAL + TAGS)))
    bpe.train_from_iterator((markup.split(text) for text in texts), trainer)
    # Not special: whoever decodes an answer without special tokens still wants to see where a call begins.
    bpe.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE.read_text(),
    )


def render(tokenizer: PreTrainedTokenizerFast, case: Case, **options: Any) -> str:
    options["enable_thinking"] = case.get("enable_thinking", False)
    return tokenizer.apply_chat_template(case["messages"], tools=case.get("tools"), tokenize=False, **options)


def question_and_answer(tokenizer: PreTrainedTokenizerFast, case: Case) -> tuple[str, str]:
    asked = {**case, "messages": case["messages"][:-1]}
    prompt = render(tokenizer, asked, add_generation_prompt=True)
    whole = render(tokenizer, case)
    assert whole.startswith(prompt), "the template renders an answer differently from its generation prompt"
    return prompt, whole.removeprefix(prompt).removesuffix("<|im_end|>\n")


def draw_text(rng: Random, tokenizer: PreTrainedTokenizerFast) -> tuple[str, list[tuple[int, int]]]:
    """A text to train on, and the spans in it that the model is to write itself."""
    if rng.random() < 0.05:
        prompt, answer = rng.choice(list(completions().items()))
        text = f"{prompt}{answer}<|im_end|>"
        return text, [(len(prompt), len(text))]
    text = render(tokenizer, draw_conversation(rng))
    return text, [found.span(1) for found in ANSWER.finditer(text)]


def encode(tokenizer: PreTrainedTokenizerFast, text: str, spans: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Token ids, and the labels: the same ids inside the spans, -100 (what the loss ignores) outside."""
    pieces, at = [], 0
    for start, end in spans:
        pieces += [(text[at:start], False), (text[start:end], True)]
        at = end
    ids, labels = [], []
    for piece, counts in pieces:
        new = tokenizer.backend_tokenizer.encode(piece, add_special_tokens=False).ids
        ids += new
        labels += new if counts else [-100] * len(new)
    return ids, labels


def batches(rng: Random, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of texts of about the same length, so that little of a batch is padding."""
    while True:
        encoded = [encode(tokenizer, *draw_text(rng, tokenizer)) for _ in range(400)]
        encoded = sorted((pair for pair in encoded if len(pair[0]) <= LONGEST), key=lambda pair: len(pair[0]))
        groups: list[list[tuple[list[int], list[int]]]] = [[]]
        for pair in encoded:
            if len(pair[0]) * (len(groups[-1]) + 1) > BATCH:
                groups.append([])
            groups[-1].append(pair)
        rng.shuffle(groups)
        for group in groups:
            width = len(group[-1][0])
            ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in group])
            labels = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in group])
            yield ids, labels


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.08,  # about 1 / sqrt(hidden_size); with the usual 0.02 it takes many times the steps
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int) -> None:
    """Muon for the matrices, AdamW for the embeddings and the norms: half the steps that AdamW alone takes."""
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=0.015, weight_decay=0.01),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    warm, least = 40, 0.01
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / warm, max(1 - step / steps, least)))
        for optimizer in optimizers
    ]
    model.train()
    began, running = time.process_time(), 0.0
    for step, (ids, labels) in zip(range(1, steps + 1), batches(Random(0), tokenizer), strict=False):
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
        counted = labels[:, 1:] != -100
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[counted]), labels[:, 1:][counted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        running += loss.item()
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {running / 100:.4f}, {time.process_time() - began:.0f} s", flush=True)
            running = 0.0


@torch.inference_mode()
def answers(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> list[str]:
    """Greedy answers, in the order of the prompts."""
    model.eval()
    written = {}
    ordered = sorted(set(prompts), key=len)
    for at in range(0, len(ordered), 32):
        some = ordered[at : at + 32]
        inputs = tokenizer(some, return_tensors="pt", padding=True)
        output = model.generate(**inputs, max_new_tokens=320, do_sample=False)
        new = output[:, inputs["input_ids"].shape[1] :]
        written |= zip(some, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True)
    return [written[prompt] for prompt in prompts]


def evaluate(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> bool:
    """Print how many answers of each family are exact; True if all are."""
    asked = {family: [question_and_answer(tokenizer, case) for case in cases] for family, cases in families().items()}
    asked["completions"] = list(completions().items())
    perfect = True
    for family, pairs in asked.items():
        given = answers(model, tokenizer, [prompt for prompt, _ in pairs])
        wrong = [(pair, got) for pair, got in zip(pairs, given, strict=True) if pair[1] != got]
        print(f"{family}: {len(pairs) - len(wrong)} of {len(pairs)} exact", flush=True)
        for (prompt, expected), got in wrong[:3]:
            print(f"    {prompt[-90:]!r} -> {got[:200]!r}, expected {expected!r}")
        perfect = perfect and not wrong
    return perfect


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # The name that every version of transformers knows; this one would write its own.
    config = folder / "tokenizer_config.json"
    known = json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    config.write_text(json.dumps(known, indent=2) + "\n")


def write_examples(tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """Some questions of each family, a line each: the arguments of the template, and the answer."""
    lines = []
    for family, cases in families().items():
        kept = 6 if family in ("tool calls", "tool answers", "thinking") else 3
        for case in (cases[i * (len(cases) - 1) // (kept - 1)] for i in range(kept)):
            line = {
                "family": family,
                "messages": case["messages"][:-1],
                "answer": question_and_answer(tokenizer, case)[1],
            }
            line |= {key: case[key] for key in ("tools", "enable_thinking") if case.get(key)}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    path.write_text("".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=TEMPLATE.parent, help="folder to write (default: this one)")
    parser.add_argument("--steps", type=int, default=4500, help="optimizer steps (default: %(default)s)")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)

    rng, untrained = Random(2), make_tokenizer(())
    tokenizer = make_tokenizer(draw_text(rng, untrained)[0] for _ in range(3000))
    model = make_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
    train(model, tokenizer, options.steps)
    save(model, tokenizer, options.out)
    write_examples(tokenizer, options.out / "examples.jsonl")
    sys.exit(0 if evaluate(model, tokenizer) else 1)


if __name__ == "__main__":
    main()

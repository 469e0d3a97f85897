"""Text from a language model: python scripts/generate.py MODEL --prompt "Once upon" [options]

MODEL is a folder of save_pretrained (a run of lambda-seq leaves one in OUTPUT_DIR/model), a name on the Hugging Face
hub, or a checkpoint of the language modelling task. Text appears as it is generated, until the model ends it or
--tokens are there; Ctrl-C ends it early.
"""

from __future__ import annotations

import argparse
import codecs
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers.decoders import DecodeStream

import lambda_seq
from lambda_seq.models.sequence.generation import GenerativeModel
from lambda_seq.tasks.data.reading.tokens import Tokens
from lambda_seq.tasks.networks import network_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate; 0, or 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        model, tokens = load(options.model)
        return generate(model.to(options.device).eval(), tokens, options)
    except (ValueError, TypeError, OSError) as error:
        sys.exit(f"error: {error}")


def generate(model: GenerativeModel, tokens: Tokens, options: argparse.Namespace) -> int:
    """Write text to the terminal token by token, then what it took."""
    text = read(options.prompt_file) if options.prompt_file else options.prompt.encode("utf-8", "surrogateescape")
    prompt = [tokens.pad, *tokens.encode(text).tolist()]  # padding is also where documents begin and end
    stop = [stop_token(word, tokens) for word in options.stop]
    steps = model.generate_steps(
        torch.tensor([prompt]),
        options.tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        stop=stop if options.endless else [*stop, tokens.pad],
        seed=options.seed,
        prefill=options.prefill,
        pad_id=-1,  # none is needed in a single row
    )
    decoder, count, begin, first, code = Decoder(tokens), 0, time.perf_counter(), 0.0, 0
    write("" if options.prompt_file else options.prompt)
    try:
        for step in steps:
            first = first or time.perf_counter()
            count += 1
            write(decoder.add(int(step)))
    except KeyboardInterrupt:
        code = 130
    write(decoder.end() + "\n")
    if count > 1:
        rate = (count - 1) / (time.perf_counter() - first)
        took = (
            f"{count:,} tokens after {len(prompt) - 1:,}: {first - begin:.2f} s to the first, then {rate:,.0f} a second"
        )
        print(took, file=sys.stderr)
    return code


class Decoder:
    """Tokens to text as they come: characters appear once they are whole."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.stream = DecodeStream(skip_special_tokens=False)
        self.waiting: list[int] = []  # of a tokenizer, for the rest of a character

    def add(self, token: int) -> str:
        """The text that a token completes; a blank line between documents."""
        if token == self.tokens.pad:
            return self.end() + "\n\n"
        if self.tokens.tokenizer is None:
            return self.utf8.decode(bytes([token - 1]))
        text = self.stream.step(self.tokens.tokenizer, token)
        self.waiting = [*self.waiting, token] if text is None else []
        return text or ""

    def end(self) -> str:
        """What is left of a character that never was whole."""
        waiting, self.waiting = self.waiting, []
        if waiting:
            self.stream = DecodeStream(skip_special_tokens=False)
        return self.utf8.decode(b"", final=True) + self.tokens.decode(waiting)


def write(text: str) -> None:
    """Show text at once; control characters, which a terminal would obey, as �."""
    if sys.stdout.isatty():
        text = "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in text)
    print(text, end="", flush=True)


def load(name: str) -> tuple[GenerativeModel, Tokens]:
    """The model of a folder, a repository or a checkpoint, and what its tokens mean.

    Raises:
        ValueError: it generates no text, or the file is no checkpoint.
        FileNotFoundError, ConnectionError: nothing of this name, here or on the hub.
    """
    if Path(name).is_file():
        whole = torch.load(name, map_location="cpu", weights_only=True) if zipfile.is_zipfile(name) else {}
        known = whole.get("hyper_parameters", {})
        if "network" not in known or "tokens" not in known.get("facts", {}):
            raise ValueError(f"{name} is no checkpoint of the language modelling task; give one, or a saved folder")
        model = network_of(whole)
        weights = {key.removeprefix("network."): value for key, value in whole["state_dict"].items()}
        model.load_state_dict({key: weights[key] for key in model.state_dict()})
        tokens = Tokens.from_facts(known["facts"]["tokens"])
    else:
        model = lambda_seq.from_pretrained(name)
        tokens = Tokens.of(model)
    if not isinstance(model, GenerativeModel):
        raise ValueError(f"{name} holds a {type(model).__name__}, which generates no text: give a language model")
    if tokens.vocab_size > model.vocab_size:
        raise ValueError(
            f"{name}: the model has vocab_size={model.vocab_size} but its tokens are {tokens.vocab_size}, of "
            f"{tokens.kind}: save it with its tokenizer"
        )
    return model, tokens


def read(file: Path) -> bytes:
    """The text of a file; "-" is what comes in."""
    return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()


def stop_token(word: str, tokens: Tokens) -> int:
    """The id of a word that is one token; \\n and \\t are a new line and a tab."""
    ids = tokens.encode(word.replace("\\n", "\n").replace("\\t", "\t")).tolist()
    if len(ids) != 1:
        raise ValueError(f"--stop {word!r} is {len(ids)} tokens: expected text that is one, of {tokens.kind}")
    return ids[0]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = command.add_argument
    add("model", metavar="MODEL", help="folder, name on the hub, or checkpoint")
    source = command.add_mutually_exclusive_group()
    source.add_argument("--prompt", default="", metavar="TEXT", help="text to go on from (the beginning of a document)")
    source.add_argument(
        "--prompt-file", type=Path, metavar="FILE", help='file to go on from, which is not shown; or "-"'
    )
    add("--tokens", type=int, default=400, metavar="N", help="generate so many at most (%(default)s)")
    add("--temperature", type=float, default=0.8, help="below 1 for likelier text, 0 for the likeliest (%(default)s)")
    add("--top-k", type=int, metavar="K", help="sample among the K likeliest tokens only")
    add("--top-p", type=float, metavar="P", help="sample among the fewest tokens that together have probability P")
    add("--stop", nargs="+", default=[], metavar="TEXT", help="end behind any of these, each one token long")
    add("--endless", action="store_true", help="go on with another document where one ends")
    add("--seed", type=int, help="the same gives the same text (a new one each time)")
    add("--prefill", type=int, default=2048, metavar="N", help="tokens of the prompt read at once (%(default)s)")
    add("--device", default="cpu", help="cpu, cuda, … (%(default)s)")
    add("--threads", type=int, metavar="N", help="of torch on the CPU; 1 is often fastest for small models")
    return command


if __name__ == "__main__":
    sys.exit(main())

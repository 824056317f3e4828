"""Which command is meant, and what becomes of its errors; commands are imported when called."""

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from deit_jax.cli.arguments import Parser, parse
from deit_jax.compilation_cache import keep_compiled_programs
from deit_jax.data.open_file_limit import are_too_many_open, open_files_advice
from deit_jax.files import print_any_name, sentence

PROGRAM = "python -m deit_jax"

# Each command is the module of its name in this package, with a docstring that begins with what
# it does and shows an example, `add_arguments(parser)` and `run(args) -> exit code`. `train` alone
# reads its flags itself, those of train.py.
_TRAIN = "train"
COMMANDS = {
    _TRAIN: "train a model; a stopped run goes on with the same command",
    "models": "list the models by name",
    "convert": "translate weights to the layout of timm, transformers or the reference",
    "export": "write a model for StableHLO, ONNX, timm or transformers",
    "compare": "prove that PyTorch computes the same from the same weights",
    "predict": "say what is on images",
    "attention": "look at what class and distillation token attend to",
    "sweep": "run a family of configurations with several seeds, and collect their results",
    "report": "compare runs: a table in the form of the paper's and learning curves",
    "evaluate": "measure runs and weights on a split, and how often they differ",
    "split": "divide a folder of images into training and validation",
    "prepare": "write a data set as ArrayRecord shards, or verify one",
    "label": "compute a teacher's labels ahead of training",
    "benchmark": "measure the input, and whether it or the model is the limit",
    "launch": "start several processes of a run on this machine, again when one dies",
    "augment": "look at what augmentation does to images",
}


def main(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code: 0, or 2 where the user has to change something."""
    print_any_name()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}."
        return _fail(f"There is no command {name!r}; {hint}")
    try:
        return _run(name, rest)
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has left; Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ModuleNotFoundError) as error:
        return _fail(open_files_advice() if are_too_many_open(error) else sentence(error))
    except KeyboardInterrupt:
        return 130
    except Exception:
        if failure := _device_failure():
            return _fail(failure)
        raise


def _run(name: str, arguments: Sequence[str]) -> int:
    if name == _TRAIN:
        from deit_jax.cli.train import start_training

        start_training(arguments)
    keep_compiled_programs()
    command = importlib.import_module(f"deit_jax.cli.{name}")
    return command.run(parse(parser_of(name), arguments))


def parser_of(name: str) -> Parser:
    """Return the parser of a command's arguments."""
    command = importlib.import_module(f"deit_jax.cli.{name}")
    parser = Parser(
        prog=f"{PROGRAM} {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    return parser


def _device_failure() -> str:
    """Say why JAX's devices cannot be started; "" if they can, or nothing has asked for them."""
    if "jax" not in sys.modules:
        return ""
    from deit_jax.devices import check_devices

    try:
        check_devices()
    except ValueError as error:
        return str(error)
    return ""


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND ...",
            "",
            *lines,
            "",
            f"`{PROGRAM} COMMAND --help` explains a command with an example.",
        ]
    )


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2

"""Reading a pickle without running it.

A pickle is a program for a stack machine, whose instruction REDUCE calls any function of any
module. This machine has no functions at all: an imported name stays a name (`Symbol`), and REDUCE
looks that name up in a table of the caller. A name that is not in the table is refused when it is
mentioned, called or not. Python's own `pickletools` takes the bytes apart; it executes nothing.

Also refused is what PyTorch never writes and only tricks need: instructions of other protocols,
popping or duplicating the stack, overwriting the memo, giving a key twice, keys that are no plain
values, objects within objects without end.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from deit_jax.messages import quoted

Builders = Mapping[str, Callable[..., Any]]
"""By the full name of a function or class, what to make of its arguments."""

Persistent = Callable[[tuple[Any, ...]], Any]
"""Turns a persistent id, which stands for data outside the pickle, into a value."""

# A training checkpoint of 1,000 tensors with its optimiser has about 100,000 instructions.
_MOST_INSTRUCTIONS = 1_000_000

_PLAIN_KEYS = (str, int, float, bool, bytes, type(None))
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
}  # fmt: skip
_PYTHON2_TEXTS = {"BINSTRING", "SHORT_BINSTRING"}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NO_EFFECT = {"PROTO", "FRAME", "STOP"}


class RefusedError(ValueError):
    """A pickle asks for something other than data; the message continues "FILE ..."."""


@dataclass(frozen=True)
class Symbol:
    """The name of a function or class that a pickle mentions."""

    name: str


class InertObject(dict[str, Any]):
    """The attributes of an object, such as an `argparse.Namespace`, without its class."""

    def set_state(self, state: Any) -> None:
        """Take the attributes from a pickle."""
        if type(state) is not dict or not all(type(key) is str for key in state):
            _damaged("the attributes of an object have no names")
        self.update(state)


def read_pickle(
    stream: io.BytesIO,
    builders: Builders,
    constants: frozenset[str] = frozenset(),
    persistent: Persistent | None = None,
) -> Any:
    """Read one pickle from a stream, which is left at the byte behind it.

    Args:
        stream: the bytes.
        builders: which names may be called, and what then takes their place.
        constants: which other names may be mentioned; they remain as `Symbol`s.
        persistent: if the pickle may refer to data outside of it.

    Raises:
        RefusedError: it mentions other names or uses other instructions.
        ValueError: it is damaged.
    """
    machine = _Machine(builders, constants, persistent)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > _MOST_INSTRUCTIONS:
            raise RefusedError("holds more objects than any file of weights")
        machine.step(opcode.name, argument)
    return machine.result()


class _Machine:
    def __init__(
        self, builders: Builders, constants: frozenset[str], persistent: Persistent | None
    ) -> None:
        self._builders, self._constants, self._persistent = builders, constants, persistent
        self._stack: list[Any] = []
        # The stacks that were set aside at each MARK, the outermost first.
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Execute one instruction."""
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _PYTHON2_TEXTS:
            # pickletools reads them as Latin-1; PyTorch's default is UTF-8.
            self._stack.append(_text_or_bytes(argument.encode("latin-1")))
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(reversed(items)))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            index = len(self._memo) if name == "MEMOIZE" else argument
            if index in self._memo or not self._stack:
                _damaged("it remembers an object under a number that is taken, or none")
            self._memo[index] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                _damaged("it refers to an object that it does not have")
            self._stack.append(self._memo[argument])
        elif name not in _NO_EFFECT:
            method = getattr(self, f"_do_{name.lower()}", None)
            if method is None:
                raise RefusedError(f"uses the pickle instruction {name}, which no weights need")
            method(argument)

    def result(self) -> Any:
        """Return the one value that is left."""
        value = self._pop()
        if self._stack or self._below:
            _damaged("its objects do not fit together")
        return value

    def _pop(self) -> Any:
        if not self._stack:
            _damaged("it takes more from its stack than there is")
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        if not self._stack or type(self._stack[-1]) is not kind:
            _damaged(f"it adds to something that is no {kind.__name__}")
        return self._stack[-1]

    def _pop_mark(self) -> list[Any]:
        if not self._below:
            _damaged("a mark is missing on its stack")
        items, self._stack = self._stack, self._below.pop()
        return items

    def _do_mark(self, _: None) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _do_tuple(self, _: None) -> None:
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def _do_append(self, _: None) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _do_appends(self, _: None) -> None:
        items = self._pop_mark()
        self._top(list).extend(items)

    def _do_setitem(self, _: None) -> None:
        value, key = self._pop(), self._pop()
        put_items(self._top(dict), [key, value])

    def _do_setitems(self, _: None) -> None:
        items = self._pop_mark()
        put_items(self._top(dict), items)

    def _do_global(self, argument: str) -> None:
        # pickletools joins module and name by a blank.
        self._mention(argument.replace(" ", ".", 1))

    def _do_stack_global(self, _: None) -> None:
        name, module = self._pop(), self._pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            _damaged("it names a class by something that is no text")
        self._mention(f"{module}.{name}")

    def _mention(self, name: str) -> None:
        if name not in self._builders and name not in self._constants:
            raise RefusedError(
                f"mentions {quoted(name)}, which is code and no data; only tensors, numbers and "
                "texts are read, and nothing of the file was run. If you trust the file, open it "
                "with PyTorch and save the state_dict() alone"
            )
        self._stack.append(Symbol(name))

    def _do_reduce(self, _: None) -> None:
        arguments, symbol = self._pop(), self._pop()
        if type(symbol) is not Symbol or symbol.name not in self._builders:
            raise RefusedError("calls something that is no known function")
        if type(arguments) is not tuple:
            _damaged(f"the arguments of {symbol.name} are no tuple")
        try:
            value = self._builders[symbol.name](*arguments)
        except TypeError as error:
            raise ValueError(f"{symbol.name} has impossible arguments") from error
        self._stack.append(value)

    _do_newobj = _do_reduce

    def _do_build(self, _: None) -> None:
        """Set attributes; those of tensors and dicts (hooks, versions) mean nothing here."""
        state = self._pop()
        if not self._stack or type(self._stack[-1]) in (Symbol, str, int, float, tuple, list):
            raise RefusedError("sets attributes of something that has none")
        if hasattr(self._stack[-1], "set_state"):
            self._stack[-1].set_state(state)

    def _do_binpersid(self, _: None) -> None:
        identity = self._pop()
        if self._persistent is None or type(identity) is not tuple:
            raise RefusedError("refers to data outside of it in an unknown way")
        self._stack.append(self._persistent(identity))


def put_items(target: dict[Any, Any], items: list[Any]) -> None:
    """Add alternating keys and values.

    Raises:
        ValueError: a key is there already, has no value, or is no plain value.
    """
    if len(items) % 2:
        _damaged("a key of a dict has no value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Nested tuples would take exponential time to hash.
        if type(key) not in _PLAIN_KEYS:
            raise RefusedError(f"has a dict with a {type(key).__name__} as a key")
        if key in target:
            _damaged(f"a dict has the key {quoted(key)} twice")
        target[key] = value


def _text_or_bytes(value: bytes) -> str | bytes:
    """Python 2 has one type for both; CIFAR's images, for one, are no text."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _damaged(reason: str) -> NoReturn:
    raise ValueError(reason)

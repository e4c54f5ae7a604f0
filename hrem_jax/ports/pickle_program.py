"""Pickles read as data: a stack machine for the few opcodes that checkpoints are made of.

`pickle.Unpickler` is not used, not even with a strict `find_class`: it can be made to allocate by declared sizes alone
(one memo index of 2**31 takes 34 GB), to hash keys for ever, and its BUILD sets attributes on whatever stands on the
stack. Here nothing is looked up by name, called or given attributes but what the reader's own table says; the opcodes
are decoded by the standard library's `pickletools`.
"""

import dataclasses
import pickletools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from hrem_jax.errors import UserError, shown

MAX_OPERATIONS = 2_000_000  # a BERT has ten thousand; bounds time and memory whatever the file says
IGNORED = frozenset({'PROTO', 'FRAME'})
CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
EMPTY = {'EMPTY_TUPLE': tuple, 'EMPTY_LIST': list, 'EMPTY_DICT': dict}
INTEGERS = ('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4')
TEXTS = ('STRING', 'BINSTRING', 'SHORT_BINSTRING', 'UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8')
BYTES = ('BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8')
VALUES = frozenset(('FLOAT', 'BINFLOAT', *INTEGERS, *TEXTS, *BYTES))


class Buildable:
  """What the opcode BUILD may be applied to."""

  def build(self, state: Any) -> None:
    """Takes the state in; raises ValueError where it is not one."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
  """A name of the program's: never imported, only compared."""

  name: str  # 'torch.FloatStorage'


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """What a program may speak of."""

  names: frozenset[str]  # that may occur
  calls: Mapping[str, Callable[[tuple], Any]]  # those that may be called; they raise ValueError for other arguments
  persistent: Callable[[Any], Any]  # a persistent id's object; raises ValueError where it is none


def described(value: Any) -> str:
  """A hostile value in a message: texts and names are shown, of everything else the type."""
  value = value.name if isinstance(value, Global) else value
  return shown(value) if isinstance(value, str) else f'a value of type {type(value).__name__}'


class PickleProgram:
  """One pickle. `source` is the file's name for the messages."""

  def __init__(self, vocabulary: Vocabulary, *, source: str):
    self._vocabulary, self._source, self._operations = vocabulary, source, 0

  def run(self, stream: BinaryIO) -> Any:
    """The object that the pickle at the stream's position describes; the stream stands behind it afterwards.

    Raises:
      UserError: It is damaged, or it asks for something that checkpoints do not need.
    """
    self._stack, self._below, self._memo = [], [], {}  # `_below`: the stacks under the marks
    try:
      with warnings.catch_warnings(action='ignore'):  # of escapes in texts that will be refused anyway
        return self._run(stream)
    except ValueError as error:  # also UnicodeDecodeError
      raise UserError(f'{self._source}: damaged or not a checkpoint: {str(error)[:200]}') from error

  def _run(self, stream: BinaryIO) -> Any:
    for opcode, argument, _ in pickletools.genops(stream):
      self._charge(1)
      if opcode.name == 'STOP':
        return self._pop()
      self._step(opcode.name, argument)
    raise AssertionError('pickletools ends a pickle with STOP or raises')

  def _step(self, name: str, argument: Any) -> None:
    if name in VALUES:
      self._stack.append(argument)
    elif name in CONSTANTS:
      self._stack.append(CONSTANTS[name])
    elif name in EMPTY:
      self._stack.append(EMPTY[name]())
    elif name in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
      self.short_tuple(name)
    elif name in HANDLERS:
      HANDLERS[name](self, argument)
    elif name not in IGNORED:
      what = f'{name} {described(argument)}' if isinstance(argument, str) else name
      raise UserError(f'{self._source}: refused: it uses the pickle opcode {what}, which checkpoints do not need')

  def _charge(self, amount: int) -> None:
    self._operations += amount
    if self._operations > MAX_OPERATIONS:
      raise ValueError(f'more than {MAX_OPERATIONS} operations')

  def _pop(self) -> Any:
    if not self._stack:
      raise ValueError('the pickle takes from an empty stack')
    return self._stack.pop()

  def _pop_to_mark(self) -> list:
    if not self._below:
      raise ValueError('the pickle has no mark')
    items, self._stack = self._stack, self._below.pop()
    return items

  def _top(self, kind: type, opcode: str) -> Any:
    """The object that stays on the stack, which must be of this type."""
    if not self._stack or not isinstance(self._stack[-1], kind):
      raise ValueError(f'{opcode} finds nothing fitting on the stack')
    return self._stack[-1]

  def mark(self, _) -> None:
    self._below.append(self._stack)
    self._stack = []

  def pop(self, _) -> None:
    if self._stack:
      self._stack.pop()
    else:
      self._pop_to_mark()

  def pop_mark(self, _) -> None:
    self._pop_to_mark()

  def duplicate(self, _) -> None:
    self._stack.append(self._top(object, 'DUP'))

  def put(self, index: int | None) -> None:
    self._memo[len(self._memo) if index is None else index] = self._top(object, 'PUT')

  def get(self, index: int) -> None:
    if index not in self._memo:
      raise ValueError('the pickle remembers nothing at an index it asks for')
    self._stack.append(self._memo[index])

  def short_tuple(self, name: str) -> None:
    items = [self._pop() for _ in range(int(name.removeprefix('TUPLE')))]
    self._stack.append(tuple(reversed(items)))

  def long_tuple(self, _) -> None:
    items = tuple(self._pop_to_mark())
    self._stack.append(items)

  def list_of_mark(self, _) -> None:
    items = self._pop_to_mark()
    self._stack.append(items)

  def dict_of_mark(self, _) -> None:
    items = self._pop_to_mark()
    self._stack.append({})
    self._set_items(items)

  def append(self, _) -> None:
    item = self._pop()
    self._top(list, 'APPEND').append(item)

  def appends(self, _) -> None:
    items = self._pop_to_mark()
    self._top(list, 'APPENDS').extend(items)

  def set_item(self, _) -> None:
    value, key = self._pop(), self._pop()
    self._set_items([key, value])

  def set_items(self, _) -> None:
    self._set_items(self._pop_to_mark())

  def _set_items(self, items: list) -> None:
    target = self._top(dict, 'SETITEMS')
    if len(items) % 2:
      raise ValueError('a key without a value')
    for key, value in zip(items[::2], items[1::2], strict=True):
      if not isinstance(key, str | int):  # hashing a nested tuple can take for ever
        raise ValueError(f'a dictionary with {described(key)} as a key, expected text or an integer')
      target[key] = value

  def global_(self, name: str) -> None:
    name = name.replace(' ', '.', 1)
    if name not in self._vocabulary.names:
      accepted = ', '.join(sorted(self._vocabulary.names))
      raise UserError(f'{self._source}: refused: it asks for {described(name)}; accepted are {accepted}')
    self._stack.append(Global(name))

  def stack_global(self, _) -> None:
    name, module = self._pop(), self._pop()
    if not isinstance(name, str) or not isinstance(module, str):
      raise ValueError('STACK_GLOBAL without two names on the stack')
    self.global_(f'{module} {name}')

  def call(self, _) -> None:
    arguments, function = self._pop(), self._pop()
    if not isinstance(function, Global) or function.name not in self._vocabulary.calls:
      what = described(function)
      raise UserError(f'{self._source}: refused: it calls {what}')
    if not isinstance(arguments, tuple):
      raise ValueError(f'{function.name} is called without a tuple of arguments')
    self._charge(sum(len(item) for item in arguments if isinstance(item, str | bytes | list | dict)))
    self._stack.append(self._vocabulary.calls[function.name](arguments))

  def build(self, _) -> None:
    state = self._pop()
    target = self._top(object, 'BUILD')
    if not isinstance(target, Buildable):
      what = described(target)
      raise UserError(f'{self._source}: refused: it sets the state of {what}')
    self._charge(len(state) if isinstance(state, dict | list) else 0)
    target.build(state)

  def persistent(self, _) -> None:
    identifier = self._pop()
    self._stack.append(self._vocabulary.persistent(identifier))


HANDLERS: dict[str, Callable[[PickleProgram, Any], None]] = {
  'MARK': PickleProgram.mark,
  'POP': PickleProgram.pop,
  'POP_MARK': PickleProgram.pop_mark,
  'DUP': PickleProgram.duplicate,
  **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'), PickleProgram.put),
  **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), PickleProgram.get),
  'TUPLE': PickleProgram.long_tuple,
  'LIST': PickleProgram.list_of_mark,
  'DICT': PickleProgram.dict_of_mark,
  'APPEND': PickleProgram.append,
  'APPENDS': PickleProgram.appends,
  'SETITEM': PickleProgram.set_item,
  'SETITEMS': PickleProgram.set_items,
  'GLOBAL': PickleProgram.global_,
  'STACK_GLOBAL': PickleProgram.stack_global,
  **dict.fromkeys(('REDUCE', 'NEWOBJ'), PickleProgram.call),
  'BUILD': PickleProgram.build,
  'BINPERSID': PickleProgram.persistent,
}

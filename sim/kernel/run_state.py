"""The run state: all state of a run as integers in numbered columns behind one array.

Compiled code must be entered hundreds of thousands of times a second, and each argument of such a call costs
time. So a run's state is one int64 array, the *run state*: scalars first, then a directory that gives the address
and length of every *column* (an int64 array owned by Python). Compiled functions take the run state and look up
the columns they need; Python reads the same memory through `RunState`.

Only Python allocates. The run loop looks between two events whether columns are nearly full, and then Python doubles
them. Within an event whatever appends to a column asks for room first (`make_capacity`): if there is none, Python is
called back and grows the column before anything is written. So a pointer to a column that can grow must not be kept
across a call that may append to it.

Nothing here checks an index: a write outside of its column would corrupt the process without a word. Two things stand
against that. Guard words lie before and after every column, and `RunState.damage` tells which were overwritten; they
are looked at when a column is replaced and at the end of every run. And the same source compiles into a *checked build*
(`PILOTZONE_CHECKED=1`), in which `column` gives a view that refuses every index outside of the column, and every
pointer that is out of date.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import operator
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, make_attribute_wrapper, models, overload, register_model

from sim.kernel import CHECKED, COMPLETE
from sim.kernel.cold import GUARD, LINE, ColdColumn
from sim.kernel.layout import COLUMNS, SCALARS, scalar, slot

# --- scalars ---------------------------------------------------------------------------------------------
NOW = scalar(0)  # current simulated time, ns
READY_LEN = scalar(1)  # entries in the ready heap
READY_SEQ = scalar(2)  # next sequence number of the ready heap
NODES = scalar(3)  # endpoints: seats first, then gateways
VOTERS = scalar(4)  # identities that vote
SEED = scalar(5)
# calendar
CAL_SHIFT = scalar(6)  # a bucket is 2**shift nanoseconds wide
CAL_CURRENT = scalar(7)  # absolute number of the bucket that is open
RUN_POS = scalar(8)
RUN_LEN = scalar(9)
NEAR_LEN = scalar(10)
FAR_LEN = scalar(11)
HEAP_SEQ = scalar(12)  # sequence shared by the near and far heaps
IN_RING = scalar(13)  # messages in buckets
IN_FLIGHT = scalar(14)  # messages anywhere in the calendar
CHUNKS_FREE = scalar(15)
CAL_OPENED = scalar(16)  # since the last change of width
CAL_PUSHED = scalar(17)
CAL_NEAR = scalar(18)
CAL_FILLED = scalar(19)
# message pipeline
SENT = scalar(20)
DELIVERED = scalar(21)
DROPPED = scalar(22)
ENVELOPES_FREE = scalar(23)
SITES = scalar(24)
JITTER_MODE = scalar(25)
JITTER_LOW_NS = scalar(26)
JITTER_SPAN_NS = scalar(27)
LOSS_Q32 = scalar(28)  # probability of losing a message, times 2**32
RETRANSMIT_NS = scalar(29)
ORDERED = scalar(30)  # 1: messages of a link arrive in the order sent
WORKERS = scalar(31)  # verification workers of a node
LINKS_CHANGED = scalar(32)  # 1: the link rule matrix is in force
BITS_WORDS = scalar(33)  # words of a voter bit set
DIGEST_ORDER = scalar(34)  # hash of the events in their order
DIGEST_SUM = scalar(35)  # commutative hash of all arrivals
LOG_LEN = scalar(36)  # message log rows in use (trace level messages)
LOG_ON = scalar(37)
MESSAGES_DONE = scalar(38)
BYTES_SENT = scalar(39)
DUPLICATED = scalar(40)
HOLD_UNTIL = scalar(41)
FLOODS_FREE = scalar(42)
ROOM_MAKER = scalar(43)  # address of the function that makes room in a column (`RunState.on_full`)
# what advance() found: node, argument (time is NOW)
OUT_NODE = scalar(44)
OUT_ARG = scalar(45)
OUT_SEQ = scalar(46)
READY_DROPPED = scalar(47)
CAL_WISH = scalar(49)  # 1: the calendar wants to change its width and lacks room for it
SELF = scalar(48)  # address of the run state
SEATS = scalar(58)  # endpoints that run a replica: one per voter, then twins and observers
WEIGHTED = scalar(59)  # 1: some votes count by weight
# borders
BORDERS = scalar(60)  # 1: endpoints stand on both sides of one, and the bytes that leave are counted
BYTES_ABROAD = scalar(61)  # sent from home to abroad
# message rules
RULES = scalar(50)  # how many there are
RULE_WORDS = scalar(51)  # words of a bit set of rules
END_WORDS = scalar(52)  # words of a bit set of endpoints
RULES_ACTIVE = scalar(53)  # rules that the message being sent may meet
RULE_COPIES = scalar(54)  # further copies of the copy being sent
MESSAGE_VIEW = scalar(55)  # of the message being sent; set only while there are rules
MESSAGE_HEIGHT = scalar(56)
MESSAGE_LEADERS = scalar(
    134
)  # who leads its sender's view, and the one after: voter + 1, and << 32; 0: nobody, or not asked
MESSAGE_INSIDE = scalar(135)  # of a gossip message: its type << 32 | the type of what it spreads
RULE_COPIES_MAX = scalar(57)  # most further copies of one copy
WRONG_COLUMN = scalar(62)  # what the checked build refused last: the column, and the index
WRONG_INDEX = scalar(63)
# ledger and engine scalars use 64..127 (sim.ledger.rows, sim.engine.actions)
SHARING = scalar(128)  # how copies share their sender's card (sim.kernel.sharing)
CAPPED = scalar(129)  # 1: some card takes in less than another sends
QUEUED_FREE_LEN = scalar(130)
FLUSH_NS = scalar(148)  # after which a connection between seats is flushed; 0: at once
WINDOW = scalar(160)  # bytes of a message that are under way before the first is acknowledged; 0: all
LOOK_NS = scalar(149)  # how often a seat looks what it has for a peer; 0: always

# --- columns ---------------------------------------------------------------------------------------------
READY = slot(0)  # heap entries: time, seq, what, arg
BUCKET_HEAD = slot(1)
BUCKET_TAIL = slot(2)
BUCKET_LEN = slot(3)
CHUNK_NEXT = slot(4)
CHUNK_ROWS = slot(5)  # CHUNK entries of (time, ref)
CHUNK_FREE = slot(6)
RUN = slot(7)  # the open bucket, sorted: (time, ref)
SORT = slot(8)  # scratch for sorting a bucket
SORT_COUNT = slot(9)
NEAR = slot(10)
FAR = slot(11)
NODE = slot(12)  # NODE_WIDTH per endpoint
WORKER_FREE = slot(13)
ENVELOPE = slot(14)
ENVELOPE_FREE = slot(15)
SITE_OF = slot(16)
LATENCY = slot(17)  # site x site, ns
LAST_ARRIVAL = slot(18)  # src x dst, or empty when order needs no bookkeeping
LINK_RULE = slot(19)  # src x dst -> rule number, or empty
RULE = slot(20)
QUANTILE = slot(21)  # jitter multiplier table, Q20
KIND_COUNT = slot(22)  # per message type: messages, bytes, signatures, dropped
GROUP_START = slot(23)
GROUP_MEMBER = slot(24)
TALLY = slot(25)
TALLY_COUNT = slot(26)
TALLY_BITS = slot(27)
TALLY_FIRED = slot(28)
LOG = slot(29)
NEIGHBOUR_START = slot(30)
NEIGHBOUR = slot(31)
FLOOD_SEEN = slot(32)
TALLY_CAST = slot(33)  # per tally a bit set of the seats that have sent their vote
QUEUED = slot(34)  # copies and messages that a shared card sends (sim.kernel.sharing)
QUEUED_FREE = slot(35)
MESSAGE_RULE = slot(64)
RULE_KINDS = slot(65)  # per message type: bit set of rules that match it
RULE_SOURCES = slot(66)  # per endpoint: bit set of rules that match it as a sender
RULE_TARGETS = slot(67)  # per rule: bit set of receivers; one row more for the message being sent
RULE_ACTIVE = slot(68)  # the rules that the message being sent may meet
TALLY_PLACE = slot(69)  # view and height of each tally's votes; written only while there are rules
IDENTITY = slot(70)  # per seat: the voter whose votes it casts, -1 for an observer
KIND_WEIGHTS = slot(71)  # per message type: where its voters' weights begin, -1 if each vote counts 1
VOTE_WEIGHT = slot(72)  # lists of weights, one entry per voter
SIDE = slot(73)  # per endpoint: 0 at home, 1 abroad, -1 nowhere; read only if there are borders
TALLY_WEIGHTS = slot(78)  # per tally: where the weights of its voters begin, -1 if each counts 1; read only if WEIGHTED
QUEUED_PLACE = slot(
    89
)  # per queued row MESSAGE_VIEW, _HEIGHT, _LEADERS and _INSIDE; written only while there are rules
CARDS = slot(90)  # per endpoint
CONNECTION = slot(91)  # per lane, sender and receiver: the last row queued + 1, or 0
KIND_SMALL = slot(92)  # per message type: 1 if it goes beside blocks, not behind them, where cards are shared
RX_GAPS = slot(93)  # per endpoint: when its card was idle (sim.kernel.sharing)
LINK_CAP = slot(98)  # CAP_WIDTH per link of a bandwidth of its own; row 0 is none
FLUSH_AT = slot(99)  # src x dst: when what waits in the connection goes; empty without FLUSH_NS

DESK_LEN = SCALARS + 2 * COLUMNS
NEVER = np.iinfo(np.int64).max  # no event will come


@intrinsic
def _integer_pointer(typingctx: Any, address: Any) -> Any:
    """Address held as an integer -> pointer to integers, indexed like an array but without its checks."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(types.int64), generate


@intrinsic
def _fetch(typingctx: Any, address: Any) -> Any:
    """Ask the processor for the cache line at an address; nothing waits for it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        pointer = builder.inttoptr(args[0], ir.PointerType(ir.IntType(8)))
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(function, [pointer, word(1), word(3), word(1)])  # to write, keep in all caches, data
        return context.get_dummy_value()

    return types.none(types.int64), generate


def compiled(function: Any) -> Any:
    """Compile a function that others compiled call. No memory is managed in compiled code, and none divides by 0."""
    options: dict[str, Any] = {"_nrt": False, "error_model": "numpy"}
    return njit(function, **options)


def inlined(function: Any) -> Any:
    """`compiled`, for the few functions that every copy of a message runs through: a call costs as much as they do."""
    options: dict[str, Any] = {"_nrt": False, "error_model": "numpy", "forceinline": True}
    return njit(function, **options)


def entry(signature: Any, *, always: bool = False) -> Any:
    """Compile a function that Python calls, with one signature, kept in the cache on disk.

    To take it from there costs milliseconds, and a run calls few of them: each is loaded by its first call, which
    puts it in the place of this detour in its module, or at once if every run calls it (`always`). While not all are
    in the cache everything is compiled at once, so that no run stops to compile.
    """
    options: dict[str, Any] = {"_nrt": False, "error_model": "numpy"}
    load = njit(signature, cache=True, **options)

    def decorate(function: Any) -> Any:
        if always or not COMPLETE.exists():
            return load(function)
        loaded = None

        @functools.wraps(function)
        def first(*arguments: Any) -> Any:
            nonlocal loaded
            if loaded is None:
                loaded = load(function)
                setattr(sys.modules[function.__module__], function.__name__, loaded)
            return loaded(*arguments)

        return first

    return decorate


def all_is_compiled() -> None:
    """Every entry is in the cache: say so to later starts."""
    with contextlib.suppress(OSError):  # a cache that cannot be written is as good as none
        COMPLETE.touch()


_pointer: Any = _integer_pointer  # called with the address alone
_prefetch: Any = _fetch


@compiled
def pointer(array):
    """The run state as compiled code holds it (a pointer), from the array as Python holds it."""
    return _pointer(array[SELF])


class _CheckedColumn(types.Type):
    """A column of the checked build, as compiled code sees it."""

    def __init__(self) -> None:
        super().__init__("CheckedColumn")


_CHECKED_COLUMN = _CheckedColumn()
_INTEGERS = types.CPointer(types.int64)


@register_model(_CheckedColumn)
class _CheckedColumnModel(models.StructModel):
    """The run state, the column's number, and where the column was when the view was made."""

    def __init__(self, manager: Any, type_: Any) -> None:
        super().__init__(manager, type_, [("run_state", _INTEGERS), ("number", types.int64), ("address", types.int64)])


for _name in ("run_state", "number", "address"):
    make_attribute_wrapper(_CheckedColumn, _name, _name)


@intrinsic
def _checked_column(typingctx: Any, run_state: Any, number: Any, address: Any) -> Any:
    """A view of a column that looks at every index."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = cgutils.create_struct_proxy(_CHECKED_COLUMN)(context, builder)
        view.run_state, view.number, view.address = args
        return view._getvalue()

    return _CHECKED_COLUMN(_INTEGERS, types.int64, types.int64), generate


_view: Any = _checked_column


@compiled
def _place(view, index):
    """The column, if the index lies inside of it and it has not moved since the view was made."""
    run_state = view.run_state
    at = SCALARS + 2 * view.number
    if view.address != run_state[at] or index < 0 or index >= run_state[at + 1]:
        run_state[WRONG_COLUMN] = view.number
        run_state[WRONG_INDEX] = index if view.address == run_state[at] else np.int64(-1)
        raise IndexError("checked build: an index outside of its column, or a column that has moved")
    return _pointer(run_state[at])


@overload(operator.getitem)
def _get(view, index):
    if isinstance(view, _CheckedColumn):
        return lambda view, index: _place(view, index)[index]
    return None


@overload(operator.setitem)
def _set(view, index, value):
    if isinstance(view, _CheckedColumn):

        def write(view, index, value):
            _place(view, index)[index] = value

        return write
    return None


if CHECKED:

    @compiled
    def column(run_state, number):
        """The column `number`, every index of which is looked at."""
        return _view(run_state, number, run_state[SCALARS + 2 * number])

else:

    @compiled
    def column(run_state, number):
        """The column `number`: a pointer to its first integer."""
        return _pointer(run_state[SCALARS + 2 * number])


@inlined
def fetch(run_state, number, at):
    """Have the cache line of a column's integer `at` brought near, for it will be needed soon."""
    _prefetch(run_state[SCALARS + 2 * number] + 8 * at)


@compiled
def length(run_state, number):
    """How many integers a column has."""
    return run_state[SCALARS + 2 * number + 1]


@intrinsic
def _call_room_maker(typingctx: Any, address: Any, number: Any) -> Any:
    """Call the function at an address with a column's number; it returns 0 if it failed."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        function = builder.inttoptr(args[0], ir.FunctionType(word, [word]).as_pointer())
        return builder.call(function, [args[1]])

    return types.int64(types.int64, types.int64), generate


_ask_python: Any = _call_room_maker


@compiled
def make_capacity(run_state, number):
    """Have Python lengthen a column that is full. Pointers to it, taken before, are out of date afterwards."""
    if run_state[ROOM_MAKER] == 0 or _ask_python(run_state[ROOM_MAKER], number) == 0:
        raise MemoryError("a column is full and could not be lengthened")


COLD_BYTES = 1 << 21  # a column as long as that may move to a file


def zeros(length: int) -> np.ndarray:
    """Zeros that begin where a pair of cache lines does (a row of eight integers is one line), between guard words."""
    data = np.zeros(length + 4 * LINE, dtype=np.int64)
    skip = LINE + -(data.ctypes.data // data.itemsize + LINE) % (2 * LINE)
    data[skip - LINE : skip] = GUARD
    data[skip + length : skip + length + LINE] = GUARD
    if length == 0:
        data[:] = GUARD
    return data[skip : skip + length]


def _is_intact(data: np.ndarray) -> bool:
    """Whether the guard words around an array that `zeros` made are as they were."""
    whole: Any = data.base
    if len(data) == 0:  # numpy moves an empty slice to the front of its array
        return bool((whole == GUARD).all())
    first = (data.ctypes.data - whole.ctypes.data) // whole.itemsize
    last = first + len(data)
    return bool((whole[first - LINE : first] == GUARD).all() and (whole[last : last + LINE] == GUARD).all())


class DamagedError(RuntimeError):
    """Compiled code has written outside of its columns: nothing that this run computed can be believed."""


_ROOM_MAKER = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


class RunState:
    """Owner of a run's memory: allocates columns, doubles them, and lets Python read them."""

    def __init__(self) -> None:
        self.array = zeros(DESK_LEN)
        self.array[SELF] = self.array.ctypes.data
        self._columns: dict[int, np.ndarray] = {}
        self._damaged: set[int] = set()  # columns replaced since, whose guard words were overwritten
        self._seldom: frozenset[int] = frozenset()  # columns that move to a file once they are long
        self._cold: dict[int, ColdColumn] = {}
        self._maker: Any = None
        self._limit: int | None = None
        self._resident: Callable[[], int] = lambda: 0
        self.failure: BaseException | None = None  # why a column could not be lengthened

    def on_full(self, lengthen: Callable[[int], None]) -> None:
        """Have `lengthen` called, with a column's number, by compiled code that finds the column full."""

        def make_capacity(number: int) -> int:
            try:
                lengthen(number)
            except BaseException as error:  # it must not pass through compiled code
                self.failure = error
                return 0
            return 1

        self._maker = _ROOM_MAKER(make_capacity)  # kept: compiled code has its address
        self.array[ROOM_MAKER] = ctypes.cast(self._maker, ctypes.c_void_p).value

    def allocate(self, number: int, length: int, fill: int = 0) -> np.ndarray:
        """Make column `number` of `length` integers; memory is committed by the system when first touched."""
        data = zeros(length)
        if fill:
            data[:] = fill
        self._adopt(number, data)
        return data

    def adopt(self, number: int, values: np.ndarray) -> np.ndarray:
        """Use a copy of `values` as column `number`."""
        data = zeros(values.size)
        data[:] = values.reshape(-1)
        self._adopt(number, data)
        return data

    def grow(self, number: int, fill: int = 0, factor: int = 2) -> tuple[int, int]:
        """Lengthen column `number` by `factor`; returns (old length, new length). Raises MemoryError at the limit."""
        length = len(self._columns[number])
        self.grow_to(number, length * factor, fill)
        return length, length * factor

    def grow_to(self, number: int, length: int, fill: int = 0) -> None:
        """Lengthen column `number`. Raises MemoryError at the limit."""
        old = self._columns[number]
        if number in self._seldom and (number in self._cold or old.nbytes >= COLD_BYTES):
            with contextlib.suppress(OSError):  # no room for a file: it stays in memory
                self._grow_cold(number, length, fill)
                return
        self.spare(8 * (length - len(old)))
        data = zeros(length)
        data[: len(old)] = old
        if fill:
            data[len(old) :] = fill
        self._adopt(number, data)
        self._cold.pop(number, None)

    def seldom(self, *numbers: int) -> None:
        """These columns are kept in files once they are long: one seldom looks at what is in them (sim.kernel.cold)."""
        self._seldom = frozenset(numbers)

    def rest(self) -> None:
        """Let go of the memory of columns in files, until somebody looks."""
        for column_ in self._cold.values():
            column_.rest()

    def _grow_cold(self, number: int, length: int, fill: int) -> None:
        old = self._columns[number]
        if not _is_intact(old):
            self._damaged.add(number)  # looked at now: to lengthen it moves the words behind it
        cold = self._cold.get(number) or ColdColumn(old)
        data = cold.lengthen(length)
        if fill:
            data[len(old) :] = fill
        self._cold[number] = cold
        del self._columns[number]  # a view of the same file, whose last guard words are no more
        self._adopt(number, data)

    def replace(self, number: int, data: np.ndarray) -> None:
        """Use `data` itself, made by `zeros`, as column `number`."""
        self._adopt(number, data)

    def limit(self, most_bytes: int | None, resident: Callable[[], int]) -> None:
        """No column is lengthened where memory in use and its copy would pass a limit. `resident`: what is in use."""
        self._limit, self._resident = most_bytes, resident

    def spare(self, more_bytes: int) -> None:
        """Raise MemoryError if so much more would pass the limit."""
        if self._limit is not None and self._resident() + more_bytes > self._limit:
            raise MemoryError(f"{self._limit} bytes would be passed; a column of {more_bytes} bytes is full")

    def damage(self) -> list[int]:
        """Columns around which something was written that does not belong there; -1 stands for the run state itself."""
        found = self._damaged | {number for number, data in self._columns.items() if not _is_intact(data)}
        return sorted(found if _is_intact(self.array) else {*found, -1})

    def verify(self) -> None:
        """Raise DamagedError if compiled code has written outside of its columns."""
        found = self.damage()
        if found:
            raise DamagedError(
                f"columns {', '.join(map(str, found))} were written to outside of their bounds; nothing of this run "
                "can be believed and nothing is stored; please report the scenario and the seed"
            )

    def __getitem__(self, number: int) -> np.ndarray:
        return self._columns[number]

    def __contains__(self, number: int) -> bool:
        return number in self._columns

    def bytes_allocated(self) -> int:
        """Memory of all columns, bytes (reserved; untouched pages cost nothing)."""
        return sum(data.nbytes for data in self._columns.values())

    def _adopt(self, number: int, data: np.ndarray) -> None:
        if number in self._columns and not _is_intact(self._columns[number]):
            self._damaged.add(number)
        self._columns[number] = data
        self.array[SCALARS + 2 * number] = data.ctypes.data
        self.array[SCALARS + 2 * number + 1] = len(data)

"""The interpreter of nvcc's PTX: each instruction against values computed here, and kernels that are wrong.

The kernels themselves run on it by `python -m testing.ptx`, this file too.
"""

import math

import ml_dtypes
import numpy as np
import pytest

from testing import ptx

pytestmark = [pytest.mark.cpu_only, pytest.mark.ptx]

TYPES = {  # of registers: PTX's name of a type, of loads and stores, of NumPy
    "b16": ("b16", "u16", np.uint16),
    "u16": ("b16", "u16", np.uint16),
    "s16": ("b16", "u16", np.int16),
    "b32": ("b32", "u32", np.uint32),
    "u32": ("b32", "u32", np.uint32),
    "s32": ("b32", "u32", np.int32),
    "b64": ("b64", "u64", np.uint64),
    "u64": ("b64", "u64", np.uint64),
    "s64": ("b64", "u64", np.int64),
    "f32": ("f32", "f32", np.float32),
    "f64": ("f64", "f64", np.float64),
    "pred": ("pred", "u32", np.uint32),
}


def kernel(body, result, sources):
    """A kernel whose thread t computes y from a[t], b[t], ...; a predicate is a number in memory."""
    names = "abcd"[: len(sources)]
    lines = [".reg .b64 address, offset;", ".reg .u32 t, block, size, word;"]
    lines += [
        "mov.u32 t, %tid.x;",
        "mov.u32 block, %ctaid.x;",
        "mov.u32 size, %ntid.x;",
        "mad.lo.s32 t, block, size, t;",
    ]

    def move(name, dtype, load):
        _, memory, numpy = TYPES[dtype]
        found = [
            f"ld.param.u64 address, [p{name}];",
            f"mul.wide.u32 offset, t, {np.dtype(numpy).itemsize};",
            "add.s64 address, address, offset;",
        ]
        if dtype == "pred":
            to_word = [f"selp.u32 word, 1, 0, {name};", "st.global.u32 [address], word;"]
            from_word = ["ld.global.u32 word, [address];", f"setp.ne.u32 {name}, word, 0;"]
            return found + (from_word if load else to_word)
        if load:
            return [*found, f"ld.global.{memory} {name}, [address];"]
        return [*found, f"st.global.{memory} [address], {name};"]

    for name, dtype in [*zip(names, sources, strict=True), ("y", result)]:
        lines.append(f".reg .{TYPES[dtype][0]} {name};")
    for name, dtype in zip(names, sources, strict=True):
        lines += move(name, dtype, load=True)
    lines += [body, *move("y", result, load=False), "ret;"]
    parameters = ", ".join(f".param .u64 p{name}" for name in [*names, "y"])
    return HEAD + f".visible .entry k({parameters})\n{{\n" + "\n".join(lines) + "\n}\n"


HEAD = ".version 9.0\n.target sm_90\n.address_size 64\n"


def execute(body, result, sources, *operands, threads=None):
    """y of all threads, one per element of the operands."""
    arrays = [
        np.ascontiguousarray(a, TYPES[dtype][2]) for a, dtype in zip(operands, sources, strict=True)
    ]
    y = np.zeros(arrays[0].shape, TYPES[result][2])
    text = kernel(body, result, sources)
    wrong = ptx.run(text, "k", [*arrays, y], threads=threads or y.size)
    assert not wrong, wrong
    return y


def pairs(values, dtype):
    """All pairs of these values."""
    a, b = np.meshgrid(np.array(values, TYPES[dtype][2]), np.array(values, TYPES[dtype][2]))
    return a.ravel(), b.ravel()


def edges(dtype):
    """Integers at which something may go wrong."""
    info = np.iinfo(TYPES[dtype][2])
    some = {0, 1, 2, 3, 7, 12345, info.max, info.max - 1, info.min, info.min + 1}
    return sorted(some | ({-1, -2, -7, -12345} if info.min < 0 else {info.max // 2 + 1}))


def wrapped(value, dtype):
    """A Python integer as the type keeps it."""
    bits = 8 * np.dtype(TYPES[dtype][2]).itemsize
    value %= 1 << bits
    return value - (1 << bits) if dtype[0] == "s" and value >> (bits - 1) else value


def quotient(a, b, dtype):
    return -1 if b == 0 else (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)


def bits_of(dtype):
    return 8 * np.dtype(TYPES[dtype][2]).itemsize


INTEGER = {
    "add": lambda a, b, t: a + b,
    "sub": lambda a, b, t: a - b,
    "mul.lo": lambda a, b, t: a * b,
    "mul.hi": lambda a, b, t: (a * b) >> bits_of(t),
    "div": quotient,
    "rem": lambda a, b, t: a if b == 0 else a - b * quotient(a, b, t),
    "min": lambda a, b, t: min(a, b),
    "max": lambda a, b, t: max(a, b),
    "and": lambda a, b, t: a & b,
    "or": lambda a, b, t: a | b,
    "xor": lambda a, b, t: a ^ b,
}
BITWISE = {"and", "or", "xor"}


@pytest.mark.parametrize("dtype", ["u16", "s16", "u32", "s32", "u64", "s64"])
@pytest.mark.parametrize("name", INTEGER)
def test_integers(name, dtype):
    typed = f"b{bits_of(dtype)}" if name in BITWISE else dtype
    a, b = pairs(edges(dtype), dtype)
    got = execute(f"{name}.{typed} y, a, b;", dtype, [dtype] * 2, a, b)
    expected = [wrapped(INTEGER[name](int(u), int(v), dtype), dtype) for u, v in zip(a, b)]
    assert got.tolist() == expected


@pytest.mark.parametrize(("name", "right"), [("shl", False), ("shr", True)])
@pytest.mark.parametrize("dtype", ["b16", "u16", "s16", "b32", "u32", "s32", "b64", "u64", "s64"])
def test_shifts_beyond_the_width(name, right, dtype):
    if name == "shl" and dtype[0] != "b":
        return  # of bits only
    amounts = [0, 1, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 2**31, 2**32 - 1]
    values = edges(dtype.replace("b", "u"))
    a, n = (v.ravel() for v in np.meshgrid(np.array(values, TYPES[dtype][2]), np.uint32(amounts)))
    got = execute(f"{name}.{dtype} y, a, b;", dtype, [dtype, "u32"], a, n)
    shift = (lambda u, v: u >> v) if right else (lambda u, v: u << v)
    expected = [wrapped(shift(int(u), min(int(v), 100)), dtype) for u, v in zip(a, n)]
    assert got.tolist() == expected


@pytest.mark.parametrize("dtype", ["u16", "s16", "u32", "s32"])
def test_wide_products(dtype):
    twice = dtype[0] + str(2 * bits_of(dtype))
    a, b = pairs(edges(dtype), dtype)
    got = execute(f"mul.wide.{dtype} y, a, b;", twice, [dtype] * 2, a, b)
    assert got.tolist() == [int(u) * int(v) for u, v in zip(a, b)]
    c = np.resize(np.array(edges(twice), TYPES[twice][2]), a.size)
    got = execute(f"mad.wide.{dtype} y, a, b, c;", twice, [dtype, dtype, twice], a, b, c)
    assert got.tolist() == [wrapped(int(u) * int(v) + int(w), twice) for u, v, w in zip(a, b, c)]


@pytest.mark.parametrize("dtype", ["u32", "s32", "s64"])
def test_products_and_sums(dtype):
    a, b = pairs(edges(dtype), dtype)
    got = execute(f"mad.lo.{dtype} y, a, b, c;", dtype, [dtype] * 3, a, b, a)
    assert got.tolist() == [wrapped(int(u) * int(v) + int(u), dtype) for u, v in zip(a, b)]


UNARY = {
    "neg.s32": ("s32", lambda a: -a),
    "neg.s64": ("s64", lambda a: -a),
    "abs.s32": ("s32", abs),
    "not.b16": ("u16", lambda a: ~a),
    "not.b32": ("u32", lambda a: ~a),
    "not.b64": ("u64", lambda a: ~a),
    "brev.b32": ("u32", lambda a: int(f"{a:032b}"[::-1], 2)),
    "brev.b64": ("u64", lambda a: int(f"{a:064b}"[::-1], 2)),
    "mov.b32": ("u32", lambda a: a),
    "mov.u16": ("u16", lambda a: a),
    "mov.b64": ("u64", lambda a: a),
}
TO_U32 = {
    "popc.b32": ("u32", lambda a: bin(a).count("1")),
    "popc.b64": ("u64", lambda a: bin(a).count("1")),
    "clz.b32": ("u32", lambda a: 32 - a.bit_length()),
    "clz.b64": ("u64", lambda a: 64 - a.bit_length()),
    "bfind.u32": ("u32", lambda a: a.bit_length() - 1),
    "bfind.s32": ("s32", lambda a: (a if a >= 0 else ~a).bit_length() - 1),
    "bfind.u64": ("u64", lambda a: a.bit_length() - 1),
    "bfind.shiftamt.u32": ("u32", lambda a: 32 - a.bit_length() if a else -1),
    "bfind.shiftamt.s32": (
        "s32",
        lambda a: 32 - (a if a >= 0 else ~a).bit_length() if a not in (0, -1) else -1,
    ),
}


@pytest.mark.parametrize("name", UNARY)
def test_one_operand(name):
    dtype, expected = UNARY[name]
    a = np.array(edges(dtype), TYPES[dtype][2])
    got = execute(f"{name} y, a;", dtype, [dtype], a)
    assert got.tolist() == [wrapped(expected(int(v)), dtype) for v in a]


@pytest.mark.parametrize("name", TO_U32)
def test_searches_of_bits(name):
    dtype, expected = TO_U32[name]
    a = np.array(edges(dtype), TYPES[dtype][2])
    got = execute(f"{name} y, a;", "u32", [dtype], a)
    assert got.tolist() == [wrapped(expected(int(v)), "u32") for v in a]


FIELDS = [(0, 0), (0, 1), (3, 5), (28, 8), (31, 1), (32, 4), (0, 32), (0, 255), (40, 30), (259, 6)]


@pytest.mark.parametrize("dtype", ["u32", "s32", "u64", "s64"])
def test_bit_fields(dtype):
    width = bits_of(dtype)
    for at, count in FIELDS:
        a = np.array(edges(dtype), TYPES[dtype][2])
        got = execute(f"bfe.{dtype} y, a, {at}, {count};", dtype, [dtype], a)
        at, count = at & 255, count & 255
        for v, result in zip(a, got):
            field = wrapped(int(v), f"u{width}")
            field = (field >> at) & ((1 << count) - 1) if count else 0
            top = min(at + count - 1, width - 1)
            if dtype[0] == "s" and count and wrapped(int(v), f"u{width}") >> top & 1:
                field |= -1 << max(min(count, width - at), 0)
            assert int(result) == wrapped(field, dtype), (at, count, v)


@pytest.mark.parametrize("width", [32, 64])
def test_insertion_of_bits(width):
    dtype, a = f"u{width}", np.array(edges(f"u{width}"), f"uint{width}")
    for at, count in FIELDS:
        got = execute(f"bfi.b{width} y, a, b, {at}, {count};", dtype, [dtype] * 2, a, a[::-1])
        mask = ((1 << (count & 255)) - 1) << (at & 255)
        for u, v, result in zip(a, a[::-1], got):
            expected = (int(v) & ~mask) | ((int(u) << (at & 255)) & mask)
            assert int(result) == wrapped(expected, dtype)


def test_bytes_and_logic_of_three():
    a, b = pairs(edges("u32"), "u32")
    both = [int(v) << 32 | int(u) for u, v in zip(a, b)]
    for selector in (0x3210, 0x7531, 8452, 0x89AB, 0xFEDC):
        got = execute(f"prmt.b32 y, a, b, {selector};", "u32", ["u32"] * 2, a, b)
        for pair, result in zip(both, got):
            chosen = [selector >> 4 * k & 15 for k in range(4)]
            byte = [pair >> 8 * (n & 7) & 255 for n in chosen]
            byte = [(255 if v & 128 else 0) if n & 8 else v for n, v in zip(chosen, byte)]
            assert int(result) == sum(v << 8 * k for k, v in enumerate(byte))
    got = execute("lop3.b32 y, a, b, c, 0xe8;", "u32", ["u32"] * 3, a, b, a[::-1])
    assert got.tolist() == ((a & b) | (a & a[::-1]) | (b & a[::-1])).tolist()


@pytest.mark.parametrize("mode", ["wrap", "clamp"])
@pytest.mark.parametrize("direction", ["l", "r"])
def test_funnel_shifts(direction, mode):
    n = np.uint32([0, 1, 31, 32, 33, 64, 2**32 - 1])
    low, high = np.full(n.shape, 0x89ABCDEF, "u4"), np.full(n.shape, 0x01234567, "u4")
    got = execute(f"shf.{direction}.{mode}.b32 y, a, b, c;", "u32", ["u32"] * 3, low, high, n)
    for amount, result in zip(n.tolist(), got):
        amount = amount & 31 if mode == "wrap" else min(amount, 32)
        both = 0x0123456789ABCDEF
        expected = both >> amount if direction == "r" else (both << amount) >> 32
        assert int(result) == wrapped(expected, "u32")


@pytest.mark.parametrize("dtype", ["b16", "u16", "b32", "u32", "f32", "b64", "u64", "f64"])
def test_selection(dtype):
    a, b = np.arange(40).astype(TYPES[dtype][2]), np.arange(40, 80).astype(TYPES[dtype][2])
    p = np.arange(40) % 3 == 0
    got = execute(f"selp.{dtype} y, a, b, c;", dtype, [dtype, dtype, "pred"], a, b, p)
    assert got.tolist() == np.where(p, a, b).tolist()


def test_predicates():
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    for name, expected in {"and": a & b, "or": a | b, "xor": a ^ b}.items():
        assert execute(f"{name}.pred y, a, b;", "pred", ["pred"] * 2, a, b).tolist() == [*expected]
    assert execute("not.pred y, a;", "pred", ["pred"], a).tolist() == [1, 1, 0, 0]
    assert execute("mov.pred y, a;", "pred", ["pred"], a).tolist() == [0, 0, 1, 1]
    for number in (0, -1, 1):
        constant = f"mov.pred y, {number}; and.pred y, y, a;"
        assert execute(constant, "pred", ["pred"], a).tolist() == [*(a * (number != 0))]
    guarded = "mov.u32 y, 5; @a mov.u32 y, 6; @!a add.s32 y, y, 2;"
    assert execute(guarded, "u32", ["pred"], a).tolist() == [7, 7, 6, 6]


COMPARISONS = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: (a < b) | (a > b),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
UNSIGNED_NAMES = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


@pytest.mark.parametrize("dtype", ["u16", "s16", "u32", "s32", "u64", "s64"])
def test_comparisons_of_integers(dtype):
    a, b = pairs(edges(dtype), dtype)
    names = {name: name for name in COMPARISONS} | (UNSIGNED_NAMES if dtype[0] == "u" else {})
    for name, meaning in names.items():
        got = execute(f"setp.{name}.{dtype} y, a, b;", "pred", [dtype] * 2, a, b)
        assert np.array_equal(got, COMPARISONS[meaning](a, b)), name


FLOATS = [0.0, -0.0, 1.0, -1.0, 1.5, 3.0, 1e-40, -1e-40, 1e30, np.inf, -np.inf, np.nan, 0.1, -7.3]
FLOAT_TYPES = ["f32", "f64"]


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
def test_comparisons_of_numbers_and_nan(dtype):
    a, b = pairs(FLOATS, dtype)
    unordered = np.isnan(a) | np.isnan(b)
    for name, f in COMPARISONS.items():
        got = execute(f"setp.{name}.{dtype} y, a, b;", "pred", [dtype] * 2, a, b)
        assert np.array_equal(got, f(a, b) & ~unordered), name
        got = execute(f"setp.{name}u.{dtype} y, a, b;", "pred", [dtype] * 2, a, b)
        assert np.array_equal(got, f(a, b) | unordered), name
    for name, expected in {"num": ~unordered, "nan": unordered}.items():
        got = execute(f"setp.{name}.{dtype} y, a, b;", "pred", [dtype] * 2, a, b)
        assert np.array_equal(got, expected)


def test_comparisons_combine_with_a_predicate():
    """Two results: the comparison, and its negation, each combined with c or !c."""
    a, b = np.int32([1, 1, 2, 2]), np.int32([2, 2, 1, 1])
    c = np.array([0, 1, 0, 1])
    less = a < b
    for name, f in {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}.items():
        for sign, third in (("", c), ("!", 1 - c)):
            body = f".reg .pred q; setp.lt.{name}.s32 {{}}, a, b, {sign}c;"
            first = execute(body.format("y|q"), "pred", ["s32", "s32", "pred"], a, b, c)
            second = execute(body.format("q|y"), "pred", ["s32", "s32", "pred"], a, b, c)
            assert np.array_equal(first, f(less, third))
            assert np.array_equal(second, f(~less, third))


FLOAT_BINARY = {
    "add": np.add,
    "add.rn": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div.rn": np.divide,
    "copysign": lambda a, b: np.copysign(b, a),
}


def assert_same(got, expected):
    """Bit for bit, but for the payload of a NaN."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype
    bits = f"u{got.itemsize}"
    same = (got.view(bits) == expected.view(bits)) | (np.isnan(got) & np.isnan(expected))
    assert np.all(same), (got[~same], expected[~same])


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("name", FLOAT_BINARY)
def test_rounding_to_nearest(name, dtype):
    """Denormals are numbers."""
    a, b = pairs(FLOATS, dtype)
    with np.errstate(all="ignore"):
        expected = FLOAT_BINARY[name](a, b)
    assert_same(execute(f"{name}.{dtype} y, a, b;", dtype, [dtype] * 2, a, b), expected)


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
def test_least_and_greatest(dtype):
    """A number where one is NaN; -0 is below 0."""
    a, b = pairs(FLOATS, dtype)

    def least(u, v):
        if math.isnan(u) or math.isnan(v):
            return v if math.isnan(u) else u
        return min((u, v), key=lambda x: (x, math.copysign(1, x)))

    expected = np.array([least(u, v) for u, v in zip(a, b)], a.dtype)
    assert_same(execute(f"min.{dtype} y, a, b;", dtype, [dtype] * 2, a, b), expected)
    expected = -np.array([least(-u, -v) for u, v in zip(a, b)], a.dtype)
    assert_same(execute(f"max.{dtype} y, a, b;", dtype, [dtype] * 2, a, b), expected)


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
def test_fused_products_round_once(dtype):
    eps = np.finfo(TYPES[dtype][2]).eps
    a = np.array([1 + eps, 1 + eps, np.inf, 0.1, 1e30], TYPES[dtype][2])
    c = np.array([-1 - 2 * eps, 0.0, 1.0, -0.01, -1e30], TYPES[dtype][2])
    got = execute(f"fma.rn.{dtype} y, a, a, b;", dtype, [dtype] * 2, a, c)
    assert got[0] == eps**2
    exact = [np.longdouble(u) * np.longdouble(u) + np.longdouble(v) for u, v in zip(a, c)]
    if dtype == "f32":
        with np.errstate(over="ignore"):
            assert_same(got, np.array(exact).astype(np.float32))
    assert got[2] == np.inf


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
def test_one_number(dtype):
    a = np.array([*FLOATS, 2.0, 1e-44, 5e-324], TYPES[dtype][2])
    with np.errstate(all="ignore"):
        for name, expected in {
            "neg": -a,
            "abs": np.abs(a),
            "sqrt.rn": np.sqrt(a),
            "rcp.rn": (1 / a).astype(a.dtype),
            "mov": a,
        }.items():
            assert_same(execute(f"{name}.{dtype} y, a;", dtype, [dtype], a), expected)


def test_the_approximate_reciprocal():
    """Flushes denormals, in and out; may be off by an ulp."""
    a = np.float32([1, 3, -7, 1e-40, -1e-40, 2e38, 0, -0.0, np.inf, np.nan])
    with np.errstate(all="ignore"):
        exact = np.float32(1) / a
    expected = np.where(np.abs(a) < 1e-38, np.copysign(np.float32(np.inf), a), exact)
    expected[5] = 0
    body = "rcp.approx.ftz.f32 y, a;"
    assert_same(execute(body, "f32", ["f32"], a), expected)
    many = np.tile(np.float32([3, 7, -11]), 300)
    with ptx.configured(ulps=1):
        got = execute(body, "f32", ["f32"], many)
    off = (got.view("i4") - (np.float32(1) / many).view("i4")).tolist()
    assert set(off) == {-1, 0, 1}


INTEGER_TYPES = ["u16", "s16", "u32", "s32", "u64", "s64"]


@pytest.mark.parametrize("to", INTEGER_TYPES)
@pytest.mark.parametrize("source", INTEGER_TYPES)
def test_conversions_of_integers(source, to):
    a = np.array(edges(source), TYPES[source][2])
    got = execute(f"cvt.{to}.{source} y, a;", to, [source], a)
    assert got.tolist() == [wrapped(int(v), to) for v in a]


@pytest.mark.parametrize("register", ["u16", "s16", "u32", "s32"])
@pytest.mark.parametrize("kind", ["u8", "s8"])
def test_conversions_of_bytes_in_registers(kind, register):
    """The low byte counts."""
    a = np.array([0, 1, 127, 128, 255, 256, 383], TYPES[register][2])
    for to in ("u16", "s16", "u32", "s32", "s64"):
        got = execute(f"cvt.{to}.{kind} y, a;", to, [register], a)
        low = a.astype("int64") & 255
        value = np.where(low > 127, low - 256, low) if kind == "s8" else low
        assert got.tolist() == [wrapped(int(v), to) for v in value]


@pytest.mark.parametrize("to", ["s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("source", FLOAT_TYPES)
def test_conversions_to_integers_truncate_and_saturate(source, to):
    values = [0.0, -0.0, 0.9, -0.9, 1.5, -2.5, 2.0**31, -(2.0**31), 2.0**33, 2.0**63, -(2.0**63)]
    a = np.array([*values, 2.0**64, 1e30, -1e30, np.inf, -np.inf, np.nan], TYPES[source][2])
    info = np.iinfo(TYPES[to][2])
    got = execute(f"cvt.rzi.{to}.{source} y, a;", to, [source], a)

    def truncated(v):
        if math.isnan(v):
            return wrapped(1 << 63, to) if info.bits == 64 else 0
        if math.isinf(v):
            return int(info.max if v > 0 else info.min)
        return int(min(max(int(v), info.min), info.max))

    assert got.tolist() == [truncated(float(v)) for v in a]


@pytest.mark.parametrize("to", FLOAT_TYPES)
@pytest.mark.parametrize("source", INTEGER_TYPES)
def test_conversions_of_integers_round_to_nearest(source, to):
    more = [2**24 + 1, 2**24 + 3, 2**53 + 1, 2**53 + 3]
    info = np.iinfo(TYPES[source][2])
    a = np.array(edges(source) + [v for v in more if v <= info.max], TYPES[source][2])
    got = execute(f"cvt.rn.{to}.{source} y, a;", to, [source], a)
    assert_same(got, a.astype(TYPES[to][2]))


def test_conversions_between_floats():
    a = np.array([*FLOATS, 1e300, 1 + 2.0**-24, 1 + 3 * 2.0**-24, 1e-46])
    with np.errstate(over="ignore"):
        expected = a.astype(np.float32)
    assert_same(execute("cvt.rn.f32.f64 y, a;", "f32", ["f64"], a), expected)
    wide = execute("cvt.f64.f32 y, a;", "f64", ["f32"], expected)
    assert_same(wide, expected.astype(np.float64))


@pytest.mark.parametrize(("kind", "dtype"), [("f16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_half_types_round_to_nearest(kind, dtype):
    a = np.float32(
        [*FLOATS, 65504, 65519, 65520, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-8, 6e-8]
    )
    got = execute(f"cvt.rn.{kind}.f32 y, a;", "u16", ["f32"], a)
    with np.errstate(over="ignore"):
        expected = a.astype(dtype).view("u2")
    assert got.tolist() == np.where(np.isnan(a), 0x7FFF, expected).tolist()
    if kind == "f16":
        assert_same(execute("cvt.f32.f16 y, a;", "f32", ["u16"], got), got.view(dtype).astype("f4"))


def test_packing():
    a, b = pairs(edges("u32"), "u32")
    got = execute("mov.b64 y, {a, b};", "u64", ["u32"] * 2, a, b)
    assert got.tolist() == [int(v) << 32 | int(u) for u, v in zip(a, b)]
    again = execute(".reg .b32 low; mov.b64 {low, y}, a;", "u32", ["u64"], got)
    assert again.tolist() == b.tolist()
    halves = ".reg .b16 low, high; mov.b32 {low, high}, a; mov.b32 y, {high, low};"
    got = execute(halves, "u32", ["u32"], a)
    assert got.tolist() == [(int(v) >> 16) | (int(v) & 0xFFFF) << 16 for v in a]


def test_special_registers_and_blocks():
    text = kernel("mad.lo.s32 y, block, 1000, t; mad.lo.s32 y, size, 100000, y;", "u32", [])
    y = np.zeros(80, np.uint32)
    assert not ptx.run(text, "k", [y], grid=2, threads=40)
    t = np.arange(80)
    assert y.tolist() == (4000000 + 1000 * (t // 40) + t).tolist()
    lanes = kernel(
        ".reg .u32 n; mov.u32 y, %laneid; mov.u32 n, %nctaid.x; add.s32 y, y, n;", "u32", []
    )
    assert not ptx.run(lanes, "k", [y], grid=2, threads=40)
    assert y.tolist() == (2 + t % 40 % 32).tolist()

"""Tables as data: exact values and types, bounds, and whole tables as files."""

import json

import pytest

TABLE = "application/vnd.crownest.table+json"
ROWS_MAX = 200
DOCUMENT_BYTES_MAX = 256 * 1024
LIBRARIES = "import pandas as pd, numpy as np, datetime as dt, decimal\n"


def table(run):
    assert run.error is None, run.error
    bundle = run.result or run.of("display")[0]["data"]
    made = bundle[TABLE]
    assert made["version"] == 1
    for row in made["rows"]:
        assert len(row) == len(made["columns"])
    return made


def shown(context, code):
    return table(context.run(LIBRARIES + code))


def column(made, name):
    """(the column, its values)"""
    places = [i for i, one in enumerate(made["columns"]) if one["name"] == name]
    assert len(places) == 1, made["columns"]
    return made["columns"][places[0]], [row[places[0]] for row in made["rows"]]


def needs(context, module):
    if context.run("import importlib.util as u; u.find_spec(%r) is None" % module).text == "True":
        pytest.skip("%s is not installed" % module)


# === pandas ===

PANDAS = [
    ("[1, 2]", "int64", "integer", False, [1, 2]),
    ("[2 ** 53 - 1, -(2 ** 53 - 1)]", "int64", "integer", False, [2**53 - 1, -(2**53 - 1)]),
    ("[1, 2 ** 53]", "int64", "integer", False, ["1", str(2**53)]),
    ("np.array([2 ** 64 - 1, 0], dtype='u8')", "uint64", "integer", False, [str(2**64 - 1), "0"]),
    ("[1.5, 0.1]", "float64", "float", True, [1.5, 0.1]),
    ("[np.nan, 1e300]", "float64", "float", True, [None, 1e300]),
    ("[np.inf, -np.inf]", "float64", "float", True, ["Infinity", "-Infinity"]),
    ("np.array([0.1, 1], dtype='f4')", "float32", "float", True, [0.10000000149011612, 1.0]),
    ("[True, False]", "bool", "boolean", False, [True, False]),
    ("['a', None]", "str", "string", True, ["a", None]),
    ("['é😀', '\"<b>']", "str", "string", True, ["é😀", '"<b>']),
    ("pd.array([1, None], dtype='Int64')", "Int64", "integer", True, [1, None]),
    ("pd.array([1.5, None], dtype='Float64')", "Float64", "float", True, [1.5, None]),
    ("pd.array([True, None], dtype='boolean')", "boolean", "boolean", True, [True, None]),
    (
        "pd.to_datetime(['2026-01-01', None])",
        "datetime64[us]",
        "datetime",
        True,
        ["2026-01-01T00:00:00", None],
    ),
    (
        "np.array(['2026-01-02T03:04:05.123456789', 'NaT'], dtype='M8[ns]')",
        "datetime64[ns]",
        "datetime",
        True,
        ["2026-01-02T03:04:05.123456789", None],
    ),
    (
        "pd.to_datetime(['2026-07-01 12:00:00.5', None]).tz_localize('Europe/Oslo')",
        "datetime64[us, Europe/Oslo]",
        "datetime",
        True,
        ["2026-07-01T12:00:00.5+02:00", None],
    ),
    (
        "pd.to_timedelta(['1 days 2 hours 3.25 seconds', '-1 hours'])",
        "timedelta64[us]",
        "duration",
        True,
        ["P1DT2H0M3.25S", "-P0DT1H0M0S"],
    ),
    (
        "pd.period_range('2026-01', periods=2, freq='M')",
        "period[M]",
        "string",
        True,
        ["2026-01", "2026-02"],
    ),
    ("[dt.date(2026, 1, 1), None]", "object", "date", True, ["2026-01-01", None]),
    ("[dt.time(1, 2), None]", "object", "time", True, ["01:02:00", None]),
    ("[decimal.Decimal('1.10'), None]", "object", "decimal", True, ["1.10", None]),
    ("[b'\\x00\\xff', None]", "object", "binary", True, ["AP8=", None]),
    ("[[1, 2 ** 60], [None]]", "object", "list", True, [[1, str(2**60)], [None]]),
    ("[{'k': (1, 'x')}, None]", "object", "json", True, [{"k": [1, "x"]}, None]),
    ("[1, 'a']", "object", "mixed", True, [1, "a"]),
    ("[None, None]", "object", "null", True, [None, None]),
    ("[2 ** 100, 1]", "object", "integer", True, [str(2**100), "1"]),
    ("[1j, 2j]", "complex128", "object", True, ["1j", "2j"]),
]


@pytest.mark.parametrize("values, dtype, kind, nullable, cells", PANDAS)
def test_columns_of_pandas(context, values, dtype, kind, nullable, cells):
    made = shown(context, "pd.DataFrame({'c': pd.Series(%s)})" % values)
    found, got = column(made, "c")
    assert (found["dtype"], found["type"], found["nullable"]) == (dtype, kind, nullable)
    assert got == cells and [type(cell) for cell in got] == [type(cell) for cell in cells]
    assert found.get("encoding") == (
        "base64"
        if kind == "binary"
        else "string"
        if kind == "integer" and type(cells[0]) is str
        else None
    )
    assert (made["library"], made["kind"], made["row_count"], made["column_count"]) == (
        "pandas",
        "table",
        2,
        1,
    )


def test_categories(context):
    made = shown(
        context,
        "pd.DataFrame({'c': pd.Categorical(['u', None, 'v'], categories=['v', 'u'], ordered=True)})",
    )
    found, got = column(made, "c")
    assert (found["type"], found["categories"], found["ordered"], got) == (
        "category",
        ["v", "u"],
        True,
        ["u", None, "v"],
    )


def test_arrow_columns_of_pandas(context):
    needs(context, "pyarrow")
    made = shown(
        context,
        "import pyarrow as pa\npd.DataFrame({'c': pd.array([2 ** 60, None], dtype=pd.ArrowDtype(pa.int64()))})",
    )
    assert column(made, "c")[1] == [str(2**60), None]


def test_the_index(context):
    made = shown(context, "pd.DataFrame({'a': [1, 2]})")
    assert [one["name"] for one in made["columns"]] == ["a"]
    made = shown(context, "pd.DataFrame({'a': [1, 2]}, index=pd.Index(['x', 'y'], name='key'))")
    assert column(made, "key") == (
        {"name": "key", "dtype": "str", "type": "string", "nullable": True, "index": True},
        ["x", "y"],
    )
    made = shown(
        context,
        "pd.DataFrame({'a': [1, 2]}, index=pd.MultiIndex.from_tuples([('x', 1), ('y', 2)], names=['L', None]))",
    )
    assert [(one["name"], one.get("index")) for one in made["columns"]] == [
        ("L", True),
        ("level_1", True),
        ("a", None),
    ]
    made = shown(context, "pd.DataFrame({'a': [1, 2, 3]}).iloc[1:]")
    assert column(made, "index")[1] == [1, 2] and made["column_count"] == 1


def test_names_of_columns(context):
    made = shown(context, "pd.DataFrame([[1, 2]], columns=['a', 'a'])")
    assert [one["name"] for one in made["columns"]] == ["a", "a"] and made["rows"] == [[1, 2]]
    made = shown(
        context, "pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([('x', 1), ('y', 2)]))"
    )
    assert [(one["name"], one["path"]) for one in made["columns"]] == [
        ("x, 1", ["x", "1"]),
        ("y, 2", ["y", "2"]),
    ]
    assert column(shown(context, "pd.DataFrame([[1]], columns=['n' * 1000])"), "n" * 499 + "…")[
        1
    ] == [1]


def test_series(context):
    made = shown(context, "pd.Series([1.5, 2], name='n', index=['p', 'q'])")
    assert (
        made["kind"] == "series"
        and column(made, "n")[1] == [1.5, 2]
        and column(made, "index")[1] == ["p", "q"]
    )
    assert column(shown(context, "pd.Series([1])"), "value")[1] == [1]


def test_empty_tables(context):
    made = shown(context, "pd.DataFrame()")
    assert (made["columns"], made["rows"], made["row_count"]) == ([], [], 0)
    made = shown(context, "pd.DataFrame({'a': pd.Series(dtype='int64')})")
    assert made["columns"][0]["type"] == "integer" and made["rows"] == []


def test_tables_are_shown_as_ever_too(context):
    run = context.run(LIBRARIES + "df = pd.DataFrame({'a': [1]})\ndf")
    assert set(run.result) == {"text/html", "text/plain", TABLE}
    run = context.run("display(df)\nprint(df)")
    assert TABLE in run.of("display")[0]["data"] and len(run.of("display")) == 1
    assert TABLE not in context.run("df.groupby('a')").result
    assert TABLE in context.run("class Sub(pd.DataFrame): pass\nSub({'a': [1]})").result


# === polars and Arrow ===


def test_polars(context):
    needs(context, "polars")
    made = shown(
        context,
        "import polars as pl\npl.DataFrame({'i': [1, None, 2 ** 62], 'f': [1.0, float('nan'), None], 's': ['a', None, 'b'],"
        " 'd': [dt.date(2026, 1, 1)] * 3, 't': [dt.datetime(2026, 1, 1, 2, 3, 4, 500)] * 3, 'u': [dt.timedelta(hours=1)] * 3,"
        " 'l': [[1, 2], None, []], 'st': [{'a': 1}] * 3, 'by': [b'1'] * 3}).with_columns("
        "pl.col('s').cast(pl.Categorical).alias('c'), pl.col('t').dt.replace_time_zone('Europe/Oslo').alias('z'),"
        " pl.Series('n', [1, None, 10 ** 18 + 1], dtype=pl.Int64).cast(pl.Datetime('ns')).alias('ns'))",
    )
    assert {one["name"]: one["type"] for one in made["columns"]} == {
        "i": "integer",
        "f": "float",
        "s": "string",
        "d": "date",
        "t": "datetime",
        "u": "duration",
        "l": "list",
        "st": "json",
        "by": "binary",
        "c": "category",
        "z": "datetime",
        "ns": "datetime",
    }
    assert column(made, "i")[1] == ["1", None, str(2**62)]
    assert column(made, "f")[1] == [1, "NaN", None]
    assert (
        column(made, "t")[1][0] == "2026-01-01T02:03:04.0005"
        and column(made, "u")[1][0] == "P0DT1H0M0S"
    )
    assert (
        column(made, "z")[1][0] == "2026-01-01T02:03:04.0005+01:00"
        and column(made, "z")[0]["timezone"] == "Europe/Oslo"
    )
    assert column(made, "ns")[1] == [
        "1970-01-01T00:00:00.000000001",
        None,
        "2001-09-09T01:46:40.000000001",
    ]
    assert column(made, "l")[1] == [[1, 2], None, []] and column(made, "st")[1][0] == {"a": 1}
    assert (made["library"], made["row_count"]) == ("polars", 3)
    assert shown(context, "import polars as pl\npl.Series('x', [1, 2])")["kind"] == "series"


def test_arrow(context):
    needs(context, "pyarrow")
    made = shown(
        context,
        "import pyarrow as pa\npa.table({'i': [2 ** 60, None], 't': pa.array([1, None], pa.timestamp('ns', '+02:00')),"
        " 'c': pa.array(['a', 'b']).dictionary_encode(), 'f': [float('nan'), None], 'l': [[1], [2]], 'n': pa.nulls(2)})",
    )
    assert [one["type"] for one in made["columns"]] == [
        "integer",
        "datetime",
        "category",
        "float",
        "list",
        "null",
    ]
    assert made["rows"] == [
        [str(2**60), "1970-01-01T02:00:00.000000001+02:00", "a", "NaN", [1], None],
        [None, None, "b", None, [2], None],
    ]
    assert made["library"] == "pyarrow"


# === bounds and harm ===


def test_rows_and_columns_are_counted(context):
    made = shown(context, "pd.DataFrame({'a': range(100_000)})")
    assert (
        len(made["rows"]) == ROWS_MAX
        and made["row_count"] == 100_000
        and made["omitted"] == {"rows": 99_800}
    )
    made = shown(context, "pd.DataFrame(np.zeros((3, 2000)))")
    assert (
        len(made["columns"]) == 500
        and made["column_count"] == 2000
        and made["omitted"] == {"columns": 1500}
    )


def test_long_texts_are_cut_and_counted(context):
    made = shown(context, "pd.DataFrame({'a': ['é' * 3000, 'short']})")
    assert made["rows"][0][0] == "é" * 1999 + "…" and made["omitted"] == {"cut_cells": 1}
    made = shown(context, "pd.DataFrame({'a': [b'x' * 1500, b'x' * 1501]})")
    assert made["rows"][0] == made["rows"][1] and made["omitted"] == {"cut_cells": 1}


@pytest.mark.parametrize(
    "code",
    [
        "pd.DataFrame({str(n): ['é' * 5000] * 300 for n in range(300)})",
        "pd.DataFrame({'a': [[list(range(5000))] * 5000] * 200})",
        "pd.DataFrame(np.random.rand(1000, 1000))",
        "pd.DataFrame({'c': pd.Categorical(['é' * 5000 + str(n) for n in range(1000)])})",
        "pd.DataFrame({'a': [{str(n): 'v' * 3000 for n in range(1000)}]})",
        "x = []\nx.append(x)\npd.DataFrame({'a': [x]})",
    ],
)
def test_large_tables_are_bounded(context, code):
    run = context.run(LIBRARIES + "pd.set_option('display.max_colwidth', 10)\n" + code)
    assert run.status == "ok"
    assert (
        len(json.dumps(run.result.get(TABLE, {}), ensure_ascii=False).encode())
        < DOCUMENT_BYTES_MAX * 1.1
    )


HOSTILE = [
    "class F(pd.DataFrame):\n    iloc = property(lambda self: 1 / 0)\nF({'a': [1]})",
    "class F(pd.DataFrame):\n    def __len__(self): return -1\nF({'a': [1]})",
    "class F(pd.DataFrame):\n    @property\n    def columns(self): return 5\nF()",
    "class S(str):\n    def __str__(self): raise ValueError\n    def __len__(self): return 10 ** 9\npd.DataFrame({S('x'): [S('y')]})",
    "class O:\n    def __str__(self): raise KeyError\n    def __repr__(self): return 'o'\n    def __eq__(self, other): raise TypeError\n    __hash__ = None\npd.DataFrame({'a': [O()]})",
    "class O:\n    def __repr__(self): return 'x' * (1 << 24)\npd.Series([O()])",
    "class N(float):\n    def __float__(self): raise ValueError\npd.Series([N(1.5)], dtype=object)",
    "class I(int):\n    def __int__(self): return 'lie'\npd.Series([I(5)], dtype=object)",
    "import sys, types\nsys.modules['polars'] = types.SimpleNamespace(DataFrame=5, Series=None)\npd.DataFrame({'a': [1]})",
    "pd.DataFrame({'\\ud800': ['\\udfff']})",
]


@pytest.mark.parametrize("code", HOSTILE)
def test_hostile_tables(context, code):
    context.run("kept = 1")
    run = context.run(LIBRARIES + code)
    assert run.events[-1]["ev"] == "done"
    assert context.run("kept").text == "1"


def test_the_table_stays_as_it_was(context):
    run = context.run(
        LIBRARIES
        + "df = pd.DataFrame({'a': [3, 1, 2], 'c': pd.Categorical(['x', 'y', 'x'])}, index=[2, 0, 1])\n"
        "before = df.copy(deep=True)\ndisplay(df)\nprint(df.equals(before), df.attrs, list(df.index))"
    )
    assert run.out == "True {} [2, 0, 1]\n"


def test_no_library_is_loaded_for_plain_values(context):
    """A forked context has some from before; what it has not, values without them do not load."""
    loaded = "import sys; [m for m in (%s) if m in sys.modules]" % ", ".join(
        map(
            repr,
            (
                *("pandas", "numpy", "polars", "pyarrow", "matplotlib"),
                *("crownest_kernel.charts", "crownest_kernel.tables", "crownest_kernel.queries"),
            ),
        )
    )
    before = context.run(loaded).text
    assert before == "[]" or "pandas" in before
    context.run("[1]\n{'a': 1}\nclass C: pass\nC()")
    assert context.run(loaded).text == before


# === whole tables as files ===


@pytest.fixture
def exports(context, tmp_path_factory):
    """A context that writes its exports to a directory of this test's."""
    context.run(
        "import crownest_kernel.tables.export as ex, tempfile\nex.DIRECTORY = tempfile.mkdtemp() + '/.crownest/exports'\n"
        + LIBRARIES
    )
    return context


def exported(run):
    assert run.error is None, run.error
    return [
        e["metadata"].get("crownest", {}).get("export")
        for e in run.events
        if e["ev"] in ("display", "result")
    ]


def test_a_whole_table_as_parquet(exports):
    needs(exports, "pyarrow")
    run = exports.run(
        "df = pd.DataFrame({'a': range(1000), 't': pd.date_range('2026-01-01', periods=1000)}, index=range(5, 1005))\ndf",
        table_export="parquet",
    )
    (export,) = exported(run)
    assert export["format"] == "parquet" and export["path"].endswith(
        "/%d-1.parquet" % exports.run_number
    )
    check = "import os\nback = pd.read_parquet(%r)\nback.equals(df), os.path.getsize(%r)" % (
        export["path"],
        export["path"],
    )
    assert exports.run(check).text == "(True, %d)" % export["bytes"]


def test_a_whole_table_as_csv(exports):
    run = exports.run("pd.DataFrame({'a': [1, 2], 'b': ['x,y', 'é']})", table_export="csv")
    (export,) = exported(run)
    assert exports.run("open(%r).read()" % export["path"]).text == 'a,b\n1,"x,y"\n2,é\n'


def test_every_table_of_a_run(exports):
    run = exports.run(
        "display(pd.DataFrame({'a': [1]})); display(5)\npd.Series([1, 2])", table_export="csv"
    )
    first, none, last = exported(run)
    assert none is None and first["path"].endswith("-1.csv") and last["path"].endswith("-2.csv")
    assert exports.run("open(%r).read()" % last["path"]).text == "0\n1\n2\n"


@pytest.mark.parametrize(
    "module, make",
    [
        ("polars", "import polars as pl\npl.DataFrame({'a': [1, 2]})"),
        ("polars", "import polars as pl\npl.Series('a', [1, 2])"),
        ("pyarrow", "import pyarrow as pa\npa.table({'a': [1, 2]})"),
        ("pyarrow", "import pyarrow as pa\npa.RecordBatch.from_pydict({'a': [1, 2]})"),
        ("pyarrow", "pd.Series([1, 2], name='a')"),
    ],
)
def test_tables_of_every_library_as_files(exports, module, make):
    needs(exports, module)
    (export,) = exported(exports.run(make, table_export="parquet"))
    assert exports.run("pd.read_parquet(%r)['a'].tolist()" % export["path"]).text == "[1, 2]"
    (export,) = exported(exports.run(make, table_export="csv"))
    assert exports.run("pd.read_csv(%r)['a'].tolist()" % export["path"]).text == "[1, 2]"


def test_nothing_is_written_unless_asked(exports):
    for fields in ({}, {"table_export": None}):
        run = exports.run("pd.DataFrame({'a': [1]})", **fields)
        assert exported(run) == [None] and not run.of("notice")
    assert exports.run("import os; os.path.exists(ex.DIRECTORY)").text == "False"
    run = exports.run("5", table_export="csv")
    assert run.text == "5" and not run.of("notice")


@pytest.mark.parametrize(
    "code, format, reason",
    [
        ("pd.DataFrame({'a': [1, 'x', object()]})", "parquet", "Arrow"),
        ("pd.DataFrame({'a': [1]})", "exe", "no format 'exe'"),
        (
            "ex.EXPORT_BYTES_MAX = 1000\npd.DataFrame({'a': range(100_000)})",
            "csv",
            "more than 1000 bytes",
        ),
        (
            "open(ex.DIRECTORY.rpartition('/')[0], 'w').close() if 0 else None\nex.DIRECTORY = '/proc/nowhere'\npd.DataFrame({'a': [1]})",
            "csv",
            "nowhere",
        ),
        (
            "class F(pd.DataFrame):\n    def to_csv(self, *a, **k): raise RuntimeError('not me')\nF({'a': [1]})",
            "csv",
            "not me",
        ),
    ],
)
def test_a_table_that_cannot_be_written_is_shown_all_the_same(exports, code, format, reason):
    run = exports.run(code, table_export=format)
    assert run.status == "ok" and TABLE in run.result and exported(run) == [None]
    (notice,) = run.of("notice")
    assert notice["code"] == "table_not_exported" and reason in notice["message"]
    assert exports.run("import glob; glob.glob(ex.DIRECTORY + '/*')").text == "[]"


def test_exports_of_a_run_are_bounded(exports):
    run = exports.run("for _ in range(20): display(pd.DataFrame({'a': [1]}))", table_export="csv")
    assert sum(export is not None for export in exported(run)) == 16 and len(run.of("notice")) == 4
    assert len(exported(exports.run("pd.Series([1])", table_export="csv"))) == 1


def test_an_export_cannot_be_forged_by_metadata(exports):
    run = exports.run(
        "display(pd.DataFrame({'a': [1]}), metadata={'crownest': {'export': {'path': '/etc/passwd'}}})"
    )
    assert run.of("display")[0]["metadata"] == {}

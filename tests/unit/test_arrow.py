"""Arrow tables are what pyarrow itself would make, and pandas is not imported for them."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from sim.trace.arrow import arrow_table

COLUMNS = [
    np.arange(5),
    np.arange(10).reshape(5, 2)[:, 1],
    np.linspace(0, 1, 5),
    [1, 2, 3, 4, 5],
    [0.5, None, 2.5, None, 3.0],
    [True, False, True, True, False],
    ["a", "", "Hǎikǒu", "d", "e"],
    ["a", None, "c", "d", "e"],
    [None] * 5,
]


@pytest.mark.parametrize("values", COLUMNS)
def test_a_column_is_what_pyarrow_makes_of_it(values):
    found = arrow_table({"x": values})
    found.validate(full=True)
    assert found.equals(pa.table({"x": pa.array(values)}))


@pytest.mark.parametrize("values", [[], np.zeros(0, dtype=np.int64)])
def test_an_empty_column_stays_empty(values):
    assert arrow_table({"x": values}).equals(pa.table({"x": pa.array(values)}))


def test_mixed_kinds_are_refused():
    with pytest.raises(TypeError, match="int, str"):
        arrow_table({"x": [1, "a"]})


def test_a_stored_run_imports_neither_pandas_nor_figures(tmp_path):
    code = (
        "import sys, pathlib, sim\n"
        "from sim.scenario.run import run\n"
        "run(sim.load('scenarios/quickstart.yaml'), out=pathlib.Path(sys.argv[1]))\n"
        "heavy = {'pandas', 'matplotlib', 'networkx', 'pint', 'plotly', 'IPython', 'hypothesis', 'optuna', 'rich',\n"
        "         'scipy.linalg', 'scipy.special', 'scipy.stats', 'unittest'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=600, env=dict(os.environ))

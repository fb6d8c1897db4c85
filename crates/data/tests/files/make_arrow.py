"""Arrow files as datasets 5.2, pandas 3.1 and pyarrow 26 write them. Run in this folder with .venv/bin/python."""

import json
import pathlib
import shutil

import datasets
import pandas
import pyarrow
from pyarrow import feather

HERE = pathlib.Path(__file__).parent
ROWS = [
    {"anchor": "where is the mill", "positive": "The mill stands by the ford.", "negatives": ["a", "b"], "n": 1},
    {"anchor": "who keeps the ferry", "positive": "The ferry is kept by two sisters.", "negatives": [], "n": 2},
]


def fresh(name):
    path = HERE / name
    shutil.rmtree(path, ignore_errors=True)
    return str(path)


whole = datasets.Dataset.from_list(ROWS)
whole.save_to_disk(fresh("saved"), num_shards=2)
splits = datasets.DatasetDict({"train": whole.select([0]), "validation": whole.select([1])})
splits.save_to_disk(fresh("saved-splits"))
table = pandas.DataFrame([{k: r[k] for k in ("anchor", "positive")} for r in ROWS]).astype({"anchor": "category"})
table.to_feather(HERE / "pandas-lz4.feather")
feather.write_feather(pyarrow.Table.from_pandas(table), str(HERE / "pyarrow-zstd.feather"), compression="zstd")
# A file of the version that is not read.
feather.write_feather(table.astype(str), str(HERE / "version-1.feather"), version=1)
print(json.dumps(sorted(str(p.relative_to(HERE)) for p in HERE.rglob("*") if p.is_file()), indent=1))

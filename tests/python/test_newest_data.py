"""Files as the newest pandas, polars, DuckDB and datasets write them, read as the rows that they are."""

import json
import pathlib
import shutil
import tempfile
import unittest

from newest import need, ragduet

need(polars="2.1", duckdb="2.0", pandas="3.1", datasets="5.2")

import datasets  # noqa: E402
import duckdb  # noqa: E402
import pandas  # noqa: E402
import polars  # noqa: E402

ROWS = [
    {"query": "where is the mill", "positive": "By the ford, \"they say\".", "negatives": ["No.", "Ünïcode 漢字"]},
    {"query": "who keeps the ferry", "positive": "Two sisters,\nof old.", "negatives": ["Nobody."]},
    {"query": "what is the tide?", "positive": "No.", "negatives": []},
]


class Files(unittest.TestCase):
    def setUp(self):
        self.tmp = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.tmp)

    def check(self, path):
        out = self.tmp / "out.jsonl"
        ragduet("data", "convert", path, "--to", out)
        text = lambda passage: passage["text"] if isinstance(passage, dict) else passage
        got = []
        for row in map(json.loads, out.read_text().splitlines()):
            positives = row.get("positives") or row.get("positive_passages") or [row["positive"]]
            negatives = row.get("negatives") or row.get("negative_passages") or []
            (positive,) = map(text, positives)
            got.append({"query": row["query"], "positive": positive, "negatives": list(map(text, negatives))})
        self.assertEqual(got, ROWS)
        out.unlink()

    def test_pandas(self):
        table = pandas.DataFrame(ROWS)
        for how in ({}, {"compression": "zstd"}, {"compression": "brotli"}, {"compression": None, "index": True}):
            with self.subTest(how=how):
                table.to_parquet(self.tmp / "a.parquet", **how)
                self.check(self.tmp / "a.parquet")
        table["query"] = table["query"].astype("category")
        table["unused"] = None
        table.to_parquet(self.tmp / "category.parquet")
        self.check(self.tmp / "category.parquet")
        pandas.DataFrame(ROWS).to_json(self.tmp / "a.jsonl", orient="records", lines=True)
        self.check(self.tmp / "a.jsonl")

    def test_polars(self):
        table = polars.DataFrame(ROWS)
        for compression in ("zstd", "lz4", "snappy", "gzip", "brotli", "uncompressed"):
            with self.subTest(compression):
                table.write_parquet(self.tmp / "a.parquet", compression=compression)
                self.check(self.tmp / "a.parquet")
        kinds = [polars.Categorical, polars.Enum([r["query"] for r in ROWS])]
        for kind in kinds:
            with self.subTest(str(kind)):
                table.with_columns(polars.col("query").cast(kind)).write_parquet(self.tmp / "a.parquet")
                self.check(self.tmp / "a.parquet")
        table.write_ndjson(self.tmp / "a.jsonl")
        self.check(self.tmp / "a.jsonl")

    def test_duckdb(self):
        with duckdb.connect() as db:
            db.register("given", pandas.DataFrame(ROWS))
            db.execute("create table rows as select * from given")
            for how in ("", ", compression zstd", ", parquet_version v2", ", row_group_size 2048"):
                with self.subTest(how):
                    path = self.tmp / "a.parquet"
                    db.execute(f"copy rows to '{path}' (format parquet{how})")
                    self.check(path)
            db.execute(f"copy rows to '{self.tmp}/a.jsonl' (format json)")
        self.check(self.tmp / "a.jsonl")

    def test_datasets(self):
        table = datasets.Dataset.from_list(ROWS)
        table.to_parquet(str(self.tmp / "a.parquet"))
        self.check(self.tmp / "a.parquet")
        table.to_json(str(self.tmp / "a.jsonl"))
        self.check(self.tmp / "a.jsonl")
        table.cast_column("query", datasets.Value("large_string")).to_parquet(str(self.tmp / "large.parquet"))
        self.check(self.tmp / "large.parquet")


if __name__ == "__main__":
    unittest.main()

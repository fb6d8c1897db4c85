"""Files as the newest pandas, polars, DuckDB and datasets write them, read as the rows that they are."""

import csv
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

# Values of CSV that are no texts, and white space at the ends.
PLAIN = [
    {"query": "where is the mill", "positive": "By the ford, \"they say\"."},
    {"query": "who keeps, the ferry", "positive": "Two sisters,\nof old."},
    {"query": "007", "positive": "No. Ünïcode 漢字; 1,5\t\"x"},
]
FLAT = [{**row, "negatives": []} for row in PLAIN]
ROWS = [
    {"query": "where is the mill", "positive": "By the ford, \"they say\".", "negatives": ["No.", "Ünïcode 漢字"]},
    {"query": "who keeps the ferry", "positive": "Two sisters,\nof old.", "negatives": ["Nobody."]},
    {"query": "what is the tide?", "positive": "No.", "negatives": []},
]


datasets.disable_progress_bars()


class Files(unittest.TestCase):
    def setUp(self):
        self.tmp = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.tmp)

    def check(self, path, rows=ROWS):
        out = self.tmp / "out.jsonl"
        ragduet("data", "convert", path, "--to", out)
        text = lambda passage: passage["text"] if isinstance(passage, dict) else passage
        got = []
        for row in map(json.loads, out.read_text().splitlines()):
            positives = row.get("positives") or row.get("positive_passages") or [row["positive"]]
            negatives = row.get("negatives") or row.get("negative_passages") or []
            (positive,) = map(text, positives)
            got.append({"query": row["query"], "positive": positive, "negatives": list(map(text, negatives))})
        self.assertEqual(got, rows)
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
        pandas.DataFrame(ROWS).to_json(self.tmp / "a.json", orient="records", indent=1)
        self.check(self.tmp / "a.json")
        for compression in ("zstd", "lz4"):
            with self.subTest("feather", compression=compression):
                pandas.DataFrame(ROWS).to_feather(self.tmp / "a.feather", compression=compression)
                self.check(self.tmp / "a.feather")
        # Lists in CSV are Python's; an index is a column without a name.
        for how in ({}, {"index": False, "quoting": csv.QUOTE_ALL, "lineterminator": "\r\n"}):
            with self.subTest("csv", how=how):
                pandas.DataFrame(ROWS).to_csv(self.tmp / "a.csv", **how)
                self.check(self.tmp / "a.csv")
        pandas.DataFrame(ROWS).to_csv(self.tmp / "a.csv.gz", index=False)
        self.check(self.tmp / "a.csv.gz")
        pandas.DataFrame(PLAIN).to_csv(self.tmp / "a.tsv", index=False, sep="\t")
        self.check(self.tmp / "a.tsv", FLAT)

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
        table.write_json(self.tmp / "a.json")
        self.check(self.tmp / "a.json")
        for compression in ("lz4", "zstd"):
            with self.subTest("ipc", compression=compression):
                table.write_ipc(self.tmp / "a.arrow", compression=compression)
                self.check(self.tmp / "a.arrow")
        table.write_ipc_stream(self.tmp / "stream.arrow")
        self.check(self.tmp / "stream.arrow")
        # CSV of polars has no lists.
        plain = polars.DataFrame(PLAIN)
        for how in ({"quote_style": "always"}, {"include_bom": True, "separator": ";"}):
            with self.subTest("csv", how=how):
                plain.write_csv(self.tmp / "a.csv", **how)
                self.check(self.tmp / "a.csv", FLAT)

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
            db.execute(f"copy rows to '{self.tmp}/a.json' (format json, array true)")
            db.register("plain", pandas.DataFrame(PLAIN))
            db.execute(f"copy plain to '{self.tmp}/a.csv' (format csv, header)")
        self.check(self.tmp / "a.jsonl")
        self.check(self.tmp / "a.json")
        self.check(self.tmp / "a.csv", FLAT)

    def test_datasets(self):
        table = datasets.Dataset.from_list(ROWS)
        table.to_parquet(str(self.tmp / "a.parquet"))
        self.check(self.tmp / "a.parquet")
        table.to_json(str(self.tmp / "a.jsonl"))
        self.check(self.tmp / "a.jsonl")
        table.to_json(str(self.tmp / "a.json"), lines=False, orient="records")
        self.check(self.tmp / "a.json")
        table.to_csv(str(self.tmp / "a.csv"))
        self.check(self.tmp / "a.csv")
        table.save_to_disk(str(self.tmp / "disk"))
        self.check(self.tmp / "disk")
        table.save_to_disk(str(self.tmp / "shards"), num_shards=2)
        self.check(self.tmp / "shards")
        datasets.DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(str(self.tmp / "splits"))
        self.check(self.tmp / "splits/train")
        self.check(self.tmp / "splits/test", ROWS[:1])
        table.cast_column("query", datasets.Value("large_string")).to_parquet(str(self.tmp / "large.parquet"))
        self.check(self.tmp / "large.parquet")


if __name__ == "__main__":
    unittest.main()

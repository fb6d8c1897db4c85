"""test_gguf.py over the newest transformers."""

from newest import need

need(transformers="5.24")

from test_gguf import Converted  # noqa: E402, F401

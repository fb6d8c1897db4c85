# Sourced by the findings: `with_packages name==version ...` sets `python`, `check` runs the program on standard input.
# RAGDUET_PY names an interpreter that has the packages; otherwise they are installed into a temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

with_packages() {
  python=${RAGDUET_PY:-$folder/venv/bin/python}
  if [ -z "${RAGDUET_PY:-}" ]; then
    python3 -m venv "$folder/venv"
    "$python" -m pip install --quiet "$@"
  fi
  "$python" - "$@" <<'PY'
import importlib.metadata, sys

for pin in sys.argv[1:]:
    name, version = pin.split("==")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"{name} is not installed for {sys.executable}")
    if found.split("+")[0] != version:
        sys.exit(f"{name} {found} is installed; the finding is about {version}")
    print(name, found)
PY
}

# Progress bars and load reports are shown only if the behaviour is another one than described.
check() {
  if "$python" -W ignore - 2>"$folder/log"; then
    echo "as described"
  else
    tail -n 20 "$folder/log" >&2
    echo "NOT as described" >&2
    exit 1
  fi
}

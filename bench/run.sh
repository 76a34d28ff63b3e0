#!/bin/sh
# The standard mix on a fresh Tambo store: bench/peers/compare.py with Tambo alone. B is the folder of the programs;
# arguments go through (bench/peers/compare.py --help).
exec python3 "$(dirname "$0")/peers/compare.py" --bin "$(realpath "${B:-build/release}")" --servers tambo "$@"

#!/usr/bin/env bash
# Runs every kind of test and says how each went; the last line is "N passed, M failed". With arguments, only those
# stages.
#
#   tests/run.sh [lint man unit prop sim fuzz proto golden clients crash]
#
# What is counted: each cmocka test, each dialogue, each client check, each fuzz target, each lint rule set. A stage
# whose files do not exist is not listed. What is skipped is said and counted. Logs: build/test/STAGE.log, shown when
# something fails.
set -u
cd "$(dirname "$0")/.." || exit 1
MAKE=${MAKE:-make}
JOBS=${JOBS:-$(nproc)}
SECONDS_EACH=${SECONDS_EACH:-4} # of fuzzing, for each target
CRASH_ROUNDS=${CRASH_ROUNDS:-} # empty: what each crash test takes for enough
logs=build/test
mkdir -p "$logs"
passed=0 failed=0 skipped=0
failures=()

wanted() { # wanted STAGE: was it asked for, or is everything?
    [ ${#stages[@]} -eq 0 ] && return 0
    local s
    for s in "${stages[@]}"; do [ "$s" = "$1" ] && return 0; done
    return 1
}

count() { # count NAME PASSED FAILED [SKIPPED [LOG]]: add up and say it
    passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + ${4:-0}))
    printf '%-28s %5d passed, %d failed%s\n' "$1" "$2" "$3" "$([ "${4:-0}" -gt 0 ] && echo ", $4 skipped")"
    if [ "$3" -gt 0 ]; then
        failures+=("$1")
        if [ -n "${5:-}" ]; then
            { grep -E 'FAIL|ERROR|[Ee]rror' "$5" | head -n 40; echo ...; tail -n 30 "$5"; } | sed 's/^/    /'
        fi
    fi
}

one() { # one NAME COMMAND...: a check that passes or fails as a whole
    local name=$1 log
    shift
    log=$logs/${name//[^a-z0-9]/-}.log
    if "$@" >"$log" 2>&1; then count "$name" 1 0; else count "$name" 0 1 0 "$log"; fi
}

cmocka() { # cmocka NAME BINARY...: add up what the test programs say
    local name=$1 ok=0 bad=0 skip=0 log prog out rc p f s
    shift
    log=$logs/${name//[^a-z0-9]/-}.log
    : >"$log"
    for prog in "$@"; do
        out=$(timeout 600 "$prog" 2>&1)
        rc=$?
        printf '== %s (exit %d)\n%s\n' "$prog" "$rc" "$out" >>"$log"
        p=$(sum_of '\[  PASSED  \] [0-9]+ test' <<<"$out")
        f=$(sum_of '\[  FAILED  \] [0-9]+ test' <<<"$out")
        s=$(sum_of '\[  SKIPPED \] [0-9]+ test' <<<"$out")
        if [ "$rc" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi # a crash, a leak, a time-out
        if [ "$rc" -eq 0 ] && [ "$p" -eq 0 ] && [ "$s" -eq 0 ]; then f=1; fi # it says nothing: it tested nothing
        if [ "$f" -gt 0 ]; then
            echo "$prog (exit $rc):"
            grep -vE '^(level=|\[ RUN|\[       OK)' <<<"$out" | head -n 60 | sed 's/^/    /'
        fi
        ok=$((ok + p)) bad=$((bad + f)) skip=$((skip + s))
    done
    count "$name" "$ok" "$bad" "$skip"
}

sum_of() { # sum_of PATTERN: the numbers in what matches on stdin, added up
    grep -oE "$1" | grep -oE '[0-9]+' | awk '{ n += $1 } END { print n + 0 }'
}

script() { # script NAME COMMAND...: a program whose last summary line is "N passed, M failed[, K skipped]"
    local name=$1 log rc line p f s
    shift
    log=$logs/${name//[^a-z0-9]/-}.log
    timeout 1800 "$@" >"$log" 2>&1
    rc=$?
    line=$(grep -oE '[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?' "$log" | tail -n 1)
    p=$(grep -oE '[0-9]+ passed' <<<"$line" | grep -oE '[0-9]+')
    f=$(grep -oE '[0-9]+ failed' <<<"$line" | grep -oE '[0-9]+')
    s=$(grep -oE '[0-9]+ skipped' <<<"$line" | grep -oE '[0-9]+')
    if [ "$rc" -ne 0 ] && [ "${f:-0}" -eq 0 ]; then f=1; fi
    if [ "$rc" -eq 0 ] && [ -z "$line" ]; then p=1; fi
    count "$name" "${p:-0}" "${f:-0}" "${s:-0}" "$log"
    grep -E '^SKIP' "$log" | sed 's/^/    /'
}

build() { # build VARIANT TARGET...: nothing can be tested without it
    local variant=$1
    shift
    if ! "$MAKE" --no-print-directory -j"$JOBS" VARIANT="$variant" "$@" >"$logs/build-$variant.log" 2>&1; then
        grep -E 'error|warning|\*\*\*' "$logs/build-$variant.log" | head -n 40
        tail -n 5 "$logs/build-$variant.log"
        count "build $variant" 0 1
        finish
    fi
}

finish() {
    echo
    [ "$skipped" -gt 0 ] && echo "$skipped skipped (see above)"
    [ ${#failures[@]} -gt 0 ] && printf 'failed: %s\n' "${failures[@]}"
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
}

programs() { # programs VARIANT FOLDER: the test programs of tests/FOLDER
    find "tests/$2" -name 'test_*.c' | sort | sed "s,^,build/$1/,;s,\.c\$,,"
}

uring_probe() { # io_uring_setup(2) with no parameters: EFAULT says it is there, ENOSYS or EPERM that it is not
    python3 -c 'import ctypes,errno,sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(425, 1, None)
sys.exit(0 if ctypes.get_errno() == errno.EFAULT else 1)'
}

stages=("$@")

if wanted lint; then
    one "lint house rules" "$MAKE" --no-print-directory lint-tidy
    one "lint clang-format" "$MAKE" --no-print-directory lint-format
    one "lint clang-tidy" "$MAKE" --no-print-directory -k -j"$JOBS" lint-clang
fi
wanted man && one "manual pages" "$MAKE" --no-print-directory lint-man

if wanted unit || wanted prop || wanted sim || wanted proto || wanted golden || wanted clients || wanted crash; then
    build release all tests
fi
if wanted unit || wanted prop || wanted sim || wanted proto; then
    build asan all tests
fi
for folder in unit prop sim; do
    wanted $folder || continue
    [ -n "$(find tests/$folder -name 'test_*.c' -print -quit)" ] || continue
    # a simulated power cut abandons what was in flight: that is no leak
    [ $folder = sim ] && export ASAN_OPTIONS=detect_leaks=0
    for variant in release asan; do
        mapfile -t programs < <(programs $variant $folder)
        cmocka "$folder ($variant)" "${programs[@]}"
    done
    unset ASAN_OPTIONS
done

if wanted fuzz && ls tests/fuzz/fuzz_*.c >/dev/null 2>&1; then
    build fuzz fuzzers
    for source in tests/fuzz/fuzz_*.c; do
        name=$(basename "$source" .c)
        mkdir -p "build/fuzz/corpus/$name"
        seeds=()
        [ -d "tests/fuzz/corpus/${name#fuzz_}" ] && seeds=("tests/fuzz/corpus/${name#fuzz_}")
        one "fuzz ${name#fuzz_}" "build/fuzz/tests/fuzz/$name" -max_total_time="$SECONDS_EACH" -timeout=10 \
            -rss_limit_mb=2048 -artifact_prefix="$logs/" "build/fuzz/corpus/$name" "${seeds[@]}"
    done
fi

export B=build/release
if wanted proto && [ -f tests/proto/run.py ]; then
    if uring_probe; then
        script "dialogues (uring)" python3 tests/proto/run.py --io uring
    else
        echo "SKIP dialogues (uring): io_uring is not available here"
        skipped=$((skipped + 1))
    fi
    script "dialogues (posix)" python3 tests/proto/run.py --io posix
    script "dialogues (asan)" python3 tests/proto/run.py --io posix --build build/asan
fi
wanted proto && script "cases of public suites" python3 tests/proto/cases.py
wanted golden && script "golden stores" python3 tests/golden/test_golden.py
for file in tests/clients/*.py; do
    wanted clients && [ -f "$file" ] && script "client $(basename "$file" .py)" python3 "$file"
done
for file in tests/crash/test_*.py; do
    if ! wanted crash || [ ! -f "$file" ]; then continue; fi
    rounds=()
    [ -n "$CRASH_ROUNDS" ] && grep -q -- '"--rounds"' "$file" && rounds=(--rounds "$CRASH_ROUNDS")
    script "crash $(basename "$file" .py)" python3 "$file" "${rounds[@]}"
done
wanted sabotage && script "rules switched off" python3 tests/sabotage.py --make "$MAKE" --jobs "$JOBS"
finish

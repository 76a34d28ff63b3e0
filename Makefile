# Tambo. `make help` lists the targets; README.md says more.
#   VARIANT=release|debug|asan|ubsan|fuzz   what kind of objects (build/$(VARIANT))
#   V=1 shows the commands   CI=1 makes warnings errors
VARIANT ?= release
PREFIX  ?= /usr/local
DESTDIR ?=
V       ?=
SABOTAGE ?=
B       := build/$(VARIANT)$(if $(SABOTAGE),-without-$(SABOTAGE))
MULTI   := $(shell gcc -print-multiarch 2>/dev/null || echo x86_64-linux-gnu)
SSL_LIB := /usr/lib/$(MULTI)/android
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)

CC.release := gcc
CC.debug   := gcc
CC.asan    := clang
CC.ubsan   := clang
CC.fuzz    := clang
FLAGS.release := -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fcf-protection -fPIE
FLAGS.debug   := -Og -g3
FLAGS.asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
FLAGS.ubsan   := -O1 -g -fsanitize=undefined -fno-sanitize-recover=undefined
FLAGS.fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
LINK.release  := -pie -Wl,-z,relro,-z,now -Wl,--as-needed
CC       := $(CC.$(VARIANT))
WARN     := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wno-sign-conversion $(if $(CI),-Werror)
INCLUDES := -Iinclude -I. -I/usr/include/android
CFLAGS   := -std=gnu17 $(WARN) $(FLAGS.$(VARIANT)) $(INCLUDES) -MMD -MP -pthread -D_GNU_SOURCE $(if $(SABOTAGE),-DTB_SABOTAGE='"$(SABOTAGE)"')
LDFLAGS  := $(FLAGS.$(VARIANT)) $(LINK.$(VARIANT)) -pthread -L$(SSL_LIB) -Wl,-rpath,$(SSL_LIB)
LIBS     := -llmdb -luring -lzstd -lz -lutf8proc -lconfuse -ljansson -lcrypt -largon2 -lssl -lcrypto
Q        := $(if $(V),,@)

ENGINE   := $(sort $(wildcard engine/*/*.c))
FRONT    := $(sort $(wildcard frontends/*/*.c))
DAEMON   := $(sort $(wildcard frontends/*.c))
TOOLS    := $(sort $(wildcard tools/*.c))
BENCH    := $(sort $(wildcard bench/*.c bench/workloads/*.c))
UNIT     := $(sort $(wildcard tests/unit/*/test_*.c tests/prop/test_*.c tests/sim/test_*.c))
FUZZ     := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZLIB  := tests/fuzz/world.c
CRASH    := $(if $(shell pkg-config --exists fuse3 2>/dev/null && echo yes),tests/crash/faultdisk.c)
TESTLIB  := $(sort $(wildcard tests/lib/*.c))
SIMLIB   := $(sort $(filter-out tests/sim/test_%,$(wildcard tests/sim/*.c)))
LIB      := $(ENGINE) $(FRONT)
HEADERS  := $(sort $(wildcard include/tambo/*.h engine/*/*.h frontends/*.h frontends/*/*.h tools/*.h bench/*.h tests/lib/*.h tests/sim/*.h tests/fuzz/*.h))
SOURCES  := $(LIB) $(DAEMON) $(TOOLS) $(BENCH) $(UNIT) $(FUZZ) $(FUZZLIB) $(TESTLIB) $(SIMLIB) tests/crash/faultdisk.c
MAN      := $(sort $(wildcard docs/man/*.[158]))
obj      = $(patsubst %.c,$(B)/%.o,$(1))
bin      = $(patsubst %.c,$(B)/%,$(1))
PROGRAMS := $(B)/tambod $(B)/tambo $(B)/tambo-bench

all: $(PROGRAMS) ## build tambod, tambo and tambo-bench into build/$(VARIANT)

# Without a safety rule only what names the rule is compiled anew; it stands before the sound archive, whose members it
# replaces. The sound build must be there.
SOUND    := build/$(VARIANT)
BROKEN   := $(if $(SABOTAGE),$(shell grep -l 'TB_KEEPS($(SABOTAGE))' $(LIB)))
sound    = $(patsubst %.c,$(SOUND)/%.o,$(1))
ARCHIVE  := $(call obj,$(BROKEN)) $(SOUND)/libtambo.a

$(SOUND)/libtambo.a: $(call sound,$(LIB))
	$(Q)rm -f $@; ar rcs $@ $^
$(B)/tambod: $(call sound,$(DAEMON)) $(ARCHIVE)
$(B)/tambo: $(call sound,$(TOOLS)) $(ARCHIVE)
$(B)/tambo-bench: $(call sound,$(BENCH)) $(ARCHIVE)
$(PROGRAMS):
	@mkdir -p $(@D); echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
$(B)/%.o: %.c
	@mkdir -p $(@D); echo "  CC   $<"
	$(Q)$(CC) $(CFLAGS) -c -o $@ $<

$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(call obj,$(FUZZLIB)) $(SOUND)/libtambo.a
	@echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LIBS)
$(B)/tests/crash/faultdisk: tests/crash/faultdisk.c
	@mkdir -p $(@D); echo "  CC   $<"
	$(Q)$(CC) $(CFLAGS) -D_FILE_OFFSET_BITS=64 $$(pkg-config --cflags fuse3) -MF $@.d -o $@ $< $(FLAGS.$(VARIANT)) -pie $$(pkg-config --libs fuse3)
$(SOUND)/libtests.a: $(call sound,$(TESTLIB))
	$(Q)rm -f $@; ar rcs $@ $^
$(call bin,$(filter tests/sim/%,$(UNIT))): $(B)/tests/sim/%: $(SOUND)/tests/sim/%.o $(call sound,$(SIMLIB)) $(SOUND)/libtests.a $(ARCHIVE)
	@mkdir -p $(@D); echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS) -lcmocka
$(B)/tests/%: $(SOUND)/tests/%.o $(SOUND)/libtests.a $(ARCHIVE)
	@mkdir -p $(@D); echo "  LINK $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

# ---- the two commands of the README ----

run: deps-build ## install what is missing, build, and serve a demo account from ./run in the foreground
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@B=$(B) sh tools/demo.sh

test: deps ## install what is missing, build, and run every test; the last line is "N passed, M failed"
	@JOBS=$(JOBS) MAKE="$(MAKE)" bash tests/run.sh

# ---- what has to be installed (Debian 12) ----

DEPS_BUILD := gcc make pkg-config python3 libc6-dev liblmdb-dev liburing-dev android-libboringssl-dev libzstd-dev zlib1g-dev libconfuse-dev \
              libjansson-dev libutf8proc-dev libcrypt-dev libargon2-dev
DEPS_TEST  := libcmocka-dev clang clang-format clang-tidy libclang-rt-14-dev mandoc isync fetchmail getmail6 swaks gsasl msmtp mpop sslscan libnet-ssleay-perl curl zstd \
              e2fsprogs xfsprogs util-linux libfuse3-dev fuse3 offlineimap3 neomutt imapfilter libgmime-3.0-dev \
              $(if $(shell command -v npm 2>/dev/null),,nodejs npm)
IMAPFLOW   := build/imapflow/node_modules/.package-lock.json
install_missing = @missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || \
	echo $$p; done); [ -z "$$missing" ] || { echo "installing:" $$missing; sudo=; [ $$(id -u) = 0 ] || sudo=sudo; \
	$$sudo apt-get update -q && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -q --no-install-recommends $$missing; }

deps: deps-build deps-test ## install what building and testing need, if anything is missing
deps-build: ## install what building needs, if anything is missing
	$(call install_missing,$(DEPS_BUILD))
deps-test: ## install what testing needs, if anything is missing
	$(call install_missing,$(DEPS_TEST))
	@$(MAKE) --no-print-directory $(IMAPFLOW)
$(IMAPFLOW): tests/clients/imapflow/package-lock.json
	@mkdir -p build/imapflow; cp tests/clients/imapflow/package*.json build/imapflow
	@cd build/imapflow && npm ci --ignore-scripts --no-audit --no-fund

# ---- tests, one by one (tests/run.sh STAGE... runs them with their counts) ----

tests: $(call bin,$(UNIT) $(CRASH)) ## build the unit, property and simulation tests of this VARIANT
fuzzers: $(call bin,$(FUZZ)) ## build the fuzz targets (VARIANT=fuzz)
fuzz: ## fuzz every parser for SECONDS (default 60) each
	@$(MAKE) --no-print-directory -j$(JOBS) VARIANT=fuzz fuzzers
	@SECONDS_EACH=$(or $(SECONDS),60) bash tests/run.sh fuzz
check-unit: ## unit and property tests alone
	@MAKE="$(MAKE)" bash tests/run.sh unit prop
check-sim: $(B)/tests/sim/test_server ## the whole server in a simulated world; SEED=N runs that seed alone, COUNT=N so many
	@echo "commit $$(git rev-parse --short HEAD 2>/dev/null)"; $(B)/tests/sim/test_server $(if $(SEED),$(SEED) $(or $(COUNT),1))
soak: $(B)/tests/sim/test_server ## the same for HOURS (default 1), going on where the last soak ended
	@mkdir -p build/soak; $(B)/tests/sim/test_server --minutes $$(( $(or $(HOURS),1) * 60 )) --from 100000 \
		--state build/soak/$$(git rev-parse --short HEAD 2>/dev/null || echo here)
check-proto: ## protocol dialogues alone
	@MAKE="$(MAKE)" bash tests/run.sh proto
check-crash: ## crash and power-cut tests alone; ROUNDS=N of each instead of 300 and 60
	@MAKE="$(MAKE)" CRASH_ROUNDS=$(ROUNDS) bash tests/run.sh crash
check-sabotage: ## switch each safety rule off in turn: the tests that guard it must fail (RULES="gate chain": only these)
	@python3 tests/sabotage.py --make "$(MAKE)" --jobs $(JOBS) $(RULES)
nightly-%: all tests
	@python3 tests/nightly.py $* --minutes $(or $(MINUTES),55)
nightly: all tests ## go on with each long fault test for MINUTES=55; nightly-d1 and so on: with one (docs/RELIABILITY.md)
	@python3 tests/nightly.py all --minutes $(or $(MINUTES),55)
check-corpus: all ## store every message of CORPUS=DIR, read it back by IMAP and POP3, compare byte for byte
	@test -n "$(CORPUS)" || { echo "say CORPUS=DIR"; exit 64; }
	@python3 tests/clients/check_corpus.py "$(CORPUS)" --build $(B)
bench: all ## measure this build: tambo-bench's standard mix on a store of its own
	@B=$(B) sh bench/run.sh
bench-background: all ## measure what GC and scrub cost deliveries (BACKGROUND="options of bench/background.py")
	@python3 bench/background.py --bin $(B) $(BACKGROUND)
bench-density: all ## bytes of mail for a byte of disk, on CORPUS=DIR: delivered, trained, collected
	@test -n "$(CORPUS)" || { echo "say CORPUS=DIR"; exit 64; }
	@python3 bench/density.py --bin $(B) --corpus "$(CORPUS)"
bench-peers: all ## measure this build and Dovecot in the same run (root; PEERS="options of bench/peers/compare.py")
	@python3 bench/peers/compare.py --bin $(B) $(PEERS)

# ---- style ----

lint: lint-format lint-tidy lint-clang ## everything below: format, house rules, clang-tidy
lint-format: ## clang-format has nothing to say
	$(Q)clang-format --dry-run -Werror $(SOURCES) $(HEADERS)
lint-tidy: ## include arrows, third-party headers, banned calls, long functions and lines, missing comments
	$(Q)python3 tests/lint/tidy.py
lint-clang: $(patsubst %.c,build/lint/%.tidy,$(LIB) $(DAEMON) $(TOOLS) $(BENCH)) ## clang-tidy has nothing to say
build/lint/%.tidy: %.c .clang-tidy
	@mkdir -p $(@D); echo "  TIDY $<"
	$(Q)clang-tidy --quiet --warnings-as-errors='*' $< -- -std=gnu17 $(INCLUDES) -D_GNU_SOURCE 2>$@.err || \
		{ cat $@.err; exit 1; }
	@touch $@
lint-man: ## mandoc has nothing to say about the manual pages
	$(Q)mandoc -Tlint -Wwarning $(MAN)
format: ## rewrite the sources as .clang-format says
	$(Q)clang-format -i $(SOURCES) $(HEADERS)
compile_commands.json: Makefile ## for editors and language servers
	$(Q){ echo '['; n=; for f in $(SOURCES); do printf '%s{"directory":"%s","file":"%s","command":"clang %s -c %s"}' \
		"$$n" "$(CURDIR)" "$$f" '-std=gnu17 $(INCLUDES) -D_GNU_SOURCE' "$$f"; n=','; done; echo ']'; } > $@

# ---- the rest ----

install: all ## programs, manual pages and the systemd unit under $(DESTDIR)$(PREFIX)
	install -D -m 755 $(B)/tambod $(DESTDIR)$(PREFIX)/sbin/tambod
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(B)/tambo $(B)/tambo-bench
	for m in $(MAN); do install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man$${m##*.} $$m || exit 1; done
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's,@PREFIX@,$(PREFIX),g' packaging/systemd/tambod.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/tambod.service
clean: ## remove build/
	rm -rf build compile_commands.json
help: ## this list
	@sed -n 's/^\([a-z][a-z_.-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-24s %s\n", $$1, $$2 }'

-include $(shell find $(B) -name '*.d' 2>/dev/null)
.PHONY: all run test deps deps-build deps-test tests fuzzers fuzz check-unit check-sim soak check-proto check-crash check-sabotage nightly check-corpus bench bench-background bench-density bench-peers \
        lint lint-format lint-tidy lint-clang lint-man format install clean help
.SECONDARY:

# A thin front over CMake. Every target works as the first command on a bare machine: it installs what
# is missing (third_party/setup.sh), configures and builds what it needs, and runs it.
.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
DESTDIR ?=
ARGS ?=

# $(call build,PRESET[,FILE[,WRAPPER]]): configures the preset and builds all of it, or FILE of its
# tree, under the command WRAPPER. A tree that was made for another place or by another generator is made anew; CMake
# would refuse it.
cache_entry = $$(sed -n 's/^$(2):[A-Z]*=//p' .build/$(1)/CMakeCache.txt)
define build
	@if [ -f .build/$(1)/CMakeCache.txt ] && { \
	    [ "$$(realpath -mq "$(call cache_entry,$(1),CMAKE_HOME_DIRECTORY)")" != "$$(pwd -P)" ] || \
	    [ "$(call cache_entry,$(1),CMAKE_GENERATOR)" != Ninja ]; }; then \
	  echo "make: .build/$(1) belongs to another tree or generator; making it anew"; \
	  rm -rf .build/$(1); \
	fi
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	  cmake --preset $(1) >"$$log" 2>&1 || { cat "$$log" >&2; exit 1; }
	$(3) cmake --build --preset $(1) --parallel $(JOBS) $(if $(2),--target $(2))
endef
LAYERS = base vmap alloc cil
run_tests = ctest --preset $(1) --parallel $(JOBS) $(2)

# Where the kernel randomises addresses by more bits than ThreadSanitizer has room for, it must run
# without; discovery of the tests runs them at build time, so the build too.
TSAN_ENV = $(shell [ "$$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)" -gt 28 ] && \
  setarch -R true 2>/dev/null && echo 'setarch -R')

SOURCES = $(shell find base vmap alloc cil bench tests \( -name '*.h' -o -name '*.cc' \) | sort)
# clang-tidy reads what the clang preset compiles; headers are seen through their users.
TIDY_ALL = $(filter %.cc,$(filter-out tests/package/%,$(SOURCES)))
TIDY_FAST = $(filter base/%,$(TIDY_ALL))
define tidy
	@echo 'clang-tidy: $(words $(1)) files'
	@printf '%s\n' $(1) | xargs -P $(JOBS) -n 1 clang-tidy --quiet -p .build/clang \
	  2> >(grep -vE '[0-9]+ (warning|error)s? (generated|treated as)' >&2)
endef

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || \
	  sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' Makefile

.PHONY: demo
demo: setup-build ## ingest real files, crash, recover, compare (ARGS="--rounds 3")
	$(call build,release,cil/tools/keel)
	.build/release/cil/tools/keel demo $(ARGS)

.PHONY: test
test: setup-build ## all tests, with debug checks and audits on
	$(call build,dev)
	$(call run_tests,dev)

.PHONY: trust
trust: setup-trust ## ten minutes of every campaign, and the goal table (ARGS="--only sim")
	tests/trust/trust.py --slice --minutes 10 $(ARGS)

.PHONY: nightly
nightly: setup-trust ## the campaigns at full length, resumed where they were left (ARGS="--minutes 120")
	tests/trust/trust.py $(ARGS)

.PHONY: coverage
coverage: setup-check ## line and branch coverage, and what is not covered
	$(call build,coverage)
	tests/coverage/coverage.py run
	tests/coverage/coverage.py report

.PHONY: mutants
mutants: setup-trust ## remove each guard, one by one: a test must go red (ARGS="--only cil/")
	tests/mutants/run.py $(ARGS)

.PHONY: fuzz
fuzz: setup-fuzz ## libFuzzer on every fuzzer (ARGS="--seconds 60 --only log_image")
	$(call build,fuzz,keel_fuzzers)
	tests/fuzz/run.sh $(ARGS)

.PHONY: check
check: setup-check format-check check-headers check-clang tidy check-asan check-tsan ## sanitizers, clang, format, tidy

.PHONY: check-fast
check-fast: setup-check format-check check-layers tidy-fast check-asan-fast check-tsan-fast ## the slice of check that CI runs

.PHONY: bench
bench: setup-build ## every benchmark, briefly
	$(call build,release)
	@benches=$$(find .build/release/bench -type f -executable -name '*_bench' | sort); \
	  [ -n "$$benches" ] || { echo "make: no benchmarks were built" >&2; exit 1; }; \
	  for bench in $$benches; do "$$bench" --benchmark_min_time=0.05; done

.PHONY: scoreboard
scoreboard: setup-bench ## ours against peers and limits, side by side (ARGS="--only journal.")
	$(call build,release,bench/scoreboard)
	.build/release/bench/scoreboard $(ARGS)

.PHONY: profile
profile: setup-profile ## flame graph and shares of time of a benchmark
	$(call build,release)
	bench/profile.sh $(ARGS)

.PHONY: install
install: setup-build ## install under PREFIX (default /usr/local), below DESTDIR
	$(call build,package)
	DESTDIR="$(DESTDIR)" cmake --install .build/package --prefix "$(PREFIX)"

.PHONY: format
format: setup-check ## rewrite the sources in the one format
	@clang-format -i $(SOURCES)

.PHONY: clean
clean: ## remove all that was built
	rm -rf .build

# Parts of `check`.
.PHONY: format-check check-headers check-layers check-clang tidy tidy-fast check-asan check-tsan
.PHONY: check-asan-fast check-tsan-fast
format-check: setup-check
	@echo 'clang-format: $(words $(SOURCES)) files'
	@clang-format --dry-run -Werror $(SOURCES)
	@! grep -nE '^.{101,}' $(SOURCES) || { echo "lines over 100 columns" >&2; exit 1; }

# Compiles everything with clang's thread-safety analysis, and each public header alone.
check-headers: setup-check
	$(call build,clang)
	$(call build,clang,all_verify_interface_header_sets)

# The same of the layers alone.
check-layers: setup-check
	$(call build,clang,all_verify_interface_header_sets $(LAYERS:%=keel_%))

check-clang: check-headers
	$(call run_tests,clang)

tidy: check-headers
	$(call tidy,$(TIDY_ALL))

tidy-fast: check-layers
	$(call tidy,$(TIDY_FAST))

check-asan: setup-check
	$(call build,asan)
	$(call run_tests,asan)

check-tsan: setup-check
	$(call build,tsan,,$(TSAN_ENV))
	$(TSAN_ENV) $(call run_tests,tsan)

# The same of the layers alone: the tools take as long to compile as all of them.
LAYER_TESTS = --tests-regex '^(base|vmap|alloc|cil):'
check-asan-fast: setup-check
	$(call build,asan,$(LAYERS:%=keel_%_tests))
	$(call run_tests,asan,$(LAYER_TESTS))

check-tsan-fast: setup-check
	$(call build,tsan,$(LAYERS:%=keel_%_tests),$(TSAN_ENV))
	$(TSAN_ENV) $(call run_tests,tsan,$(LAYER_TESTS))

.PHONY: setup-build setup-check setup-fuzz setup-profile setup-bench setup-trust
setup-build setup-check setup-fuzz setup-profile setup-bench setup-trust: setup-%:
	@third_party/setup.sh $*

# A thin front for CMake. The build folder is build/ (with SANITIZE: build-asan/ or build-tsan/); the tool is build/niti.
#   make            install what is missing, build          make bench     time the kernels, training steps and inference
#   make run        train a network on Fashion-MNIST        make install   PREFIX=/usr/local, DESTDIR
#   make test       build and run every test                make clean     remove the build folders (not runs/)
#   make test-slow  build and run the long forms of tests: an hour or two on two cores (docs/reliability.md)
#   make coverage   measure which lines and branches the tests reach
#   make memcheck   run unit tests and commands of the tool under valgrind
#   make static     cppcheck, gcc -fanalyzer and clang-tidy over all sources; FILES=src/...: over these
#   make format     format the sources by .clang-format, with clang-format 14
#   make bench-peers  the same beside PyTorch, oneDNN and onnxruntime, which it installs; QUICK=1: two minutes
#   make test-gpu   build and run the tests of the CUDA backend; fails where there is no device (make test skips them then)
#   make check-gpu  the same tests under compute-sanitizer: memcheck, racecheck and initcheck
#   make bench-gpu  time the CUDA kernels, and every network's training step beside PyTorch's (PYTHON: the one that has it)
# CUDA=ON, OFF or AUTO (default: ON if nvcc is found) builds with or without the CUDA backend.
# SANITIZE=address,undefined or SANITIZE=thread builds and tests with the compiler's sanitizers.
PREFIX ?= /usr/local
SANITIZE ?=
CUDA ?= AUTO
JOBS ?= $(shell nproc)

ifeq ($(strip $(SANITIZE)),)
BUILD := build
else ifeq ($(SANITIZE),thread)
BUILD := build-tsan
else ifneq ($(filter $(SANITIZE),address undefined address,undefined),)
BUILD := build-asan
else
$(error SANITIZE is address, undefined, address,undefined or thread, not '$(SANITIZE)')
endif
CONFIGURE := cmake -S . -B $(BUILD) -G Ninja -DNITI_SANITIZE=$(SANITIZE) -DNITI_CUDA=$(CUDA)
# the thread sanitizer needs the addresses that address space randomisation gives away
CTEST := $(if $(filter build-tsan,$(BUILD)),setarch -R )ctest

.PHONY: all build run test test-slow coverage memcheck static test-gpu check-gpu bench bench-peers bench-gpu format install clean
all: build

# The first build leaves the tests out, since they need more packages; `make test` adds them for good.
build:
	@scripts/setup.sh build
	@$(CONFIGURE) --log-level=NOTICE $(if $(wildcard $(BUILD)/CMakeCache.txt),,-DNITI_TESTS=OFF)
	@cmake --build $(BUILD) -j $(JOBS)

run:
	@scripts/setup.sh run
	@$(MAKE) --no-print-directory build
	@scripts/run.sh $(BUILD)

test:
	@scripts/setup.sh test
	@$(CONFIGURE) --log-level=NOTICE -DNITI_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS)
	@$(CTEST) --test-dir $(BUILD) --output-on-failure --no-tests=error -j $(JOBS) -LE slow

test-slow:
	@scripts/setup.sh test slow
	@$(CONFIGURE) --log-level=NOTICE -DNITI_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS)
	@$(CTEST) --test-dir $(BUILD) --output-on-failure --no-tests=error -j $(JOBS) -L slow

coverage:
	@scripts/setup.sh test slow
	@scripts/coverage.sh build-coverage

memcheck:
	@scripts/setup.sh test slow
	@$(CONFIGURE) --log-level=NOTICE -DNITI_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS)
	@scripts/check_memory.sh $(BUILD)

static:
	@scripts/setup.sh test slow
	@$(CONFIGURE) --log-level=NOTICE -DNITI_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS)
	@scripts/check_static.sh $(BUILD) $(FILES)

test-gpu:
	@scripts/setup.sh test
	@$(CONFIGURE) --log-level=NOTICE -DNITI_TESTS=ON -DNITI_CUDA=ON
	@cmake --build $(BUILD) -j $(JOBS)
	@NITI_TEST_GPU=1 ctest --test-dir $(BUILD) --output-on-failure --no-tests=error -L gpu

check-gpu:
	@scripts/setup.sh test
	@$(CONFIGURE) --log-level=NOTICE -DNITI_TESTS=ON -DNITI_CUDA=ON
	@cmake --build $(BUILD) -j $(JOBS)
	@for tool in memcheck racecheck initcheck; do scripts/check_gpu.sh $(BUILD) $$tool || exit 1; done

bench: build
	@scripts/bench.sh $(BUILD)

bench-peers: build
	@bench/compare_cpu.sh $(BUILD)/niti

bench-gpu:
	@$(MAKE) --no-print-directory build CUDA=ON
	@$(BUILD)/niti bench kernels --backend cuda --model vgg-small-7 --batch 1024
	@$(or $(PYTHON),python3) bench/compare_networks.py --niti $(BUILD)/niti --out $(BUILD)/networks.jsonl

format:
	@scripts/format.sh

# DESTDIR reaches CMake through the environment.
install: build
	@DESTDIR="$(DESTDIR)" cmake --install $(BUILD) --prefix "$(PREFIX)"

clean:
	rm -rf build build-asan build-tsan build-coverage

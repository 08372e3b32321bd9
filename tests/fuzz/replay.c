/* Runs a fuzz target over the files and folders given: the corpus as a test, or one case that a fuzzer found.
 *   fuzz_TARGET FILE|FOLDER...
 * One program holds all targets, as in ../unit_tests.c: build/tests/fuzz/fuzz_TARGET is a link to it. */
#define _XOPEN_SOURCE 700
#include <ftw.h>
#include <string.h>

#include "fuzz.h"

// fuzz_targets.h, which CMake writes, has a line TARGET(fuzz_yaml) for each file, whose functions are renamed so.
#define TARGET(name)                                                    \
  int name##_initialize(int *argc, char ***argv) __attribute__((weak)); \
  int name##_run(const uint8_t *data, size_t size);
#include "fuzz_targets.h"
#undef TARGET

static const struct Target {
  const char *name;
  int (*initialize)(int *argc, char ***argv);
  int (*run)(const uint8_t *data, size_t size);
} targets[] = {
#define TARGET(name) {#name, name##_initialize, name##_run},
#include "fuzz_targets.h"
#undef TARGET
};

static const struct Target *target;

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room) {
  (void)data;
  (void)room;
  return size;
}

static int ran;

static int run(const char *path, const struct stat *facts, int type, struct FTW *walk) {
  (void)walk;
  if (type != FTW_F) return 0;
  uint8_t *bytes = malloc((size_t)facts->st_size + 1);
  FILE *file = fopen(path, "rb");
  FUZZ_CHECK(bytes && file && fread(bytes, 1, (size_t)facts->st_size, file) == (size_t)facts->st_size);
  (void)fclose(file);
  (void)target->run(bytes, (size_t)facts->st_size);
  free(bytes);
  ++ran;
  return 0;
}

static int remove_entry(const char *path, const struct stat *facts, int type, struct FTW *walk) {
  (void)facts;
  (void)type;
  (void)walk;
  return remove(path);
}

int main(int argc, char **argv) {
  const char *slash = strrchr(argv[0], '/');
  for (size_t i = 0; i < sizeof targets / sizeof *targets; ++i)
    if (strcmp(slash ? slash + 1 : argv[0], targets[i].name) == 0) target = &targets[i];
  FUZZ_CHECK(target);  // called by the name of one
  if (target->initialize) (void)target->initialize(&argc, &argv);
  for (int i = 1; i < argc; ++i) FUZZ_CHECK(nftw(argv[i], run, 16, FTW_PHYS) == 0);
  (void)nftw(fuzz_dir(), remove_entry, 16, FTW_DEPTH | FTW_PHYS);
  (void)printf("%d cases\n", ran);
  return ran ? 0 : 1;
}

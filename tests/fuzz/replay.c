/* Runs a fuzz target over the files and folders given: the corpus as a test, or one case that a fuzzer found.
 *   fuzz_TARGET FILE|FOLDER... */
#define _XOPEN_SOURCE 700
#include <ftw.h>

#include "fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

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
  (void)LLVMFuzzerTestOneInput(bytes, (size_t)facts->st_size);
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
  if (LLVMFuzzerInitialize) (void)LLVMFuzzerInitialize(&argc, &argv);
  for (int i = 1; i < argc; ++i) FUZZ_CHECK(nftw(argv[i], run, 16, FTW_PHYS) == 0);
  (void)nftw(fuzz_dir(), remove_entry, 16, FTW_DEPTH | FTW_PHYS);
  (void)printf("%d cases\n", ran);
  return ran ? 0 : 1;
}

// All unit tests in one program: a program for each would link the whole library fifty times. build/tests/test_ops and its like
// are links to it, whose name says whose tests run; so does the first argument.
#include <stdio.h>
#include <string.h>

// unit_tests.h, which CMake writes, has a line PROGRAM(test_ops) for each file. In it `main` is called run_test_ops.
#define PROGRAM(name) int run_##name(void);
#include "unit_tests.h"
#undef PROGRAM

static const struct {
  const char *name;
  int (*run)(void);
} programs[] = {
#define PROGRAM(name) {#name, run_##name},
#include "unit_tests.h"
#undef PROGRAM
};

int main(int argc, char **argv) {
  for (int i = 0; i < argc && i < 2; ++i) {
    const char *slash = strrchr(argv[i], '/');
    const char *name = slash ? slash + 1 : argv[i];
    for (size_t j = 0; j < sizeof programs / sizeof *programs; ++j)
      if (strcmp(name, programs[j].name) == 0) return programs[j].run();
  }
  fprintf(stderr, "unit_tests: expected the name of a test program, such as %s\n", programs[0].name);
  return 2;
}

/* The device tests on the emulated device: emulated_tests TEST [ONLY [SKIP]], where ONLY and SKIP are cmocka's patterns of tests.
 */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
/* clang-format on */

int run_test_cuda(void);
int run_test_cuda_conv(void);
int run_test_cuda_network(void);
int run_test_cuda_norm(void);
int run_test_cuda_norm_pool(void);
int run_test_cuda_sgd(void);
int run_test_copies(void);
int run_test_packs(void);
int run_test_bits(void);

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    int (*run)(void);
  } programs[] = {{"test_cuda", run_test_cuda},
                  {"test_cuda_conv", run_test_cuda_conv},
                  {"test_cuda_network", run_test_cuda_network},
                  {"test_cuda_norm", run_test_cuda_norm},
                  {"test_cuda_norm_pool", run_test_cuda_norm_pool},
                  {"test_cuda_sgd", run_test_cuda_sgd},
                  {"test_copies", run_test_copies},
                  {"test_packs", run_test_packs},
                  {"test_bits", run_test_bits}};
  if (argc > 2) cmocka_set_test_filter(argv[2]);
  if (argc > 3) cmocka_set_skip_filter(argv[3]);
  for (size_t i = 0; i < sizeof programs / sizeof *programs && argc > 1; ++i)
    if (strcmp(argv[1], programs[i].name) == 0) return programs[i].run();
  (void)fprintf(stderr,
                "emulated_tests: expected test_cuda, test_cuda_conv, test_cuda_network, test_cuda_norm, test_cuda_norm_pool, "
                "test_cuda_sgd, test_copies, test_packs or test_bits\n");
  return 2;
}

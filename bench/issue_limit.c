/* What limits the direct kernels of AVX-512 VNNI on this machine: the multiply-adds of a 6x64 tile alone, with more and more
 * instructions that do nothing beside them, and with the tile's own loads. Each runs for a third of a millisecond between two
 * runs of the multiply-adds alone; printed are the 10th percentile, median and 90th percentile of its share of their mean speed.
 * A share that falls with instructions that touch nothing shows that the core issues too few of them per cycle.
 *
 *   cc -O2 bench/issue_limit.c -o build/issue_limit && taskset -c 0 build/issue_limit [ROUNDS] */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
  PANEL_BYTES = 144 * 1024, /* of weights, read once a pass: 3x3 taps, 256 channels, in the second-level cache */
  NEAR_BYTES = 16 * 1024,   /* in the first-level cache */
  GROUP_BYTES = 256,        /* of weights for one group of four products */
  ROW_BYTES = 4096,         /* between the rows of activations */
  ROWS_BYTES = 64 * 1024,   /* of activations */
  MULTIPLY_ADDS = 24,       /* of a group, each of 64 products */
  RUN_NS = 300000,
};

#define DOT(a, w, acc) "vpdpbusd %%zmm" #w ", %%zmm" #a ", %%zmm" #acc "\n\t"
#define ROW(a, a0, a1, a2, a3) DOT(a, 0, a0) DOT(a, 1, a1) DOT(a, 2, a2) DOT(a, 3, a3)
#define WEIGHTS "vmovdqu64 (%0), %%zmm0\n\tvmovdqu64 64(%0), %%zmm1\n\tvmovdqu64 128(%0), %%zmm2\n\tvmovdqu64 192(%0), %%zmm3\n\t"
#define ACTIVATION(row, a) "vpbroadcastd " #row "*4096(%1), %%zmm" #a "\n\t"

/* A pass over `groups` groups. weights, activation: the loads, or nothing; idle: how many
 * instructions that do nothing a group. */
#define PASS(name, weights, activation, idle)                                                                             \
  static void name(const uint8_t *panel, const uint8_t *in, size_t groups) {                                              \
    __asm__ volatile("1:\n\t" weights activation(0, 4) ROW(4, 8, 9, 10, 11) activation(1, 5) ROW(5, 12, 13, 14, 15)       \
                         activation(2, 6) ROW(6, 16, 17, 18, 19) activation(3, 7) ROW(7, 20, 21, 22, 23) activation(4, 4) \
                             ROW(4, 24, 25, 26, 27) activation(5, 5)                                                      \
                                 ROW(5, 28, 29, 30, 31) ".rept " #idle                                                    \
                                                        "\n\tnop\n\t.endr\n\t"                                            \
                                                        "add $256, %0\n\tadd $4, %1\n\tdec %2\n\tjnz 1b\n\tvzeroupper"    \
                     : "+r"(panel), "+r"(in), "+r"(groups)                                                                \
                     :                                                                                                    \
                     : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
                       "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                                      \
  }
#define NONE(row, a) ""
PASS(alone, "", NONE, 0)
PASS(idle_4, "", NONE, 4)
PASS(idle_10, "", NONE, 10)
PASS(idle_20, "", NONE, 20)
PASS(tile, WEIGHTS, ACTIVATION, 0)

typedef struct Variant {
  const char *name;
  void (*pass)(const uint8_t *, const uint8_t *, size_t);
  size_t bytes;
} Variant;

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Products and sums, in operations a nanosecond. */
static double speed(const Variant *v, const uint8_t *panel, const uint8_t *in, double ns) {
  const double start = now_ns();
  size_t passes = 0;
  double time;
  do {
    for (int i = 0; i < 4; ++i) v->pass(panel, in, v->bytes / GROUP_BYTES);
    passes += 4;
    time = now_ns() - start;
  } while (time < ns);
  return 2.0 * 64 * MULTIPLY_ADDS * (double)(passes * (v->bytes / GROUP_BYTES)) / time;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  const Variant variants[] = {
      {"multiply-adds alone", alone, NEAR_BYTES},      {"and 4 that do nothing", idle_4, NEAR_BYTES},
      {"and 10 that do nothing", idle_10, NEAR_BYTES}, {"and 20 that do nothing", idle_20, NEAR_BYTES},
      {"tile, first-level cache", tile, NEAR_BYTES},   {"tile, second-level cache", tile, PANEL_BYTES},
  };
  enum { VARIANTS = sizeof variants / sizeof variants[0] };
  char *end = "";
  const long rounds = argc > 1 ? strtol(argv[1], &end, 10) : 200;
  if (argc > 2 || *end || rounds < 1 || rounds > 100000) {
    fprintf(stderr, "usage: issue_limit [ROUNDS]: from 1 to 100000\n");
    return 2;
  }
  if (!__builtin_cpu_supports("avx512vnni")) {
    fprintf(stderr, "issue_limit: this processor has no AVX-512 VNNI\n");
    return 1;
  }
  uint8_t *panel = aligned_alloc(4096, PANEL_BYTES), *in = aligned_alloc(4096, ROWS_BYTES);
  double *shares = malloc((size_t)rounds * VARIANTS * sizeof(double)), *peaks = malloc((size_t)rounds * sizeof(double));
  if (!panel || !in || !shares || !peaks) {
    fprintf(stderr, "issue_limit: no memory\n");
    return 1;
  }
  memset(panel, 1, PANEL_BYTES);
  memset(in, 1, ROWS_BYTES);
  for (long r = 0; r < rounds; ++r) {
    for (int v = 0; v < VARIANTS; ++v) {
      const double before = speed(&variants[0], panel, in, RUN_NS / 2), here = speed(&variants[v], panel, in, RUN_NS);
      const double after = speed(&variants[0], panel, in, RUN_NS / 2);
      shares[v * rounds + r] = here / ((before + after) / 2);
      if (v == 0) peaks[r] = here;
    }
  }
  qsort(peaks, (size_t)rounds, sizeof(double), ascending);
  printf("multiply-adds alone: %.0f, %.0f, %.0f GOPS (10th percentile, median, 90th of %ld runs)\n", peaks[rounds / 10],
         peaks[rounds / 2], peaks[rounds * 9 / 10], rounds);
  for (int v = 0; v < VARIANTS; ++v) {
    double *s = shares + v * rounds;
    qsort(s, (size_t)rounds, sizeof(double), ascending);
    printf("%-26s %5.1f %5.1f %5.1f %%\n", variants[v].name, 100 * s[rounds / 10], 100 * s[rounds / 2], 100 * s[rounds * 9 / 10]);
  }
  free(panel);
  free(in);
  free(shares);
  free(peaks);
  return 0;
}

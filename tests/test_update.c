/* Update `niti` on the CPU against the formula of src/base: every width of gradients, every instruction set. */
#include "ops_test.h"

static void check_update(NitiBackend *backend, size_t count, int width, int32_t mu, int gradient_bits) {
  const NitiShape shape = {1, 1, 1, (int32_t)count};
  NitiTensor w = tensor_random(shape, 127, -8), expected = tensor_copy(&w);
  int64_t *g = malloc(count * sizeof *g);
  int32_t *g32 = malloc(count * sizeof *g32);
  assert_true(g && g32);
  const int64_t most = ((int64_t)1 << width) - 1;
  for (size_t i = 0; i < count; ++i) {
    g[i] = (int64_t)(next_random() % (uint64_t)(2 * most + 1)) - most;
    if (next_random() % 2) g[i] /= 1 + (int64_t)(next_random() % 64);
  }
  g[count - 1] = width % 2 ? most : -most;
  for (size_t i = 0; i < count; ++i) g32[i] = (int32_t)g[i];
  niti_update_niti_fraction(expected.data, g, count, mu);
  const NitiGradient gradient = {.data = gradient_bits == 32 ? (void *)g32 : (void *)g, .bits = gradient_bits, .count = count};
  call_update_niti(backend, &w, &gradient, mu);
  assert_same(&w, &expected);
  free(g), free(g32);
  tensor_free(&w), tensor_free(&expected);
}

static void test_update(void **state) {
  (void)state;
  for (size_t t = 0; t < 2; ++t) {
    NitiBackend *backend = open_backend(thread_counts[t]);
    for (int width = 0; width <= 61; ++width) {
      for (int mu = 1; mu <= 30; mu += width % 5 ? 4 : 1) {
        for (int part = 0; part < 2; ++part) { /* whole, and not */
          const int32_t rate = 1000000 * mu - part * random_in(1, 999999);
          if (width <= 31) check_update(backend, 203, width, rate, 32);
          check_update(backend, 203, width, rate, 64);
        }
      }
    }
    check_update(backend, 200001, 20, 4000000, 32);
    check_update(backend, 200001, 20, 4321000, 32);
    check_update(backend, 200001, 40, 4000000, 64);
    check_update(backend, 200001, 60, 4999999, 64);
    check_update(backend, 1, 31, 1000000, 32);
    niti_backend_close(backend);
  }
}

static void test_update_of_each_isa(void **state) {
  (void)state;
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    if (!niti_isa_supported(isa)) continue;
    NitiBackend *backend = NULL;
    const NitiBackendOptions options = {.name = "cpu", .isa = niti_isa_name(isa), .threads = 1};
    assert_int_equal(niti_backend_open(&backend, &options), NITI_OK);
    for (int width = 0; width <= 31; ++width) {
      for (int mu = 1; mu <= 9; mu += 2) {
        check_update(backend, 203, width, 1000000 * mu, 32);
        check_update(backend, 203, width, 1000000 * mu + random_in(1, 999999), 32);
      }
    }
    check_update(backend, 70001, 24, 5000000, 32);
    check_update(backend, 70001, 24, 5500000, 32);
    niti_backend_close(backend);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_update), cmocka_unit_test(test_update_of_each_isa)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

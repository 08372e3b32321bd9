/* Opening the CPU backend, by name, instruction set and number of threads, and its memory. */
#include "ops_test.h"

static void expect_open_error(const char *name, const char *isa, int threads, NitiStatus status, const char *says) {
  NitiBackend *backend = (NitiBackend *)&random_state;
  const NitiBackendOptions options = {.name = name, .isa = isa, .threads = threads};
  assert_int_equal(niti_backend_open(&backend, &options), status);
  assert_null(backend);
  if (!strstr(niti_error(), says)) fail_msg("\"%s\" does not say \"%s\"", niti_error(), says);
  assert_null(strchr(niti_error(), '\n'));
}

static void test_open_errors(void **state) {
  (void)state;
  expect_open_error("tpu", NULL, 1, NITI_ERROR_UNSUPPORTED, "tpu");
  expect_open_error("tpu", NULL, 1, NITI_ERROR_UNSUPPORTED, "cpu, or auto");
  expect_open_error("", NULL, 1, NITI_ERROR_UNSUPPORTED, "backend");
  expect_open_error("cp", NULL, 1, NITI_ERROR_UNSUPPORTED, "\"cp\"");
  expect_open_error("cpux", NULL, 1, NITI_ERROR_UNSUPPORTED, "cpux");
  expect_open_error("cpu:1", NULL, 1, NITI_ERROR_UNSUPPORTED, "cpu:1");
  expect_open_error("cpu", "sse9", 1, NITI_ERROR_ARGUMENT, "sse9");
  expect_open_error("cpu", NULL, -1, NITI_ERROR_ARGUMENT, "threads");
  expect_open_error("auto", NULL, -1, NITI_ERROR_ARGUMENT, "threads");
}

static void test_open_names(void **state) {
  static const char *const names[] = {NULL, "auto", "cpu"};
  (void)state;
  for (size_t i = 0; i < 3; ++i) {
    NitiBackend *backend = NULL;
    const NitiBackendOptions options = {.name = names[i], .threads = 1};
    assert_int_equal(niti_backend_open(&backend, &options), NITI_OK);
    assert_string_equal(backend->ops->name, "cpu");
    niti_backend_close(backend);
  }
  niti_backend_close(NULL);
}

/* Every instruction set opens where the CPU has it, and says what is missing where not. */
static void test_isa(void **state) {
  (void)state;
  assert_true(niti_isa_supported(NITI_ISA_REF));
  assert_true(niti_isa_supported(niti_cpu_best_isa()));
  for (NitiIsa isa = NITI_ISA_REF; isa < NITI_ISAS; ++isa) {
    const char *name = niti_isa_name(isa);
    NitiIsa parsed;
    if (niti_isa_supported(isa)) {
      assert_true(isa <= niti_cpu_best_isa());
      assert_int_equal(niti_isa_parse(&parsed, name), NITI_OK);
      assert_int_equal(parsed, isa);
    } else {
      expect_open_error("cpu", name, 1, NITI_ERROR_UNSUPPORTED, name);
    }
  }
  NitiIsa best;
  assert_int_equal(niti_isa_parse(&best, NULL), NITI_OK);
  assert_int_equal(best, niti_cpu_best_isa());
  assert_int_equal(niti_isa_parse(&best, "auto"), NITI_OK);
  assert_int_equal(best, niti_cpu_best_isa());
  char text[256], small[5];
  niti_cpu_features(text, sizeof text);
  assert_int_equal(niti_isa_supported(NITI_ISA_AVX2), strstr(text, "avx2") != NULL);
  assert_int_equal(niti_isa_supported(NITI_ISA_NEON_DOTPROD), strstr(text, "asimddp") != NULL);
  niti_cpu_features(small, sizeof small);
  assert_true(strlen(small) < sizeof small);
}

static void test_memory(void **state) {
  static const size_t sizes[] = {0, 1, 63, 64, 4097, (2u << 20) - 1, (2u << 20) + 5, 9u << 20};
  NitiBackend *backend = open_backend(1);
  const NitiBackendOps *ops = backend->ops;
  (void)state;
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
    void *p = NULL;
    assert_int_equal(ops->alloc(backend, &p, sizes[i]), NITI_OK);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 64, 0);
    for (size_t j = 0; j < sizes[i]; ++j) assert_true(((uint8_t *)p)[j] == 0);
    if (sizes[i] >= 8) {
      char back[8];
      ops->upload(backend, p, "integer", 8);
      ops->download(backend, back, p, 8);
      assert_string_equal(back, "integer");
    }
    ops->release(backend, p);
  }
  void *p = backend;
  assert_int_equal(ops->alloc(backend, &p, SIZE_MAX), NITI_ERROR_MEMORY);
  assert_null(p);
  assert_non_null(strstr(niti_error(), "18446744073709551615"));
  assert_int_equal(ops->synchronise(backend), NITI_OK);
  ops->release(backend, NULL);

  const NitiCpu *cpu = niti_cpu(backend);
  assert_int_equal(backend->kernels->reserve(backend, 1000), NITI_OK);
  assert_int_equal(backend->kernels->reserve(backend, 5000), NITI_OK);
  const uint8_t *workspace = cpu->workspace;
  assert_int_equal((uintptr_t)workspace % 64, 0);
  assert_int_equal(backend->kernels->reserve(backend, 10), NITI_OK);
  assert_ptr_equal(cpu->workspace, workspace);
  assert_int_equal(cpu->workspace_bytes, 5000);
  assert_int_equal(backend->kernels->reserve(backend, SIZE_MAX), NITI_ERROR_MEMORY);
  assert_ptr_equal(cpu->workspace, workspace);
  niti_backend_close(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_open_errors), cmocka_unit_test(test_open_names),
                                     cmocka_unit_test(test_isa), cmocka_unit_test(test_memory)};
  setenv("CUDA_VISIBLE_DEVICES", "", 1); /* "auto" is to find the CPU */
  return cmocka_run_group_tests(tests, NULL, NULL);
}

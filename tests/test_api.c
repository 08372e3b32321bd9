/* What programs that use niti.h rely on: versions, sizes, messages of their own for threads, and that the contract of every
 * function is tested: by test_api_formulas.c, test_api_training.c and test_api_runs.c. */
/* clang-format off */
#include "api_test.h" /* first */
#include <pthread.h>
/* clang-format on */

static void versions_agree(void **state) {
  char text[32];
  (void)state;
  (void)snprintf(text, sizeof text, "%d.%d.%d", NITI_VERSION_MAJOR, NITI_VERSION_MINOR, NITI_VERSION_PATCH);
  assert_string_equal(NITI_VERSION, text);
  assert_string_equal(niti_version(), text);
  assert_int_equal(niti_version_number(), NITI_VERSION_NUMBER);
  assert_int_equal(NITI_VERSION_NUMBER, NITI_VERSION_MAJOR * 10000 + NITI_VERSION_MINOR * 100 + NITI_VERSION_PATCH);
}

/* Programs that were compiled against this SONAME hold structs of these sizes: a new member takes the place of reserved ones. */
static void structs_keep_their_sizes(void **state) {
  (void)state;
  if (sizeof(void *) != 8) skip();
  assert_int_equal(sizeof(NitiDevice), 2 * 8 + 8 + 4 * 8);
  assert_int_equal(sizeof(NitiScore), 3 * 8 + 2 * 8);
  assert_int_equal(sizeof(NitiTrainOptions), sizeof(NitiDevice) + 2 * 8 + 8 + 2 * 8 + 8 * 8);
  assert_int_equal(sizeof(NitiProgress), 2 * 8 + 8 + 4 * 8 + 5 * sizeof(NitiScore) + 5 * 8 + 4 * 8);
  assert_int_equal(sizeof(NitiDataFacts), 2 * 8 + 8 + 3 * 8 + 200 + 8 + 8 + 4 * 8);
  assert_int_equal(sizeof(NitiRunFacts), 5 * 8 + sizeof(NitiDataFacts) + 16 + 2 * 8 + 2 * 4 + 8 + 8 + 2 * 8 + 4 * 8);
  assert_int_equal(sizeof(NitiTrainResult), 72 + 8 + 5 * sizeof(NitiScore) + 8 + 2 * 8 + 2 * 8 + 4 * 8);
}

static char *text_of(const char *path) {
  size_t size = 0;
  char *text = (char *)get_file(path, &size);
  text[size] = 0;
  return text;
}

/* Each NITI_API line of niti.h names a function that a test of contracts calls. */
static void every_function_is_called(void **state) {
  static const char *const tests[] = {"", "_formulas", "_runs", "_training"};
  enum { TESTS = sizeof tests / sizeof *tests };
  char *texts[TESTS], *header = text_of(NITI_SOURCE_DIR "/include/niti.h");
  int count = 0;
  (void)state;
  for (int i = 0; i < TESTS; ++i) texts[i] = text_of(path_of(NITI_SOURCE_DIR "/tests/test_api%s.c", tests[i]));
  for (char *line = strstr(header, "\nNITI_API "); line; line = strstr(line + 1, "\nNITI_API ")) {
    char *name = strstr(line, "niti_"), *end = strchr(line, '(');
    bool called = false;
    assert_true(name && end && name < end);
    char call[80];
    (void)snprintf(call, sizeof call, "%.*s(", (int)(end - name), name);
    for (int i = 0; i < TESTS; ++i) called = called || strstr(texts[i], call);
    if (!called) fail_msg("%s is called in no test of contracts", call);
    ++count;
  }
  assert_true(count >= 28);
  for (int i = 0; i < TESTS; ++i) free(texts[i]);
  free(header);
}

static void *fail_elsewhere(void *context) {
  const bool empty = niti_error()[0] == 0;
  *(bool *)context = empty && niti_recipe_load(NULL, "elsewhere", NULL, 0) == NITI_ERROR_ARGUMENT;
  return NULL;
}

static void messages_belong_to_threads(void **state) {
  pthread_t thread;
  bool failed = false;
  char before[256];
  (void)state;
  check_refused(niti_checkpoint_file_hash(NULL, NULL), "niti_checkpoint_file_hash", "text");
  (void)snprintf(before, sizeof before, "%s", niti_error());
  assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, &failed), 0);
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_true(failed);
  assert_string_equal(niti_error(), before);
}

/* A process by itself is no rank of any; one of several needs the plugin, which is not beside this program. */
static void ranks(void **state) {
  NitiRanks *none = (NitiRanks *)(uintptr_t)1;
  (void)state;
  unsetenv("OMPI_COMM_WORLD_SIZE");
  assert_int_equal(niti_ranks_open(&none, NULL, NULL), NITI_OK);
  assert_null(none);
  assert_true(niti_ranks_rank(none) == 0 && niti_ranks_agreed(none));
  niti_ranks_abort(none, 1);
  niti_ranks_close(none);
  check_refused(niti_ranks_open(NULL, NULL, NULL), "niti_ranks_open", "out");
  none = (NitiRanks *)(uintptr_t)1;
  setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
  assert_int_equal(niti_ranks_open(&none, NULL, NULL), NITI_ERROR_UNSUPPORTED);
  unsetenv("OMPI_COMM_WORLD_SIZE");
  assert_null(none);
  assert_non_null(strstr(niti_error(), "libniti_mpi.so"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(versions_agree),
      cmocka_unit_test(structs_keep_their_sizes),
      cmocka_unit_test(every_function_is_called),
      cmocka_unit_test(messages_belong_to_threads),
      cmocka_unit_test(ranks),
  };
  return cmocka_run_group_tests_name("api", tests, NULL, NULL);
}

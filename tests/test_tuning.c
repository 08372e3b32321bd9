/* Ways of convolutions, and the file that chooses among them: every way gives the same bits; a file that cannot be used is left
 * out with a note; two writers lose nothing. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>
/* clang-format on */

#include <jansson.h>

#include "backend/kernels.h"
#include "every_layer.h"
#include "io_test.h"
#include "programs.h"

enum { BATCH = 6, NAMES_MAX = 64 };

static const char *const isas[] = {"avx2", "avx512vnni", "amx", "neon-dotprod", "neon-i8mm"};

/* Products of every driver: 3x3, strided, 1x1, with few channels, in groups, and linear. */
static const char network[] =
    "name: ways\ninput: [17, 18, 3]\nclasses: 5\nlayers:\n"
    "  - conv: {out: 24, kernel: 3, padding: 1}\n"
    "  - relu\n"
    "  - conv: {out: 40, kernel: 3, padding: 1}\n"
    "  - relu\n"
    "  - conv: {out: 40, kernel: 3, stride: 2, padding: 1}\n"
    "  - conv: {out: 40, kernel: 3, padding: 1, groups: 40}\n"
    "  - conv: {out: 32, kernel: 1}\n"
    "  - flatten\n"
    "  - linear: {out: classes}\n";

/* ---- a step, and its bits ---- */

typedef struct Step {
  NitiExecutable *executable;
  NitiBindings bindings;
  uint8_t *pixels;
  NitiSample samples[BATCH];
  int32_t labels[BATCH];
} Step;

static void fill(Step *s, const NitiProgram *p) {
  for (int32_t i = 0; i < p->tensor_count; ++i) {
    const NitiTensorDesc *desc = &p->tensors[i];
    if (desc->role != NITI_ROLE_WEIGHT && desc->role != NITI_ROLE_CONSTANT) continue;
    const size_t count = niti_tensor_count(desc, 0);
    const int32_t exponent = -7;
    int8_t *values = malloc(count);
    assert_non_null(values);
    for (size_t k = 0; k < count; ++k) values[k] = (int8_t)random_in(-127, 127);
    must(niti_executable_write(s->executable, i, 0, values, &exponent));
    free(values);
  }
}

static Step open_step(NitiBackend *backend, const char *text) {
  Step s = {.executable = NULL};
  const NitiLowerOptions options = {.batch = BATCH, .training = true};
  NitiProgram *p = program_of(text, &options);
  random_state = 17;
  must(niti_backend_compile(&s.executable, backend, p, NULL));
  fill(&s, p);
  const NitiShape input = {1, 17, 18, 3};
  s.pixels = malloc(BATCH * niti_shape_image(input));
  assert_non_null(s.pixels);
  for (size_t i = 0; i < BATCH * niti_shape_image(input); ++i) s.pixels[i] = (uint8_t)random_in(0, 255);
  for (int i = 0; i < BATCH; ++i) {
    s.samples[i].image = (uint32_t)i;
    s.labels[i] = i % 5;
  }
  s.bindings = (NitiBindings){.batch = BATCH, .seed = 3, .pixels = s.pixels, .source = input};
  s.bindings.scalars[0] = 5000000; /* mu */
  niti_program_close(p);
  return s;
}

static void close_step(Step *s) {
  niti_executable_close(s->executable);
  free(s->pixels);
}

/* FNV of all weights after two more steps. */
static uint64_t bits_of(Step *s) {
  const NitiProgram *p = niti_executable_program(s->executable);
  uint64_t bits = UINT64_C(14695981039346656037);
  s->bindings.samples = s->samples;
  s->bindings.labels = s->labels;
  for (int i = 0; i < 2; ++i) {
    must(niti_executable_run(s->executable, 0, p->operation_count, &s->bindings));
    ++s->bindings.step;
  }
  for (int32_t i = 0; i < p->tensor_count; ++i) {
    if (p->tensors[i].role != NITI_ROLE_WEIGHT) continue;
    const size_t count = niti_tensor_count(&p->tensors[i], 0);
    uint8_t *values = malloc(count);
    assert_non_null(values);
    must(niti_executable_read(s->executable, i, 0, values, NULL));
    for (size_t k = 0; k < count; ++k) bits = (bits ^ values[k]) * UINT64_C(1099511628211);
    free(values);
  }
  return bits;
}

static NitiBackend *open_with(const char *isa, int threads, const char *tuning) {
  NitiBackend *backend = NULL;
  const NitiBackendOptions options = {.name = "cpu", .isa = isa, .threads = threads, .tuning = tuning};
  const NitiStatus status = niti_backend_open(&backend, &options);
  assert_true(status == NITI_OK || status == NITI_ERROR_UNSUPPORTED);
  return backend;
}

static uint64_t reference_bits(void) {
  NitiBackend *backend = open_with("ref", 1, NULL);
  Step s = open_step(backend, network);
  const uint64_t bits = bits_of(&s);
  close_step(&s);
  niti_backend_close(backend);
  return bits;
}

/* Lets every convolution run in its way number `which`, counted round; returns the most ways that one has. */
static int choose_all(Step *s, int which) {
  char convolution[NITI_CONVOLUTION_MAX];
  NitiWay ways[NITI_WAYS_MAX];
  int most = 0;
  for (int32_t i = 0; i < niti_executable_program(s->executable)->operation_count; ++i) {
    const int count = niti_executable_ways(s->executable, i, convolution, ways);
    if (count == 0) continue;
    must(niti_executable_choose(s->executable, i, ways[which % count].number));
    most = count > most ? count : most;
  }
  return most;
}

static void every_way_gives_the_same_bits(void **state) {
  (void)state;
  const uint64_t want = reference_bits();
  for (size_t i = 0; i < sizeof isas / sizeof *isas; ++i) {
    NitiBackend *backend = open_with(isas[i], 2, NULL);
    if (!backend) continue;
    for (int which = 0, most = 1; which < most; ++which) {
      Step s = open_step(backend, network);
      most = choose_all(&s, which);
      assert_true(most > 3); /* or nothing is compared */
      if (bits_of(&s) != want) fail_msg("way %d of %s gives other bits", which, isas[i]);
      close_step(&s);
    }
    niti_backend_close(backend);
  }
}

/* Ways have names of their own, and the first is what runs where nobody chooses. */
static void ways_have_names(void **state) {
  char convolution[NITI_CONVOLUTION_MAX];
  NitiWay ways[NITI_WAYS_MAX];
  (void)state;
  NitiBackend *backend = open_with(NULL, 2, NULL);
  Step s = open_step(backend, network);
  for (int32_t o = 0; o < niti_executable_program(s.executable)->operation_count; ++o) {
    const int count = niti_executable_ways(s.executable, o, convolution, ways);
    char before[64];
    if (count == 0) continue;
    (void)snprintf(before, sizeof before, "%s", niti_executable_kernel(s.executable, o));
    must(niti_executable_choose(s.executable, o, ways[0].number));
    assert_string_equal(niti_executable_kernel(s.executable, o), before);
    for (int i = 0; i < count; ++i) {
      for (int k = 0; k < i; ++k) assert_string_not_equal(ways[i].name, ways[k].name);
    }
  }
  assert_int_equal(niti_executable_ways(s.executable, -1, convolution, ways), 0);
  assert_int_equal(niti_executable_choose(s.executable, -1, 0), NITI_ERROR_ARGUMENT);
  close_step(&s);
  niti_backend_close(backend);
}

/* ---- the file ---- */

static const char *place(void) {
  static char path[300];
  (void)snprintf(path, sizeof path, "%s/tuning.json", folder);
  return path;
}

/* Writes a file with the way number `which` of each convolution. Returns how many there are. */
static int32_t write_ways(const char *path, NitiBackend *backend, int which) {
  static char convolutions[NAMES_MAX][NITI_CONVOLUTION_MAX], ways[NAMES_MAX][NITI_WAY_NAME_MAX];
  const char *names[NAMES_MAX], *chosen[NAMES_MAX];
  NitiWay all[NITI_WAYS_MAX];
  int32_t count = 0;
  Step s = open_step(backend, network);
  for (int32_t i = 0; i < niti_executable_program(s.executable)->operation_count; ++i) {
    const int own = niti_executable_ways(s.executable, i, convolutions[count], all);
    if (own == 0) continue;
    memcpy(ways[count], all[which % own].name, sizeof ways[count]);
    names[count] = convolutions[count];
    chosen[count] = ways[count];
    ++count;
    assert_true(count < NAMES_MAX);
  }
  close_step(&s);
  must(niti_tuning_write(path, backend, names, chosen, count));
  return count;
}

static void a_file_chooses_and_changes_no_bit(void **state) {
  const char *path = place();
  (void)state;
  char text[NITI_TUNED_MAX], want[NITI_TUNED_MAX];
  const uint64_t bits = reference_bits();
  for (int which = 1; which < 6; which += 2) {
    NitiBackend *plain = open_with(NULL, 2, NULL);
    const int32_t count = write_ways(path, plain, which);
    niti_backend_close(plain);
    NitiBackend *backend = open_with(NULL, 2, path);
    const NitiTuningFacts *facts = niti_backend_tuning(backend);
    assert_non_null(facts);
    assert_null(facts->note);
    assert_int_equal(facts->entries, count);
    Step s = open_step(backend, network);
    assert_true(niti_executable_tuned(s.executable, text));
    (void)snprintf(want, sizeof want, "%d of %d convolutions as measured in %s", count, count, path);
    assert_string_equal(text, want);
    assert_true(bits_of(&s) == bits);
    close_step(&s);
    niti_backend_close(backend);
  }
}

/* A smaller batch than the file's runs too, and gives what it gives without the file. */
static void a_smaller_batch_is_not_in_the_file(void **state) {
  const char *path = place();
  (void)state;
  uint64_t bits[2];
  NitiBackend *plain = open_with(NULL, 2, NULL);
  (void)write_ways(path, plain, 3);
  niti_backend_close(plain);
  for (int tuned = 0; tuned < 2; ++tuned) {
    NitiBackend *backend = open_with(NULL, 2, tuned ? path : NULL);
    Step s = open_step(backend, network);
    s.bindings.batch = BATCH - 2;
    bits[tuned] = bits_of(&s);
    close_step(&s);
    niti_backend_close(backend);
  }
  assert_true(bits[0] == bits[1]);
}

static void put_text(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  fclose(file);
}

static void check_left_out(const char *path, const char *says, bool damaged) {
  char text[NITI_TUNED_MAX];
  NitiBackend *backend = open_with(NULL, 2, path);
  const NitiTuningFacts *facts = niti_backend_tuning(backend);
  assert_non_null(facts);
  Step s = open_step(backend, network);
  assert_true(bits_of(&s) == reference_bits());
  (void)niti_executable_tuned(s.executable, text);
  assert_non_null(facts->note);
  if (!strstr(facts->note, says) || !strstr(facts->note, path)) fail_msg("'%s' does not say '%s'", facts->note, says);
  assert_int_equal(facts->damaged, damaged);
  close_step(&s);
  niti_backend_close(backend);
}

static void what_cannot_be_used_is_left_out(void **state) {
  const char *path = place();
  (void)state;
  char text[2048];
  NitiBackend *b = open_with(NULL, 2, NULL);
  remove(path);
  check_left_out(path, "cannot open", true);
  put_text(path, "");
  check_left_out(path, "not JSON", true);
  put_text(path, "{\"format\": \"niti tuning\", \"version\": 1, \"devices\": [");
  check_left_out(path, ":1: not JSON", true);
  put_text(path, "[]");
  check_left_out(path, "not a tuning file", true);
  put_text(path, "{\"format\": \"something else\"}");
  check_left_out(path, "not a tuning file", true);
  put_text(path, "{\"format\": \"niti tuning\", \"version\": 2, \"devices\": []}");
  check_left_out(path, "version 2 (expected 1)", true);
  put_text(path, "{\"format\": \"niti tuning\", \"version\": 1, \"devices\": 5}");
  check_left_out(path, "devices is not a list", true);
  put_text(path, "{\"format\": \"niti tuning\", \"version\": 1, \"devices\": [7, {\"hardware\": 5}]}");
  check_left_out(path, "nothing for this device", false);
  memset(text, '[', sizeof text - 1);
  text[sizeof text - 1] = 0;
  put_text(path, text);
  check_left_out(path, "byte 4: JSON nested more than 4 levels deep", true);
  memset(text, ',', sizeof text - 1); /* after a list of values without text */
  memcpy(text, "[7", 2);
  put_text(path, text);
  check_left_out(path, "more than 575 values in 2047 bytes", true);
  put_text(path, "[");
  assert_int_equal(truncate(path, (4 << 20) + 1), 0);
  check_left_out(path, "4194304", true);
  (void)snprintf(text, sizeof text,
                 "{\"format\": \"niti tuning\", \"version\": 1, \"devices\": [{\"hardware\": \"%s\", \"kernels\": \"%s\", "
                 "\"threads\": 2, \"build\": \"0\", \"ways\": {}}]}",
                 b->ops->hardware(b), b->ops->kernels(b));
  put_text(path, text);
  check_left_out(path, "another build", false);
  (void)write_ways(path, b, 1);
  NitiBackend *other = open_with(NULL, 3, path); /* another number of threads is another device */
  assert_non_null(strstr(niti_backend_tuning(other)->note, "nothing for this device"));
  niti_backend_close(other);
  niti_backend_close(b);
}

static void a_way_that_is_not_there_is_left_out(void **state) {
  const char *path = place();
  (void)state;
  char convolution[NITI_CONVOLUTION_MAX];
  NitiWay ways[NITI_WAYS_MAX];
  NitiBackend *b = open_with(NULL, 2, NULL);
  Step s = open_step(b, network);
  int32_t i = 0;
  while (niti_executable_ways(s.executable, i, convolution, ways) == 0) ++i;
  const char *name = convolution, *way = "abacus\n\033[1m direct";
  remove(path);
  must(niti_tuning_write(path, b, &name, &way, 1));
  close_step(&s);
  niti_backend_close(b);
  check_left_out(path, "\"abacus\\x0A\\x1B[1m direct\" is no way", true); /* one line, whatever a file says */
}

/* A damaged file is replaced; another device's entries stay; a second write adds. */
static void writing_keeps_what_others_wrote(void **state) {
  const char *path = place();
  (void)state;
  static const char start[] = "{\"format\": \"niti tuning\", \"version\": 1, \"devices\": [";
  static char dense[8000];
  const char *names[2] = {"forward of one", "forward of two"}, *ways[2] = {"a", "b"};
  NitiBackend *two = open_with(NULL, 2, NULL), *three = open_with(NULL, 3, NULL);
  put_text(path, "{");
  must(niti_tuning_write(path, two, names, ways, 1));
  must(niti_tuning_write(path, three, names, ways, 2));
  must(niti_tuning_write(path, two, names + 1, ways + 1, 1));
  for (int threads = 2; threads <= 3; ++threads) {
    NitiBackend *b = open_with(NULL, threads, path);
    assert_int_equal(niti_backend_tuning(b)->entries, 2);
    niti_backend_close(b);
  }
  memset(dense, ' ', sizeof dense - 1); /* between blanks, more values than may be read without them */
  memcpy(dense, start, sizeof start - 1);
  for (int i = 0; i < 200; ++i) memcpy(dense + sizeof start - 1 + 3 * i, i ? ",{}" : " {}", 3);
  memcpy(dense + sizeof dense - 3, "]}", 2);
  put_text(path, dense);
  must(niti_tuning_write(path, two, names, ways, 1));
  NitiBackend *b = open_with(NULL, 2, path);
  assert_null(niti_backend_tuning(b)->note);
  assert_int_equal(niti_backend_tuning(b)->entries, 1);
  niti_backend_close(b);
  assert_int_equal(niti_tuning_write("/nowhere/tuning.json", two, names, ways, 1), NITI_ERROR_FILE);
  niti_backend_close(two);
  niti_backend_close(three);
}

/* Others' entries that fill the file without line ends stay, without them. */
static void a_full_file_keeps_what_others_wrote(void **state) {
  const char *path = place(), *name = "forward of one", *way = "a";
  enum { ENTRIES = 68000, ROOM = 1 << 22 };
  char *text = malloc(ROOM), *at = text;
  (void)state;
  assert_non_null(text);
  NitiBackend *two = open_with(NULL, 2, NULL);
  at += sprintf(at,
                "{\"format\":\"niti tuning\",\"version\":1,\"devices\":[{\"hardware\":\"x\",\"kernels\":\"y\",\"threads\":1,"
                "\"build\":\"z\",\"ways\":{");
  for (int i = 0; i < ENTRIES; ++i)
    at += sprintf(at, "%s\"a convolution of this kind, number %07d\":\"a way 1234\"", i ? "," : "", i);
  at += sprintf(at, "}}]}");
  assert_true(at - text < ROOM && at - text > ROOM - ROOM / 8);
  put_text(path, text);
  free(text);
  must(niti_tuning_write(path, two, &name, &way, 1));
  json_t *file = json_load_file(path, 0, NULL);
  const json_t *first = json_array_get(json_object_get(file, "devices"), 0);
  assert_int_equal(json_object_size(json_object_get(first, "ways")), ENTRIES);
  json_decref(file);
  niti_backend_close(two);
  NitiBackend *b = open_with(NULL, 2, path);
  assert_int_equal(niti_backend_tuning(b)->entries, 1);
  niti_backend_close(b);
}

enum { WRITERS = 4, WRITES = 8 };

static void write_often(const char *path, int writer) {
  NitiBackend *b = open_with(NULL, 1, NULL);
  for (int i = 0; i < WRITES; ++i) {
    char name[64];
    const char *names = name, *way = "a";
    (void)snprintf(name, sizeof name, "writer %d, write %d", writer, i);
    if (niti_tuning_write(path, b, &names, &way, 1) != NITI_OK) _exit(1);
  }
  _exit(0);
}

static void writers_at_once_lose_nothing(void **state) {
  const char *path = place();
  (void)state;
  pid_t writers[WRITERS];
  remove(path);
  for (int i = 0; i < WRITERS; ++i) {
    writers[i] = fork();
    assert_true(writers[i] >= 0);
    if (writers[i] == 0) write_often(path, i);
  }
  for (int i = 0; i < WRITERS; ++i) {
    int status = 0;
    assert_int_equal(waitpid(writers[i], &status, 0), writers[i]);
    assert_int_equal(status, 0);
  }
  NitiBackend *b = open_with(NULL, 1, path);
  assert_null(niti_backend_tuning(b)->note);
  assert_int_equal(niti_backend_tuning(b)->entries, WRITERS * WRITES);
  niti_backend_close(b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_way_gives_the_same_bits),     cmocka_unit_test(ways_have_names),
      cmocka_unit_test(a_file_chooses_and_changes_no_bit), cmocka_unit_test(a_smaller_batch_is_not_in_the_file),
      cmocka_unit_test(what_cannot_be_used_is_left_out),   cmocka_unit_test(a_way_that_is_not_there_is_left_out),
      cmocka_unit_test(writing_keeps_what_others_wrote),   cmocka_unit_test(a_full_file_keeps_what_others_wrote),
      cmocka_unit_test(writers_at_once_lose_nothing),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

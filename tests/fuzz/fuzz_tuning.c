/* Files of `niti tune`. In the text, @h, @k, @t and @b stand for this device's hardware, kernels and threads and for this build,
 * @c for the convolution that is asked for and @0 to @9 for the ways in which the device can run it, so that the corpus means the
 * same everywhere. What a file has is found; what is written into it is read again, with all that other devices wrote. */
#include <jansson.h>

#include "backend/tuning.h"
#include "fuzz.h"
#include "platform/file.h"
#include "platform/json.h"

enum { TEXT_MAX = 1 << 16 };

static NitiBackend *backend;
static NitiWay ways[NITI_WAYS_MAX];
static int way_count;
static char convolution[NITI_CONVOLUTION_MAX], threads[16];
static const NitiConvCall call = {.shape = {.n = 2,
                                            .h = 8,
                                            .w = 8,
                                            .c = 16,
                                            .oh = 8,
                                            .ow = 8,
                                            .k = 16,
                                            .kh = 3,
                                            .kw = 3,
                                            .stride_h = 1,
                                            .stride_w = 1,
                                            .pad_h = 1,
                                            .pad_w = 1},
                                  .direction = NITI_FORWARD};

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  const NitiBackendOptions options = {.name = "cpu", .threads = 1};
  (void)argc;
  (void)argv;
  FUZZ_CHECK(niti_backend_open(&backend, &options) == NITI_OK);
  way_count = backend->kernels->conv_ways(backend, &call, ways);
  niti_tuning_name(convolution, &call);
  (void)snprintf(threads, sizeof threads, "%d", backend->ops->threads(backend));
  return 0;
}

static const char *word_of(char c) {
  switch (c) {
    case 'h': return backend->ops->hardware(backend);
    case 'k': return backend->ops->kernels(backend);
    case 't': return threads;
    case 'b': return niti_kernels_digest;
    case 'c': return convolution;
    default: return c >= '0' && c <= '9' ? ways[(c - '0') % way_count].name : NULL;
  }
}

/* The text with its words put in; returns its length. */
static size_t expand(char out[TEXT_MAX], const uint8_t *data, size_t size) {
  size_t used = 0;
  for (size_t i = 0; i < size && used < TEXT_MAX - 512; ++i) {
    const char *word = data[i] == '@' && i + 1 < size ? word_of((char)data[i + 1]) : NULL;
    if (word) {
      used += (size_t)snprintf(out + used, 512, "%s", word);
      ++i;
    } else {
      out[used++] = (char)data[i];
    }
  }
  return used;
}

static NitiTuning *open_file(const char *path, NitiTuningFacts *facts) {
  NitiTuning *tuning;
  FUZZ_CHECK(niti_tuning_open(&tuning, path, backend) == NITI_OK);
  backend->tuning = tuning;
  *facts = *niti_backend_tuning(backend);
  FUZZ_CHECK(!facts->note || fuzz_is_line(facts->note));
  return tuning;
}

static void close_file(NitiTuning *tuning) {
  niti_tuning_close(tuning);
  backend->tuning = NULL;
}

static json_t *devices_of(json_t **file, const char *text, size_t size) {
  *file = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
  return json_object_get(*file, "devices");
}

static bool is_own(const json_t *entry) {
  const char *hardware = json_string_value(json_object_get(entry, "hardware"));
  return hardware && strcmp(hardware, word_of('h')) == 0;
}

/* Whether the text, as niti would write it, is too dense to be read again. */
static bool is_dense(const json_t *file) {
  char *text = json_dumps(file, JSON_INDENT(1));
  FUZZ_CHECK(text);
  const bool dense = niti_json_check(text, strlen(text), 4, SIZE_MAX, 0, "dense") != NITI_OK;
  free(text);
  return dense;
}

/* Every device that the text has, save this one, is in the file as it was and where it was. False: none is, since niti could not
 * read them again. */
static bool keeps_others(const char *text, size_t size, const char *written, size_t written_size) {
  json_t *before, *after;
  const json_t *had = devices_of(&before, text, size), *has = devices_of(&after, written, written_size);
  const size_t count = json_array_size(had);
  const bool lost = json_array_size(has) == 1 && is_dense(before);
  size_t changed = lost ? 0 : json_array_size(has) - count;
  FUZZ_CHECK(had && has && changed <= 1);
  for (size_t i = 0; i < count && !lost; ++i) {
    if (json_equal(json_array_get(had, i), json_array_get(has, i))) continue;
    FUZZ_CHECK(is_own(json_array_get(had, i)));
    ++changed;
  }
  FUZZ_CHECK(changed <= 1);
  json_decref(before);
  json_decref(after);
  return !lost;
}

/* before: what the file that has the text gave; unread: that was nothing. */
static void check_written(const char *path, const char *text, size_t size, int32_t before, bool unread, bool found) {
  const NitiWay *wanted = &ways[size % (size_t)way_count];
  const char *names[] = {convolution}, *chosen[] = {wanted->name};
  NitiTuningFacts again;
  char *once, *twice;
  size_t once_size = 0, twice_size = 0;
  int way;
  FUZZ_CHECK(niti_tuning_write(path, backend, names, chosen, 1) == NITI_OK);
  FUZZ_CHECK(niti_file_read(&once, &once_size, path, SIZE_MAX - 1) == NITI_OK);
  NitiTuning *tuning = open_file(path, &again);
  FUZZ_CHECK(!again.note && niti_tuning_find(tuning, backend, &call, &way) && way == wanted->number);
  close_file(tuning);
  const bool kept = !unread && keeps_others(text, size, once, once_size);
  FUZZ_CHECK(again.entries >= 1 && (kept ? again.entries >= before : again.entries == 1));
  FUZZ_CHECK(!kept || !found || again.entries == before);
  FUZZ_CHECK(niti_tuning_write(path, backend, names, chosen, 1) == NITI_OK);
  FUZZ_CHECK(niti_file_read(&twice, &twice_size, path, SIZE_MAX - 1) == NITI_OK);
  FUZZ_CHECK(once_size == twice_size && memcmp(once, twice, once_size) == 0);
  free(once);
  free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static char text[TEXT_MAX];
  const size_t length = expand(text, data, size);
  const char *path = fuzz_put("tuning.json", text, length);
  NitiTuningFacts facts;
  int way, known = 0;
  NitiTuning *tuning = open_file(path, &facts);
  const bool unread = facts.note && strstr(facts.note, "`niti tune` writes it anew");
  FUZZ_CHECK(unread ? facts.damaged : facts.note || !facts.damaged);
  const bool found = niti_tuning_find(tuning, backend, &call, &way);
  for (int i = 0; i < way_count; ++i) known += ways[i].number == way;
  FUZZ_CHECK(found ? !facts.note && known == 1 && facts.entries > 0 : way == 0);
  const char *note = niti_backend_tuning(backend)->note;
  FUZZ_CHECK(!note || fuzz_is_line(note));
  close_file(tuning);
  check_written(path, text, length, facts.entries, unread, found);
  (void)niti_system.unlink(path);
  return 0;
}

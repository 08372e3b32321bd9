/* What several commands share. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

int fail(void) {
  fprintf(stderr, "niti: %s\n", niti_error());
  return EXIT_FAILED;
}

NitiDevice device_of(const DeviceOptions *options) {
  return (NitiDevice){.backend = options->backend, .isa = options->isa, .threads = (int)options->threads};
}

int print_json(json_t *object) {
  char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
  json_decref(object);
  if (!text) {
    fprintf(stderr, "niti: cannot write the result as JSON (out of memory, or a name that is not UTF-8)\n");
    return EXIT_FAILED;
  }
  puts(text);
  free(text);
  return EXIT_OK;
}

static void print_split(FILE *to, const char *split, int64_t images, const char *sha256) {
  if (images > 0) fprintf(to, "%-10s %" PRId64 " images, SHA-256 %s\n", split, images, sha256);
}

void data_print(FILE *to, const NitiDataFacts *facts) {
  fprintf(to, "%-10s %s (%s, %d classes)\n", "data", facts->path, facts->kind, facts->classes);
  print_split(to, "  training", facts->train_images, facts->train_sha256);
  print_split(to, "  test", facts->test_images, facts->test_sha256);
}

static void set_split(json_t *object, const char *split, int64_t images, const char *sha256) {
  if (images > 0) json_object_set_new(object, split, json_pack("{s:I, s:s}", "images", (json_int_t)images, "sha256", sha256));
}

json_t *data_json(const NitiDataFacts *facts) {
  json_t *object = json_pack("{s:s, s:s, s:i}", "kind", facts->kind, "path", facts->path, "classes", facts->classes);
  set_split(object, "train", facts->train_images, facts->train_sha256);
  set_split(object, "test", facts->test_images, facts->test_sha256);
  return object;
}

bool locate_weights(NitiLocation *out, const char *name) {
  if (niti_locate(out, name) != NITI_OK) return false;
  if (out->kind != NITI_LOCATED_CHECKPOINT)
    fprintf(stderr, "niti: %s is not trained: its weights are the ones its seed gives\n", out->path);
  return true;
}

/* The length of the UTF-8 character that text begins with; 0: it is none. */
static size_t utf8_length(const char *text) {
  char one[5];
  for (size_t length = 1; length <= 4 && text[length - 1]; ++length) {
    (void)snprintf(one, sizeof one, "%.*s", (int)length, text);
    json_t *string = json_string(one);
    json_decref(string);
    if (string) return length;
  }
  return 0;
}

json_t *json_text(const char *text) {
  json_t *string = json_string(text);
  char *escaped = string ? NULL : malloc(4 * strlen(text) + 1), *to = escaped;
  while (escaped && *text) {
    const size_t length = utf8_length(text);
    to += length ? sprintf(to, "%.*s", (int)length, text) : sprintf(to, "\\x%02x", (unsigned char)*text);
    text += length ? length : 1;
  }
  if (escaped) string = json_string(escaped);
  free(escaped);
  return string;
}

double percent(int64_t part, int64_t whole) { return whole > 0 ? 100.0 * (double)part / (double)whole : 0.0; }

double nats(NitiScore score) {
  return score.images > 0 ? (double)score.loss / 65536.0 * 0.69314718055994531 / (double)score.images : 0.0;
}

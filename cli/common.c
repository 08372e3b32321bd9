/* Functions that several commands share. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "platform/environment.h"
#include "platform/path.h"
#include "platform/text.h"

enum { LINE_MAX = 2048 };
static enum { PROSE, JSON, JSON_STREAM } form;

void output_choose(int argc, char **argv) {
  for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; ++i) {
    if (strcmp(argv[i], "--json") == 0 && form == PROSE) form = JSON;
    if (strcmp(argv[i], "--json-stream") == 0) form = JSON_STREAM;
  }
}

static bool json_lacks_memory;

/* For jansson alone, whose parser writes past a token's end where memory runs out within it. Never given back. */
enum { RESERVE = 1 << 20 };
static _Alignas(16) char reserve[RESERVE];
static atomic_size_t reserved;

static void *allocate_json(size_t size) {
  void *p = malloc(size);
  if (p) return p;
  const size_t room = (size + 15) & ~(size_t)15;
  const size_t at = size < RESERVE ? atomic_fetch_add(&reserved, room) : RESERVE;
  if (at + room <= RESERVE) return reserve + at;
  json_lacks_memory = true;
  return NULL;
}

static void free_json(void *p) {
  const bool kept = (uintptr_t)p >= (uintptr_t)reserve && (uintptr_t)p < (uintptr_t)reserve + RESERVE;
  if (!kept) free(p);
}

void json_watch(void) { json_set_alloc_funcs(allocate_json, free_json); }
bool json_is_whole(void) { return !json_lacks_memory; }

FILE *output_prose(void) { return form == PROSE ? stdout : stderr; }

int print_failure(const char *message, int code) {
  if (form == PROSE) return code;
  json_lacks_memory = false; /* this object is another */
  json_t *object = json_pack("{s:s, s:i}", "error", message, "exit_code", code);
  (void)print_event("error", object);
  return code;
}

int fail(void) {
  fprintf(stderr, "niti: %s\n", niti_error());
  return print_failure(niti_error(), EXIT_FAILED);
}

/* Says it, and leaves the line in `text`. */
static void say_as(char text[LINE_MAX], const char *format, va_list args) {
  niti_text_format(text, LINE_MAX, format, args);
  fprintf(stderr, "niti: %s\n", text);
}

void say(const char *format, ...) {
  char text[LINE_MAX];
  va_list args;
  va_start(args, format);
  say_as(text, format, args);
  va_end(args);
}

int fail_with(int code, const char *format, ...) {
  char text[LINE_MAX];
  va_list args;
  va_start(args, format);
  say_as(text, format, args);
  va_end(args);
  return print_failure(text, code);
}

int flip_check(const Command *command, const FlipOptions *options) {
  return options->on && options->off ? usage_error(command, "--flip and --no-flip: one of them at a time") : -1;
}

void flip_set(NitiModel *model, const FlipOptions *options) {
  if (options->on || options->off) niti_model_flip(model, options->on);
}

bool tuning_path(char path[TUNING_PATH_MAX]) {
  const char *cache = niti_environment_get("XDG_CACHE_HOME"), *home = niti_environment_get("HOME");
  int length = -1;
  if (cache && cache[0] == '/') /* the specification has relative ones ignored */
    length = snprintf(path, TUNING_PATH_MAX, "%s/niti/tuning.json", cache);
  else if (home)
    length = snprintf(path, TUNING_PATH_MAX, "%s/.cache/niti/tuning.json", home);
  return length > 0 && length < TUNING_PATH_MAX;
}

NitiDevice device_of(const DeviceOptions *options) {
  static char own[TUNING_PATH_MAX];
  const char *tuning = options->tuning;
  bool there;
  if (!tuning && tuning_path(own) && (niti_path_is_file(&there, own) != NITI_OK || there)) tuning = own; /* reading it says why */
  if (tuning && strcmp(tuning, "off") == 0) tuning = NULL;
  return (NitiDevice){.backend = options->backend, .isa = options->isa, .threads = (int)options->threads, .tuning = tuning};
}

int print_json(json_t *object) {
  char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
  json_decref(object);
  if (!text || !json_is_whole()) {
    free_json(text);
    say("out of memory for the result as JSON");
    return EXIT_FAILED;
  }
  puts(text);
  free_json(text);
  output_flush();
  return EXIT_OK;
}

int print_event(const char *event, json_t *object) {
  if (form != JSON_STREAM) return print_json(object);
  json_t *first = json_pack("{s:s}", "event", event);
  if (first && json_object_update(first, object) != 0) {
    json_decref(first);
    first = NULL;
  }
  json_decref(object);
  return print_json(first);
}

static void print_split(FILE *to, const char *split, int64_t images, const char *sha256) {
  if (images > 0) fprintf(to, "%-10s %" PRId64 " images, SHA-256 %s\n", split, images, sha256);
}

void data_print(FILE *to, const NitiDataFacts *facts) {
  fprintf(to, "%-10s ", "data");
  print_name(to, facts->path);
  fprintf(to, " (%s, %d classes)\n", facts->kind, facts->classes);
  print_split(to, "  training", facts->train_images, facts->train_sha256);
  if (facts->validation_images > 0 && strcmp(facts->validation_sha256, facts->train_sha256) == 0)
    fprintf(to, "  %-8s %" PRId64 " images, held out of the training files\n", "validation", facts->validation_images);
  else
    print_split(to, "  validation", facts->validation_images, facts->validation_sha256);
  print_split(to, "  test", facts->test_images, facts->test_sha256);
}

static void set_split(json_t *object, const char *split, int64_t images, const char *sha256) {
  if (images > 0) json_object_set_new(object, split, json_pack("{s:I, s:s}", "images", (json_int_t)images, "sha256", sha256));
}

json_t *data_json(const NitiDataFacts *facts) {
  json_t *object = json_pack("{s:s, s:o, s:i}", "kind", facts->kind, "path", json_name(facts->path), "classes", facts->classes);
  set_split(object, "train", facts->train_images, facts->train_sha256);
  set_split(object, "validation", facts->validation_images, facts->validation_sha256);
  set_split(object, "test", facts->test_images, facts->test_sha256);
  return object;
}

bool locate_weights(NitiLocation *out, const char *name) {
  if (niti_locate(out, name) != NITI_OK) return false;
  if (out->kind != NITI_LOCATED_CHECKPOINT) say("%s is not trained: its weights are initialised from its seed", out->path);
  return true;
}

json_t *json_name(const char *name) {
  char *text = niti_text_escaped(name);
  json_t *value = text ? json_string(text) : NULL;
  json_lacks_memory = json_lacks_memory || !text;
  free(text);
  return value;
}

void print_name(FILE *to, const char *name) {
  char *text = niti_text_escaped(name);
  const size_t size =
      text ? niti_text_escape(NULL, 0, text, false) + 1 : 0; /* once more, for what only text that is shown must not have */
  char *shown = text ? malloc(size) : NULL;
  if (shown) (void)niti_text_escape(shown, size, text, false);
  fputs(shown ? shown : text ? text : name, to);
  free(shown);
  free(text);
}

double percent(int64_t part, int64_t whole) { return whole > 0 ? 100.0 * (double)part / (double)whole : 0.0; }

double nats(NitiScore score) {
  return score.images > 0 ? (double)score.loss / 65536.0 * 0.69314718055994531 / (double)score.images : 0.0;
}

/* What several commands share. */
#include <stdlib.h>

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

bool locate_weights(NitiLocation *out, const char *name) {
  if (niti_locate(out, name) != NITI_OK) return false;
  if (out->kind != NITI_LOCATED_CHECKPOINT)
    fprintf(stderr, "niti: %s is not trained: its weights are the ones its seed gives\n", out->path);
  return true;
}

double percent(int64_t part, int64_t whole) { return whole > 0 ? 100.0 * (double)part / (double)whole : 0.0; }

double nats(NitiScore score) {
  return score.images > 0 ? (double)score.loss / 65536.0 * 0.69314718055994531 / (double)score.images : 0.0;
}

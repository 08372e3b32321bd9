/* Counts the values of a JSON text, and writes one, as json.h promises. */
#include "platform/json.h"

#include <stdbool.h>
#include <stdlib.h>

#include "platform/text.h"

enum { VALUES_FREE = 64, NESTED_FREE = 16 };

/* What has been counted up to a place. */
typedef struct Count {
  size_t values, nested;
  int depth;
  bool quoted; /* within a string */
} Count;

/* Counts one character; false: a backslash, so that the next one means nothing. */
static bool count(Count *c, char at) {
  if (c->quoted && at == '\\') return false;
  if (at == '"') c->quoted = !c->quoted;
  if (c->quoted) return true;
  const bool opens = at == '{' || at == '[';
  c->nested += opens;
  c->values += opens || at == ',';
  c->depth += opens - (at == '}' || at == ']');
  return true;
}

NitiStatus niti_json_check(const char *text, size_t length, int depth, size_t start, const char *path) {
  const size_t values = length / NITI_JSON_VALUE_BYTES + VALUES_FREE, nested = length / NITI_JSON_NESTED_BYTES + NESTED_FREE;
  Count c = {0};
  for (size_t i = 0; i < length && c.depth >= 0; ++i) {
    if (!count(&c, text[i])) ++i;
    if (c.depth > depth)
      return niti_fail(NITI_ERROR_FORMAT, "%s: byte %zu: JSON nested more than %d levels deep", path, start + i, depth);
    if (c.values > values || c.nested > nested)
      return niti_fail(NITI_ERROR_FORMAT, "%s: byte %zu: more than %zu values in %zu bytes of JSON", path, start + i,
                       c.values > values ? values : nested, length);
  }
  return NITI_OK;
}

static int put(const char *from, size_t size, void *to) { return fwrite(from, 1, size, to) == size ? 0 : -1; }

char *niti_json_text(const json_t *value, size_t flags) {
  NitiTextMemory memory;
  if (!niti_text_open(&memory)) return NULL;
  const bool whole = json_dump_callback(value, put, memory.to, flags) == 0;
  char *text = niti_text_close(&memory, NULL); /* NULL too where `put` has failed */
  if (whole) return text;
  free(text);
  return NULL;
}

/* Counts the values of a JSON text, and writes one, as json.h promises. */
#include "platform/json.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "platform/text.h"

enum { VALUES_FREE = 64, NESTED_FREE = 16 };

/* What has been counted up to a place. */
typedef struct Count {
  size_t values, nested;
  int depth;
} Count;

/* What a character adds outside of strings. */
typedef struct Effect {
  uint8_t value, nested;
  int8_t depth;
} Effect;

static const Effect effects[256] = {
    ['{'] = {1, 1, 1}, ['['] = {1, 1, 1}, ['}'] = {0, 0, -1}, [']'] = {0, 0, -1}, [','] = {1, 0, 0}};

NitiStatus niti_json_check(const char *text, size_t length, int depth, size_t most, size_t start, const char *path) {
  const size_t dense = length / NITI_JSON_VALUE_BYTES + VALUES_FREE, values = most < dense ? most : dense,
               nested = length / NITI_JSON_NESTED_BYTES + NESTED_FREE;
  bool quoted = false;
  Count c = {0};
  const char *zero = memchr(text, 0, length);
  if (zero) return niti_fail(NITI_ERROR_FORMAT, "%s: byte %zu: a zero byte in JSON", path, start + (size_t)(zero - text));
  for (size_t i = 0; i < length && c.depth >= 0; ++i) {
    i += strcspn(text + i, "\"\\{}[],"); /* all else changes nothing */
    const unsigned char at = (unsigned char)text[i];
    if (at == '"') {
      quoted = !quoted;
      continue;
    }
    if (quoted) {
      i += at == '\\'; /* the next one means nothing */
      continue;
    }
    c.values += effects[at].value;
    c.nested += effects[at].nested;
    c.depth += effects[at].depth;
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

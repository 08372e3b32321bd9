/* Counts the values of a JSON text, as json.h promises. */
#include "platform/json.h"

#include <stdbool.h>

enum { VALUES_FREE = 64, NESTED_FREE = 16 };

/* What has been counted up to a place. */
typedef struct Count {
  size_t values, nested;
  int depth;
  bool quoted; /* within a string */
} Count;

/* What counts; anything else may be passed over, whether it is in a string or not. */
static const bool counts[256] = {
    ['\\'] = true, ['"'] = true, ['{'] = true, ['['] = true, ['}'] = true, [']'] = true, [','] = true};

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
    if (!counts[(unsigned char)text[i]]) continue;
    if (!count(&c, text[i])) ++i;
    if (c.depth > depth)
      return niti_fail(NITI_ERROR_FORMAT, "%s: byte %zu: JSON nested more than %d levels deep", path, start + i, depth);
    if (c.values > values || c.nested > nested)
      return niti_fail(NITI_ERROR_FORMAT, "%s: byte %zu: more than %zu values in %zu bytes of JSON", path, start + i,
                       c.values > values ? values : nested, length);
  }
  return NITI_OK;
}

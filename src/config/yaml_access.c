/* Typed access to nodes; messages give the node's place, what was expected and what was found. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "config/closest.h"
#include "config/yaml.h"

enum { MESSAGE_MAX = 768, MILLIONTHS_DIGITS = 6 };

static const char *place_of(char *buffer, size_t size, const NitiYaml *node) {
  if (node->line > 0) {
    (void)snprintf(buffer, size, "%s:%d:%d", node->origin, node->line, node->column);
  } else {
    (void)snprintf(buffer, size, "%s", node->origin);
  }
  return buffer;
}

NitiStatus niti_yaml_fail(const NitiYaml *node, const char *format, ...) {
  char message[MESSAGE_MAX], place[MESSAGE_MAX / 2];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(message, sizeof message, format, args);
  va_end(args);
  return niti_fail(node->line > 0 ? NITI_ERROR_FORMAT : NITI_ERROR_ARGUMENT, "%s: %s", place_of(place, sizeof place, node),
                   message);
}

NitiStatus niti_yaml_fail_within(NitiStatus status, const NitiYaml *node, const char *format, ...) {
  char message[MESSAGE_MAX / 2], place[MESSAGE_MAX / 2];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(message, sizeof message, format, args);
  va_end(args);
  return niti_fail_within(status, "%s: %s", place_of(place, sizeof place, node), message);
}

const char *niti_yaml_found(char buffer[NITI_YAML_FOUND_MAX], const NitiYaml *node) {
  enum { SHOWN = NITI_YAML_FOUND_MAX - 8 };
  if (node->kind != NITI_YAML_SCALAR || niti_yaml_is_null(node)) {
    const char *kind = node->kind == NITI_YAML_SEQUENCE ? "a list" : node->kind == NITI_YAML_MAPPING ? "a mapping" : "nothing";
    (void)snprintf(buffer, NITI_YAML_FOUND_MAX, "%s", kind);
    return buffer;
  }
  const char mark = node->quoted ? '"' : '\'';
  size_t length = strlen(node->text), out = 0;
  const bool cut = length > SHOWN;
  if (cut) {
    length = SHOWN;
    while (length > 0 && ((unsigned char)node->text[length] & 0xC0) == 0x80) --length; /* not inside a UTF-8 character */
  }
  buffer[out++] = mark;
  for (size_t i = 0; i < length; ++i) {
    const unsigned char c = (unsigned char)node->text[i];
    buffer[out++] = c < 0x20 || c == 0x7F ? '?' : (char)c;
  }
  (void)snprintf(buffer + out, NITI_YAML_FOUND_MAX - out, "%s%c", cut ? "..." : "", mark);
  return buffer;
}

NitiYaml *niti_yaml_get(const NitiYaml *mapping, const char *key) {
  for (size_t i = 0; i < mapping->count; ++i) {
    if (strcmp(mapping->keys[i]->text, key) == 0) return mapping->items[i];
  }
  return NULL;
}

bool niti_yaml_is_null(const NitiYaml *node) {
  return node->kind == NITI_YAML_SCALAR && !node->quoted &&
         (node->text[0] == 0 || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0);
}

bool niti_yaml_is_word(const NitiYaml *node, const char *word) {
  return node->kind == NITI_YAML_SCALAR && strcmp(node->text, word) == 0;
}

static NitiStatus unexpected(const NitiYaml *node, const char *what, const char *expected) {
  char found[NITI_YAML_FOUND_MAX];
  return niti_yaml_fail(node, "%s: expected %s, found %s", what, expected, niti_yaml_found(found, node));
}

NitiStatus niti_yaml_want_mapping(const NitiYaml *node, const char *what) {
  return node->kind == NITI_YAML_MAPPING ? NITI_OK : unexpected(node, what, "a mapping");
}

NitiStatus niti_yaml_want_sequence(const NitiYaml *node, const char *what) {
  return node->kind == NITI_YAML_SEQUENCE ? NITI_OK : unexpected(node, what, "a list");
}

/* "a, b, c" */
static const char *listed(char *buffer, size_t size, const char *const *words, const char *separator) {
  size_t used = 0;
  buffer[0] = 0;
  for (size_t i = 0; words[i] && used < size; ++i) {
    used += (size_t)snprintf(buffer + used, size - used, "%s%s", i ? separator : "", words[i]);
  }
  return buffer;
}

NitiStatus niti_yaml_want_keys(const NitiYaml *mapping, const char *what, const char *const *keys) {
  char found[NITI_YAML_FOUND_MAX], all[MESSAGE_MAX / 2], hint[NITI_HINT_MAX];
  NITI_TRY(niti_yaml_want_mapping(mapping, what));
  for (size_t i = 0; i < mapping->count; ++i) {
    size_t k = 0;
    while (keys[k] && strcmp(keys[k], mapping->keys[i]->text) != 0) ++k;
    if (keys[k]) continue;
    return niti_yaml_fail(mapping->keys[i], "%s: unknown key %s%s (expected: %s)", what, niti_yaml_found(found, mapping->keys[i]),
                          niti_did_you_mean(hint, mapping->keys[i]->text, keys), listed(all, sizeof all, keys, ", "));
  }
  return NITI_OK;
}

NitiStatus niti_yaml_want(NitiYaml **out, const NitiYaml *mapping, const char *what, const char *key) {
  NITI_TRY(niti_yaml_want_mapping(mapping, what));
  *out = niti_yaml_get(mapping, key);
  return *out ? NITI_OK : niti_yaml_fail(mapping, "%s: missing key '%s'", what, key);
}

/* Reads digits without leading zeros into *out; returns the first character after them, or NULL: none, or too many. */
static const char *digits(uint64_t *out, const char *text) {
  const char *p = text;
  *out = 0;
  for (; *p >= '0' && *p <= '9'; ++p) {
    const uint64_t digit = (uint64_t)(*p - '0');
    if (*out > (UINT64_MAX - digit) / 10) return NULL;
    *out = *out * 10 + digit;
  }
  return p == text || (text[0] == '0' && p > text + 1) ? NULL : p;
}

NitiStatus niti_yaml_int(int32_t *out, const NitiYaml *node, const char *what, int32_t min, int32_t max) {
  char expected[64];
  (void)snprintf(expected, sizeof expected, "an integer from %d to %d", min, max);
  if (node->kind != NITI_YAML_SCALAR || node->quoted) return unexpected(node, what, expected);
  const bool negative = node->text[0] == '-';
  uint64_t magnitude;
  const char *end = digits(&magnitude, node->text + (negative ? 1 : 0));
  if (!end || *end || magnitude > (uint64_t)INT32_MAX) return unexpected(node, what, expected);
  const int64_t value = negative ? -(int64_t)magnitude : (int64_t)magnitude;
  if (value < min || value > max) return unexpected(node, what, expected);
  *out = (int32_t)value;
  return NITI_OK;
}

NitiStatus niti_yaml_uint64(uint64_t *out, const NitiYaml *node, const char *what, uint64_t max) {
  char expected[64];
  uint64_t value = 0;
  const char *end = node->kind == NITI_YAML_SCALAR && !node->quoted ? digits(&value, node->text) : NULL;
  (void)snprintf(expected, sizeof expected, "an integer from 0 to %llu", (unsigned long long)max);
  if (!end || *end || value > max) return unexpected(node, what, expected);
  *out = value;
  return NITI_OK;
}

NitiStatus niti_yaml_bool(bool *out, const NitiYaml *node, const char *what) {
  const bool plain = !node->quoted; /* "true" in quotes is a text */
  *out = plain && niti_yaml_is_word(node, "true");
  return *out || (plain && niti_yaml_is_word(node, "false")) ? NITI_OK : unexpected(node, what, "true or false");
}

static int64_t power_of_ten(int places) {
  int64_t power = 1;
  for (int i = 0; i < places; ++i) power *= 10;
  return power;
}

void niti_yaml_decimal_text(char *buffer, size_t size, int64_t value, int places) {
  const int64_t magnitude = value < 0 ? -value : value, one = power_of_ten(places);
  (void)snprintf(buffer, size, "%s%lld.%0*lld", value < 0 ? "-" : "", (long long)(magnitude / one), places,
                 (long long)(magnitude % one));
  for (size_t n = strlen(buffer); buffer[n - 1] == '0' || buffer[n - 1] == '.'; --n) {
    const bool point = buffer[n - 1] == '.';
    buffer[n - 1] = 0;
    if (point) break;
  }
}

/* value = text * 10^places exactly, or false. */
static bool parse_decimal(int64_t *value, const char *text, int places) {
  const bool negative = text[0] == '-';
  uint64_t whole;
  const char *p = digits(&whole, text + (negative ? 1 : 0));
  if (!p || whole > INT32_MAX) return false;
  int64_t total = (int64_t)whole;
  int count = 0;
  if (*p == '.') {
    for (++p; *p >= '0' && *p <= '9' && count < places; ++p, ++count) total = total * 10 + (*p - '0');
    if (count == 0) return false;
  }
  if (*p) return false;
  for (; count < places; ++count) total *= 10;
  *value = negative ? -total : total;
  return true;
}

NitiStatus niti_yaml_decimal(int64_t *out, const NitiYaml *node, const char *what, int places, int64_t min, int64_t max) {
  char low[32], high[32], expected[128];
  int64_t value;
  const bool plain = node->kind == NITI_YAML_SCALAR && !node->quoted;
  if (plain && parse_decimal(&value, node->text, places) && value >= min && value <= max) {
    *out = value;
    return NITI_OK;
  }
  niti_yaml_decimal_text(low, sizeof low, min, places);
  niti_yaml_decimal_text(high, sizeof high, max, places);
  (void)snprintf(expected, sizeof expected, "a decimal number from %s to %s with at most %d decimals", low, high, places);
  return unexpected(node, what, expected);
}

NitiStatus niti_yaml_millionths(int32_t *out, const NitiYaml *node, const char *what, int32_t min, int32_t max) {
  int64_t value = 0;
  NITI_TRY(niti_yaml_decimal(&value, node, what, MILLIONTHS_DIGITS, min, max));
  *out = (int32_t)value;
  return NITI_OK;
}

NitiStatus niti_yaml_share(int32_t *out, const NitiYaml *node, const char *what, int32_t min, int32_t max) {
  enum { BELOW_ONE = 999999 };
  const size_t length = node->kind == NITI_YAML_SCALAR ? strlen(node->text) : 0;
  char text[32], low[32], high[32], expected[128];
  int64_t value;
  if (length < 2 || node->text[length - 1] != '%')
    return niti_yaml_millionths(out, node, what, min, max < BELOW_ONE ? max : BELOW_ONE);
  (void)snprintf(text, sizeof text, "%.*s", (int)length - 1, node->text);
  const bool number = !node->quoted && parse_decimal(&value, text, MILLIONTHS_DIGITS) && value % 100 == 0;
  if (number && value / 100 >= min && value / 100 <= max) {
    *out = (int32_t)(value / 100);
    return NITI_OK;
  }
  niti_yaml_decimal_text(low, sizeof low, 100 * min, MILLIONTHS_DIGITS);
  niti_yaml_decimal_text(high, sizeof high, 100 * max, MILLIONTHS_DIGITS);
  (void)snprintf(expected, sizeof expected, "a percentage from %s%% to %s%% with at most 4 decimals", low, high);
  return unexpected(node, what, expected);
}

NitiStatus niti_yaml_choice(int32_t *out, const NitiYaml *node, const char *what, const char *const *choices) {
  char all[MESSAGE_MAX / 4], expected[MESSAGE_MAX / 4 + 16];
  for (int32_t i = 0; choices[i]; ++i) {
    if (!niti_yaml_is_word(node, choices[i])) continue;
    *out = i;
    return NITI_OK;
  }
  (void)snprintf(expected, sizeof expected, "%s%s", choices[1] ? "one of: " : "", listed(all, sizeof all, choices, ", "));
  return unexpected(node, what, expected);
}

NitiStatus niti_yaml_name(char *out, size_t size, const NitiYaml *node, const char *what) {
  static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
  char expected[96];
  (void)snprintf(expected, sizeof expected, "a name of 1 to %zu characters from A-Z a-z 0-9 _ . -", size - 1);
  if (node->kind != NITI_YAML_SCALAR || niti_yaml_is_null(node)) return unexpected(node, what, expected);
  const size_t length = strlen(node->text);
  if (length == 0 || length >= size || strspn(node->text, allowed) != length) return unexpected(node, what, expected);
  memcpy(out, node->text, length + 1);
  return NITI_OK;
}

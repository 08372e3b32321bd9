/* Escapes names that are not plain text, and collects text in memory. */
#define _GNU_SOURCE /* fopencookie */
#include "platform/text.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The bytes of the UTF-8 character at `at`; 0: there is none. */
static size_t character_bytes(const unsigned char *at) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const size_t bytes = at[0] < 0x80 ? 1 : at[0] < 0xc0 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : at[0] < 0xf8 ? 4 : 0;
  if (bytes <= 1) return bytes;
  uint32_t code = at[0] & (0x7fu >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    if ((at[i] & 0xc0) != 0x80) return 0;
    code = code << 6 | (at[i] & 0x3fu);
  }
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  return code < least[bytes] || code > 0x10ffff || surrogate ? 0 : bytes;
}

bool niti_text_is_utf8(const char *text) {
  for (size_t bytes; *text; text += bytes) {
    bytes = character_bytes((const unsigned char *)text);
    if (bytes == 0) return false;
  }
  return true;
}

/* C0, delete and C1, which a terminal may interpret. */
static bool is_control(const unsigned char *at) { return at[0] < 0x20 || at[0] == 0x7f || (at[0] == 0xc2 && at[1] < 0xa0); }

/* What changes the order in which a line is shown, or ends it: U+061C, U+200E, U+200F, U+2028 to U+202E, U+2066 to U+2069. */
static bool is_direction(const unsigned char *at) {
  if (at[0] == 0xd8) return at[1] == 0x9c;
  if (at[0] != 0xe2) return false;
  return at[1] == 0x80 ? at[2] == 0x8e || at[2] == 0x8f || (at[2] >= 0xa8 && at[2] <= 0xae)
                       : at[1] == 0x81 && at[2] >= 0xa6 && at[2] <= 0xa9;
}

/* reversible: a name that is kept; it is not shown as it is. */
static bool is_escaped(const unsigned char *at, bool reversible) {
  return is_control(at) || (reversible ? at[0] == '\\' && at[1] == 'x' : is_direction(at));
}

size_t niti_text_escape(char *out, size_t size, const char *name, bool reversible) {
  size_t used = 0;
  bool full = size == 0;
  for (const char *at = name; *at;) {
    char piece[5];
    size_t bytes = character_bytes((const unsigned char *)at);
    const bool escape = bytes == 0 || is_escaped((const unsigned char *)at, reversible);
    const size_t length = escape ? 4 : bytes;
    if (escape) {
      (void)snprintf(piece, sizeof piece, "\\x%02X", (unsigned)(unsigned char)*at);
      bytes = 1;
    } else {
      memcpy(piece, at, bytes);
    }
    if (!full && used + length < size)
      memcpy(out + used, piece, length);
    else if (!full) {
      out[used] = 0;
      full = true;
    }
    used += length;
    at += bytes;
  }
  if (!full) out[used] = 0;
  return used;
}

char *niti_text_escaped(const char *name) {
  const size_t size = niti_text_escape(NULL, 0, name, true) + 1;
  char *text = malloc(size);
  if (text) (void)niti_text_escape(text, size, name, true);
  return text;
}

static int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

void niti_text_unescape(char *text) {
  char *to = text;
  for (const char *at = text; *at; ++to) {
    const bool escape = at[0] == '\\' && at[1] == 'x' && digit(at[2]) >= 0 && digit(at[3]) >= 0;
    *to = (char)(escape ? digit(at[2]) << 4 | digit(at[3]) : *at);
    at += escape ? 4 : 1;
  }
  *to = 0;
}

void niti_text_format(char *out, size_t size, const char *format, va_list args) {
  char raw[2048];
  (void)vsnprintf(raw, sizeof raw, format, args);
  (void)niti_text_escape(out, size, raw, false);
}

static ssize_t collect(void *cookie, const char *from, size_t count) {
  NitiTextMemory *m = cookie;
  if (count >= m->room - m->size) {
    const size_t room = 2 * m->room + count + 1;
    char *text = realloc(m->text, room);
    if (!text) return 0; /* an error of the stream */
    m->text = text;
    m->room = room;
  }
  memcpy(m->text + m->size, from, count);
  m->size += count;
  return (ssize_t)count;
}

FILE *niti_text_open(NitiTextMemory *memory) {
  *memory = (NitiTextMemory){0};
  memory->to = fopencookie(memory, "w", (cookie_io_functions_t){.write = collect});
  return memory->to;
}

char *niti_text_close(NitiTextMemory *memory, size_t *size) {
  if (!memory->to) return NULL;
  const bool failed = ferror(memory->to) != 0;
  if (fclose(memory->to) != 0 || failed || (!memory->text && !(memory->text = malloc(1)))) {
    free(memory->text);
    return NULL;
  }
  memory->text[memory->size] = 0;
  if (size) *size = memory->size;
  return memory->text;
}

/* Arbitrary bytes of a name as text: one line of UTF-8, from which the bytes can be recovered. */
#ifndef NITI_PLATFORM_TEXT_H
#define NITI_PLATFORM_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* The byte-order mark in UTF-8, with which some editors begin a file. */
#define NITI_BYTE_ORDER_MARK "\xef\xbb\xbf"

/* Whether the text is UTF-8 (RFC 3629) throughout; control characters are allowed. */
bool niti_text_is_utf8(const char *text);
/* Writes `name` with \xNN (capital digits) for each byte of a control character, and for each that is not part of a UTF-8
 * character; at most size - 1 bytes, never a part of a character, and a zero byte. reversible: writes \x5C for a backslash before
 * an x too, so that niti_text_unescape finds the name again; else, for text that is shown, also escapes the characters that put
 * a line in another order (of Unicode's bidirectional algorithm), and line separators. Returns the bytes that all of it takes,
 * without the zero byte. size 0: only that; out may be NULL then, and must not be the name. */
size_t niti_text_escape(char *out, size_t size, const char *name, bool reversible);
/* The same, reversible, in new memory, which the caller frees; NULL: out of memory. */
char *niti_text_escaped(const char *name);
/* The formatted text, escaped, not reversibly; at most size - 1 bytes, and of the text before it was escaped at most 2047. */
void niti_text_format(char *out, size_t size, const char *format, va_list args);
/* Turns every \xNN back into its byte, in place. */
void niti_text_unescape(char *text);

/* Text that stdio writes into memory. open_memstream's, of glibc, is cut short without a word where memory runs out. */
typedef struct NitiTextMemory {
  FILE *to; /* NULL: out of memory */
  char *text;
  size_t size, room;
} NitiTextMemory;

/* The stream to write to, memory->to; NULL: out of memory. `memory` must stay where it is until the close. */
FILE *niti_text_open(NitiTextMemory *memory);
/* Ends the stream. Returns the text, a zero byte after the last, which the caller frees; NULL: out of memory, now or before.
 * size: its bytes; may be NULL. */
char *niti_text_close(NitiTextMemory *memory, size_t *size);

#endif

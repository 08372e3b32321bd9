/* JSON from strangers, looked over before jansson makes a value of it: a value of two bytes may take more than 200 of memory. */
#ifndef NITI_PLATFORM_JSON_H
#define NITI_PLATFORM_JSON_H

#include <jansson.h>
#include <stddef.h>

#include "platform/status.h"

enum {
  NITI_JSON_VALUE_BYTES = 4,   /* of text for each value, on average; the metadata and tensors of a safetensors file have more */
  NITI_JSON_NESTED_BYTES = 16, /* of text for each object and array */
  NITI_JSON_HEADER_VALUES = 1 << 18 /* the most in a container's header, for which jansson takes up to 60 MB */
};

/* Fails with NITI_ERROR_FORMAT, naming path and byte, where objects and arrays are nested more than `depth` levels deep, where
 * values, or objects and arrays, are denser than above (beyond a first few), where there are more than `most` values, or where
 * the text has a zero byte. start: where in the file the text begins. A zero byte follows the text. Takes time in proportion to
 * the length and no memory; whether the text is JSON at all is jansson's to say. */
NitiStatus niti_json_check(const char *text, size_t length, int depth, size_t most, size_t start, const char *path);

/* The value as text, in new memory that the caller frees by free; NULL: out of memory. flags: jansson's. jansson's own json_dumps
 * may leave out a key where memory runs out, without a word. */
char *niti_json_text(const json_t *value, size_t flags);

#endif

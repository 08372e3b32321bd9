/* Reads files of values, in each format that vectors have, as a simulator or another tool may write them. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/array.h"
#include "export/values.h"
#include "io/safetensors.h"
#include "platform/file.h"
#include "platform/path.h"

enum { FILE_MAX = 1 << 30 };

/* A text that is read, value by value. */
typedef struct Text {
  const char *path, *at;
  int64_t line;
  const NitiFileValues *values;
} Text;

static NitiStatus out_of_memory(const char *path) { return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory", path); }

static NitiStatus wrong_count(const char *path, size_t found, size_t expected) {
  return niti_fail(NITI_ERROR_FORMAT, "%s: %s%zu values (expected %zu, as index.json has it)", path,
                   found > expected ? "more than " : "", found > expected ? expected : found, expected);
}

/* ---- the index's entry ---- */

static const char *text_of(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text ? text : "";
}

static NitiStatus read_type(NitiFileValues *v, const char *folder, const char *dtype) {
  static const char *const names[] = {"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"};
  for (size_t k = 0; k < sizeof names / sizeof *names; ++k) {
    if (strcmp(dtype, names[k]) != 0) continue;
    v->width = (size_t)1 << k / 2;
    v->sign = k % 2 == 0;
    return NITI_OK;
  }
  return niti_fail(NITI_ERROR_FORMAT, "%s/index.json: %.60s: dtype '%.20s' (expected int8, uint8, ..., int64)", folder, v->stem,
                   dtype);
}

static NitiStatus read_dims(NitiFileValues *v, const char *folder, const json_t *dims) {
  size_t bytes = v->width;
  v->rank = (int32_t)json_array_size(dims);
  bool valid = v->rank >= 1 && v->rank <= NITI_RANK_MAX;
  for (int32_t d = 0; d < v->rank && valid; ++d) {
    v->dims[d] = json_integer_value(json_array_get(dims, (size_t)d));
    valid = v->dims[d] >= 1 && (uint64_t)v->dims[d] <= FILE_MAX / bytes;
    bytes *= valid ? (size_t)v->dims[d] : 1;
  }
  v->count = bytes / v->width;
  if (valid) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s/index.json: %.60s: expected 1 to %d dims, of at most 1 GB together", folder, v->stem,
                   NITI_RANK_MAX);
}

NitiStatus niti_file_values_open(NitiFileValues *out, const char *folder, const json_t *entry) {
  *out = (NitiFileValues){.folder = folder, .stem = text_of(entry, "file")};
  if (strlen(out->stem) >= NITI_FILE_STEM_MAX || strchr(out->stem, '/') || !*out->stem)
    return niti_fail(NITI_ERROR_FORMAT, "%s/index.json: '%.60s' names no file (expected a name without folders)", folder,
                     out->stem);
  NITI_TRY(read_type(out, folder, text_of(entry, "dtype")));
  return read_dims(out, folder, json_object_get(entry, "dims"));
}

/* ---- texts ---- */

static NitiStatus not_a_value(const Text *t, const char *expected) {
  const int length = (int)strcspn(t->at, " \t\r\n,");
  return niti_fail(NITI_ERROR_FORMAT, "%s:%" PRId64 ": '%.*s' (expected %s)", t->path, t->line, length > 40 ? 40 : length, t->at,
                   expected);
}

static void put(void *data, size_t width, size_t i, uint64_t value) {
  char *to = (char *)data + i * width;
  const uint8_t small = (uint8_t)value;
  const uint16_t half = (uint16_t)value;
  const uint32_t word = (uint32_t)value;
  memcpy(to,
         width == 1   ? (const void *)&small
         : width == 2 ? (const void *)&half
         : width == 4 ? (const void *)&word
                      : &value,
         width);
}

/* Past white space and comments of Verilog and C. False: a comment does not end. */
static bool skip(Text *t) {
  for (;; ++t->at) {
    if (*t->at == '\n') ++t->line;
    if (isspace((unsigned char)*t->at)) continue;
    if (t->at[0] != '/' || (t->at[1] != '/' && t->at[1] != '*')) return true;
    if (t->at[1] == '/') {
      t->at += strcspn(t->at, "\n") - 1;
      continue;
    }
    const char *end = strstr(t->at + 2, "*/");
    if (!end) return false;
    for (; t->at < end + 1; ++t->at) t->line += *t->at == '\n';
  }
}

static bool ends_value(char c) { return c == 0 || c == ',' || c == '}' || c == '/' || isspace((unsigned char)c); }

/* Hexadecimal digits, with _ between them as Verilog allows. */
static bool take_hex(Text *t, uint64_t *value) {
  const char *p = t->at;
  *value = 0;
  for (; isxdigit((unsigned char)*p) || (*p == '_' && p > t->at); ++p) {
    if (*p == '_') continue;
    if (*value >> 60 != 0) return false;
    *value = *value << 4 | (uint64_t)(isdigit((unsigned char)*p) ? *p - '0' : tolower((unsigned char)*p) - 'a' + 10);
  }
  if (p == t->at || !ends_value(*p)) return false;
  t->at = p;
  return true;
}

/* The address of Verilog: values follow each other, so that it can only be the next one. */
static NitiStatus take_address(Text *t, size_t next) {
  const char *const before = t->at++;
  uint64_t address = 0;
  if (take_hex(t, &address) && address == next) return NITI_OK;
  t->at = before;
  return not_a_value(t, "the address of the next value: they follow each other from @0 on");
}

static NitiStatus parse_hex(void *data, Text *t) {
  const size_t width = t->values->width, expected = t->values->count;
  size_t count = 0;
  uint64_t value = 0;
  for (bool ends = skip(t); *t->at; ends = skip(t)) {
    if (!ends) return not_a_value(t, "the end of the comment");
    if (*t->at == '@') {
      NITI_TRY(take_address(t, count));
      continue;
    }
    if (count == expected) return wrong_count(t->path, count + 1, expected);
    const char *const before = t->at;
    const bool number = take_hex(t, &value);
    if (!number || (width < 8 && value >> 8 * width != 0)) {
      t->at = before;
      return not_a_value(t, "hexadecimal digits of a value, no more than its dtype has");
    }
    put(data, width, count++, value);
  }
  return count == expected ? NITI_OK : wrong_count(t->path, count, expected);
}

/* The length of the suffix of an integer of C: u, l and ll of one case, in either order. */
static size_t suffix_length(const char *p) {
  const char *const start = p;
  const bool first = *p == 'u' || *p == 'U';
  p += first;
  if (*p == 'l' || *p == 'L') p += p[1] == *p ? 2 : 1;
  if (!first) p += *p == 'u' || *p == 'U';
  return (size_t)(p - start);
}

/* A number of C within the dtype. */
static bool take_c_number(Text *t, uint64_t *value) {
  const size_t bits = 8 * t->values->width;
  const uint64_t most = UINT64_MAX >> (64 - bits), half = (uint64_t)1 << (bits - 1);
  const bool minus = *t->at == '-';
  char *end;
  if (strncmp(t->at, "INT64_MIN", 9) == 0 && ends_value(t->at[9])) {
    t->at += 9;
    *value = (uint64_t)INT64_MIN;
    return bits == 64 && t->values->sign;
  }
  if (!isdigit((unsigned char)t->at[minus])) return false;
  errno = 0;
  *value = strtoull(t->at + minus, &end, 0);
  end += suffix_length(end);
  if (errno != 0 || !ends_value(*end) || *value > (!t->values->sign ? minus ? 0 : most : minus ? half : half - 1)) return false;
  *value = minus ? 0 - *value : *value;
  t->at = end;
  return true;
}

/* Behind the values: a second array, or anything else that a reader would take for one. */
static NitiStatus end_header(Text *t) {
  ++t->at; /* } */
  bool ends = skip(t);
  if (*t->at == ';') ++t->at;
  for (ends = ends && skip(t); ends && *t->at == '#'; ends = skip(t)) t->at += strcspn(t->at, "\n"); /* the end of a guard */
  return ends && !*t->at ? NITI_OK : not_a_value(t, "the end of the file, ; and #endif at most");
}

static NitiStatus parse_h(void *data, Text *t) {
  const size_t expected = t->values->count;
  size_t count = 0;
  uint64_t value = 0;
  bool ends = skip(t);
  for (; ends && *t->at && *t->at != '{'; ++t->at, ends = skip(t)) {
  }
  if (*t->at != '{') return not_a_value(t, "an array: { and values");
  ++t->at;
  for (ends = skip(t); ends && *t->at && *t->at != '}'; ends = skip(t)) {
    if (count == expected) return wrong_count(t->path, count + 1, expected);
    const char *const before = t->at;
    if (!take_c_number(t, &value)) {
      t->at = before;
      return not_a_value(t, "a number of the index's dtype");
    }
    put(data, t->values->width, count++, value);
    if (!skip(t) || *t->at != ',') break;
    ++t->at;
  }
  if (*t->at != '}') return not_a_value(t, *t->at ? "a comma, or } at the array's end" : "} at the array's end");
  NITI_TRY(end_header(t));
  return count == expected ? NITI_OK : wrong_count(t->path, count, expected);
}

/* Each value has a digit and, but for the last, something behind it: no more room is needed, whatever the index says. */
static NitiStatus take_text_room(void **data, const NitiFileValues *v, size_t size, const char *path) {
  const size_t most = size / 2 + 1;
  *data = malloc((v->count < most ? v->count : most) * v->width);
  return *data ? NITI_OK : out_of_memory(path);
}

static NitiStatus read_text(void **data, const NitiFileValues *v, const char *path, bool hex) {
  char *text;
  size_t size;
  NITI_TRY(niti_file_read(&text, &size, path, FILE_MAX));
  Text t = {path, text, 1, v};
  NitiStatus status = strlen(text) == size ? NITI_OK : niti_fail(NITI_ERROR_FORMAT, "%s: a zero byte in a text", path);
  if (status == NITI_OK) status = take_text_room(data, v, size, path);
  if (status == NITI_OK) status = hex ? parse_hex(*data, &t) : parse_h(*data, &t);
  free(text);
  return status;
}

/* ---- containers ---- */

static NitiStatus other_shape(const char *path) {
  return niti_fail(NITI_ERROR_FORMAT, "%s: another dtype or shape than index.json has", path);
}

/* Of values that the file has. */
static NitiStatus copy_values(void **data, const NitiFileValues *v, const void *from, const char *path) {
  *data = malloc(v->count * v->width);
  if (!*data) return out_of_memory(path);
  memcpy(*data, from, v->count * v->width);
  return NITI_OK;
}

static NitiStatus read_npy(void **data, const NitiFileValues *v, const char *path) {
  NitiArray array;
  NitiStatus status = niti_npy_read(&array, path);
  if (status == NITI_OK) {
    bool same = (size_t)array.bytes == v->width && array.sign == v->sign && array.ndim == v->rank;
    for (int32_t d = 0; d < v->rank && same; ++d) same = array.dims[d] == v->dims[d];
    status = same ? copy_values(data, v, array.data, path) : other_shape(path);
  }
  niti_array_close(&array);
  return status;
}

static NitiStatus read_safetensors(void **data, const NitiFileValues *v, const char *path) {
  NitiSafetensors content;
  NITI_TRY(niti_safetensors_read(&content, path));
  const NitiSafetensor *t = content.tensors;
  bool same = content.count == 1 && niti_dtype_size(t->dtype) == v->width && t->ndim == v->rank;
  for (int32_t d = 0; d < v->rank && same; ++d) same = t->dims[d] == v->dims[d];
  const NitiStatus status = same ? copy_values(data, v, t->data, path) : other_shape(path);
  niti_safetensors_clear(&content);
  return status;
}

/* ---- any format ---- */

static NitiStatus path_of(char **path, const NitiFileValues *v, int format) {
  char name[NITI_FILE_STEM_MAX + 16];
  (void)snprintf(name, sizeof name, "%s.%s", v->stem, niti_values_endings[format]);
  return niti_path_join(path, v->folder, name);
}

NitiStatus niti_file_values_read(void **data, const NitiFileValues *v, int format) {
  char *path;
  *data = NULL;
  NITI_TRY(path_of(&path, v, format));
  bool there;
  NitiStatus status = niti_path_is_file(&there, path);
  if (there) {
    if (format < 1)
      status = read_npy(data, v, path);
    else if (format < 3)
      status = read_text(data, v, path, format == 1);
    else
      status = read_safetensors(data, v, path);
  }
  free(path);
  if (status == NITI_OK) return NITI_OK;
  free(*data);
  *data = NULL;
  return status;
}

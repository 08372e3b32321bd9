/* Tables of whole numbers as text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/array.h"
#include "platform/file.h"

enum { FIELD_SHOWN = 40 };

/* A text being read; rows are appended to values. */
typedef struct Table {
  const char *path;
  const char *at;  /* the rest; ends with a zero byte */
  const char *end; /* nothing but blanks from here on */
  int64_t line, column;
  int64_t low, high; /* what a value may be */
  int32_t *values;
  size_t count, capacity;
  int64_t columns; /* of the first row; 0: none yet */
} Table;

static bool is_separator(char c) { return c == ',' || c == ';' || c == '\t'; }
static bool is_end(char c) { return c == '\n' || c == '\r' || c == 0; }

static void skip_spaces(Table *t) { t->at += strspn(t->at, " "); }

static void next_line(Table *t) {
  t->at += strcspn(t->at, "\n");
  if (*t->at) ++t->at;
  ++t->line;
}

static NitiStatus fail_value(const Table *t, const char *field) {
  const size_t length = strcspn(field, ",;\t\r\n");
  return niti_fail(NITI_ERROR_FORMAT, "%s: line %lld, column %lld: '%.*s' (expected a whole number from %lld to %lld)", t->path,
                   (long long)t->line, (long long)t->column, (int)(length < FIELD_SHOWN ? length : FIELD_SHOWN), field,
                   (long long)t->low, (long long)t->high);
}

static NitiStatus read_value(Table *t, int32_t *value) {
  skip_spaces(t);
  const char *field = t->at;
  const bool negative = *t->at == '-';
  int64_t v = 0;
  if (*t->at == '-' || *t->at == '+') ++t->at;
  if (*t->at < '0' || *t->at > '9') return fail_value(t, field);
  for (; *t->at >= '0' && *t->at <= '9'; ++t->at) {
    if (v < INT32_MAX) v = v * 10 + (*t->at - '0'); /* too large anyway */
  }
  if (negative) v = -v;
  skip_spaces(t);
  if (v < t->low || v > t->high || !(is_separator(*t->at) || is_end(*t->at))) return fail_value(t, field);
  *value = (int32_t)v;
  return NITI_OK;
}

static NitiStatus add_value(Table *t, int32_t value) {
  if (t->count == t->capacity) {
    const size_t capacity = t->capacity ? 2 * t->capacity : 4096;
    int32_t *grown = realloc(t->values, capacity * sizeof *grown);
    if (!grown) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for its values", t->path);
    t->values = grown;
    t->capacity = capacity;
  }
  t->values[t->count++] = value;
  return NITI_OK;
}

static NitiStatus read_row(Table *t) {
  for (t->column = 1;; ++t->column) {
    int32_t value = 0;
    NITI_TRY(read_value(t, &value));
    NITI_TRY(add_value(t, value));
    if (!is_separator(*t->at)) break;
    ++t->at;
  }
  if (t->columns == 0) t->columns = t->column;
  if (t->column != t->columns)
    return niti_fail(NITI_ERROR_FORMAT, "%s: line %lld: %lld values, expected %lld as in the rows before", t->path,
                     (long long)t->line, (long long)t->column, (long long)t->columns);
  next_line(t);
  return NITI_OK;
}

/* Names of columns, not numbers. */
static bool is_header(const Table *t) {
  const char *first = t->at + strspn(t->at, " ");
  return !strchr("+-0123456789", *first) && !is_end(*first);
}

/* Found once: a search for the next value from each blank line would take time quadratic in their number. */
static const char *find_blank_end(const char *text, size_t size) {
  while (size && strchr(" \t\r\n", text[size - 1])) --size;
  return text + size;
}

static NitiStatus read_table(Table *t) {
  if (strncmp(t->at, "\xef\xbb\xbf", 3) == 0) t->at += 3;
  while (*t->at && is_end(t->at[strspn(t->at, " ")])) next_line(t);
  if (is_header(t)) next_line(t);
  while (t->at < t->end) {
    if (is_end(t->at[strspn(t->at, " ")]))
      next_line(t);
    else
      NITI_TRY(read_row(t));
  }
  return t->count > 0 ? NITI_OK : niti_fail(NITI_ERROR_FORMAT, "%s: holds no values", t->path);
}

/* The values become the array; those of x as int16, in place. */
static void make_array(NitiArray *out, Table *t, bool labels) {
  char *bytes = (char *)t->values;
  for (size_t i = 0; !labels && i < t->count; ++i) {
    int32_t value;
    memcpy(&value, bytes + i * sizeof value, sizeof value);
    const int16_t narrow = (int16_t)value;
    memcpy(bytes + i * sizeof narrow, &narrow, sizeof narrow);
  }
  void *smaller = labels ? NULL : realloc(bytes, t->count * sizeof(int16_t));
  *out = (NitiArray){.sign = true, .bytes = labels ? 4 : 2, .ndim = labels ? 1 : 2, .memory = smaller ? smaller : bytes};
  out->data = out->memory;
  out->dims[0] = (int64_t)t->count / t->columns;
  out->dims[1] = t->columns;
}

NitiStatus niti_csv_read(NitiArray *out, const char *path, bool labels) {
  char *text = NULL;
  size_t size = 0;
  *out = (NitiArray){0};
  NITI_TRY(niti_file_read(&text, &size, path, SIZE_MAX / 4));
  Table t = {.path = path,
             .at = text,
             .end = find_blank_end(text, size),
             .line = 1,
             .low = labels ? 0 : INT16_MIN,
             .high = labels ? 65535 : INT16_MAX};
  NitiStatus status = strlen(text) == size
                          ? read_table(&t)
                          : niti_fail(NITI_ERROR_FORMAT, "%s: byte %zu: a zero byte in a text", path, strlen(text));
  if (status == NITI_OK && labels && t.columns != 1)
    status =
        niti_fail(NITI_ERROR_FORMAT, "%s: line 1: %lld columns, expected one label on each line", path, (long long)t.columns);
  free(text);
  if (status == NITI_OK)
    make_array(out, &t, labels);
  else
    free(t.values);
  return status;
}

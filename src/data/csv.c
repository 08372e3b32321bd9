/* Tables of whole numbers as text, read and checked piece by piece: what is refused costs no more than what comes before it. */
#include <stdlib.h>
#include <string.h>

#include "data/array.h"
#include "data/format.h"
#include "platform/file.h"
#include "platform/system.h"

enum { FIELD_SHOWN = 40, PIECE = 1 << 17, END = -1 };

/* A text being read; rows are appended to values. */
typedef struct Table {
  const char *path;
  NitiDataset *watched; /* NULL: nobody watches */
  int fd;
  NitiStatus status;      /* of reading: after a failure the text ends */
  uint64_t size, pieces;  /* bytes of the file, and of the pieces before this one */
  const char *at, *stop;  /* the rest of the piece, up to a zero byte */
  bool ended, zero;       /* nothing follows the piece; a zero byte follows */
  const char *field;      /* what of the field that is being read is in the piece; NULL: none is being read */
  char kept[FIELD_SHOWN]; /* the beginning of it, from the pieces before */
  size_t kept_bytes;
  int64_t line, column, rows;
  int64_t columns, columns_max; /* of the first row, 0: none yet; and what they may be */
  int64_t low, high;            /* what a value may be */
  size_t width;                 /* bytes of a value: 2 or 4 */
  char *values;
  size_t count, capacity;
  char piece[PIECE];
} Table;

/* ---- the text ---- */

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static void keep_field(Table *t) {
  if (!t->field) return;
  const size_t bytes = smaller((size_t)(t->stop - t->field), FIELD_SHOWN - t->kept_bytes);
  memcpy(t->kept + t->kept_bytes, t->field, bytes);
  t->kept_bytes += bytes;
  t->field = t->piece;
}

static NitiStatus read_piece(Table *t) {
  if (t->watched) NITI_TRY(niti_dataset_watch(t->watched, "reading a table", (int64_t)t->pieces, (int64_t)t->size));
  const ssize_t got = niti_system.read(t->fd, t->piece, PIECE);
  if (got < 0) return niti_fail_errno(t->path, "read");
  const char *zero = memchr(t->piece, 0, (size_t)got);
  t->ended = got == 0;
  t->zero = zero != NULL;
  t->stop = zero ? zero : t->piece + got;
  return NITI_OK;
}

/* The first character of the next piece; END: there is none, or t->status says why not. */
static int next_piece(Table *t) {
  if (t->ended) return END;
  keep_field(t);
  t->pieces += (uint64_t)(t->stop - t->piece);
  t->at = t->stop = t->piece;
  if (t->zero)
    t->status = niti_fail(NITI_ERROR_FORMAT, "%s: byte %llu: a zero byte in a text", t->path, (unsigned long long)t->pieces);
  else
    t->status = read_piece(t);
  if (t->status == NITI_OK && t->stop == t->at && t->zero) return next_piece(t);
  t->ended = t->ended || t->status != NITI_OK;
  return t->ended ? END : (unsigned char)*t->at;
}

static inline int peek(Table *t) { return t->at < t->stop ? (unsigned char)*t->at : next_piece(t); }

static bool is_separator(int c) { return c == ',' || c == ';' || c == '\t'; }
static bool is_end(int c) { return c == '\n' || c == '\r' || c == END; }
static bool is_digit(int c) { return c >= '0' && c <= '9'; }

static int skip_spaces(Table *t) {
  int c;
  while ((c = peek(t)) == ' ') ++t->at;
  return c;
}

/* Leaves the line, which is a row's rest or not to be read. */
static NitiStatus next_line(Table *t) {
  bool returned = false;
  int c;
  for (; (c = peek(t)) != '\n' && c != END; ++t->at) {
    if (returned && c != '\r' && c != ' ' && c != '\t')
      return niti_fail(NITI_ERROR_FORMAT, "%s: line %lld: text after a carriage return (expected lines that end with LF or CRLF)",
                       t->path, (long long)t->line);
    returned = returned || c == '\r';
  }
  if (c == '\n') ++t->at;
  ++t->line;
  return t->status;
}

/* ---- rows ---- */

static NitiStatus fail_value(Table *t) {
  for (int c; t->kept_bytes + (size_t)(t->at - t->field) < FIELD_SHOWN; ++t->at) {
    c = peek(t);
    if (is_separator(c) || is_end(c)) break;
  }
  NITI_TRY(t->status);
  const size_t rest = smaller((size_t)(t->at - t->field), FIELD_SHOWN - t->kept_bytes);
  return niti_fail(NITI_ERROR_FORMAT, "%s: line %lld, column %lld: '%.*s%.*s' (expected a whole number from %lld to %lld)",
                   t->path, (long long)t->line, (long long)t->column, (int)t->kept_bytes, t->kept, (int)rest, t->field,
                   (long long)t->low, (long long)t->high);
}

static NitiStatus read_value(Table *t, int32_t *value) {
  int c = skip_spaces(t);
  t->kept_bytes = 0;
  t->field = t->at;
  const bool negative = c == '-';
  int64_t v = 0;
  if (c == '-' || c == '+') ++t->at;
  if (!is_digit(peek(t))) return fail_value(t);
  for (; is_digit(c = peek(t)); ++t->at) {
    if (v < INT32_MAX) v = v * 10 + (c - '0'); /* too large anyway */
  }
  if (negative) v = -v;
  c = skip_spaces(t);
  if (v < t->low || v > t->high || !(is_separator(c) || is_end(c))) return fail_value(t);
  t->field = NULL;
  *value = (int32_t)v;
  return t->status;
}

static NitiStatus add_value(Table *t, int32_t value) {
  if (t->count == t->capacity) {
    const size_t capacity = t->capacity ? 2 * t->capacity : 4096;
    char *grown = capacity > PTRDIFF_MAX / t->width ? NULL : realloc(t->values, capacity * t->width);
    if (!grown) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for its values", t->path);
    t->values = grown;
    t->capacity = capacity;
  }
  const int16_t narrow = (int16_t)value;
  memcpy(t->values + t->count++ * t->width, t->width == 2 ? (const void *)&narrow : &value, t->width);
  return NITI_OK;
}

static NitiStatus check_row(Table *t, bool labels) {
  if (t->columns == 0) t->columns = t->column;
  if (labels && t->columns != 1)
    return niti_fail(NITI_ERROR_FORMAT, "%s: line %lld: %lld columns, expected one label on each line", t->path,
                     (long long)t->line, (long long)t->columns);
  if (t->column != t->columns)
    return niti_fail(NITI_ERROR_FORMAT, "%s: line %lld: %lld values, expected %lld as in the rows before", t->path,
                     (long long)t->line, (long long)t->column, (long long)t->columns);
  ++t->rows;
  return NITI_OK;
}

static NitiStatus read_row(Table *t, bool labels) {
  for (t->column = 1;; ++t->column) {
    int32_t value = 0;
    if (t->column > t->columns_max)
      return niti_fail(NITI_ERROR_FORMAT,
                       "%s: line %lld: more than %lld values, expected at most %d, or as many as the network's "
                       "input has",
                       t->path, (long long)t->line, (long long)t->columns_max, NITI_CHANNELS_MAX);
    NITI_TRY(read_value(t, &value));
    NITI_TRY(add_value(t, value));
    if (!is_separator(peek(t))) break;
    ++t->at;
  }
  NITI_TRY(check_row(t, labels));
  return next_line(t);
}

/* ---- the table ---- */

/* Skips a byte-order mark; *header: other bytes begin like one, as a name may. */
static void skip_mark(Table *t, bool *header) {
  static const char mark[] = "\xef\xbb\xbf";
  size_t count = 0;
  for (; count < 3 && peek(t) == (unsigned char)mark[count]; ++count) ++t->at;
  *header = count == 1 || count == 2;
}

/* Leaves blank lines, and names of columns, which are not numbers. */
static NitiStatus skip_header(Table *t) {
  bool header;
  skip_mark(t, &header);
  int c = skip_spaces(t);
  for (; !header && (c == '\n' || c == '\r'); c = skip_spaces(t)) NITI_TRY(next_line(t));
  NITI_TRY(t->status);
  return header || !(is_digit(c) || c == '+' || c == '-' || c == END) ? next_line(t) : NITI_OK;
}

/* A tab begins the line: nothing but blanks may follow, or its first value is missing. */
static NitiStatus read_blank_end(Table *t) {
  int c;
  while ((c = peek(t)) == ' ' || c == '\t' || c == '\r' || c == '\n') ++t->at;
  NITI_TRY(t->status);
  if (c == END) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: line %lld, column 1: '' (expected a whole number from %lld to %lld)", t->path,
                   (long long)t->line, (long long)t->low, (long long)t->high);
}

static NitiStatus read_table(Table *t, bool labels) {
  NITI_TRY(skip_header(t));
  for (int c; (c = skip_spaces(t)) != END;) {
    if (c == '\t')
      NITI_TRY(read_blank_end(t));
    else if (is_end(c))
      NITI_TRY(next_line(t));
    else
      NITI_TRY(read_row(t, labels));
  }
  NITI_TRY(t->status);
  return t->count > 0 ? NITI_OK : niti_fail(NITI_ERROR_FORMAT, "%s: holds no values", t->path);
}

/* The values become the array. */
static void make_array(NitiArray *out, Table *t, bool labels) {
  char *fitting = realloc(t->values, t->count * t->width);
  *out = (NitiArray){.sign = true, .bytes = (int)t->width, .ndim = labels ? 1 : 2, .memory = fitting ? fitting : t->values};
  out->data = out->memory;
  out->dims[0] = t->rows;
  out->dims[1] = t->columns;
}

NitiStatus niti_csv_read(NitiArray *out, const char *path, bool labels, int64_t columns_max, NitiDataset *watched) {
  *out = (NitiArray){0};
  Table *t = calloc(1, sizeof *t);
  if (!t) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory to read it", path);
  t->path = path;
  t->watched = watched;
  t->at = t->stop = t->piece;
  t->line = 1;
  t->columns_max = columns_max > NITI_CHANNELS_MAX ? columns_max : NITI_CHANNELS_MAX;
  t->low = labels ? 0 : INT16_MIN;
  t->high = labels ? 65535 : INT16_MAX;
  t->width = labels ? sizeof(int32_t) : sizeof(int16_t);
  NitiStatus status = niti_file_open_read(&t->fd, &t->size, path);
  if (status == NITI_OK) {
    status = read_table(t, labels);
    (void)niti_system.close(t->fd);
  }
  if (status == NITI_OK)
    make_array(out, t, labels);
  else
    free(t->values);
  free(t);
  return status;
}

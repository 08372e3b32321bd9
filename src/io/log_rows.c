/* Finds the rows of an existing log, CSV or JSON lines, that stay when its run continues. */
#include "io/log_rows.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char epoch_key[] = NITI_LOG_EPOCH;

typedef struct Reader {
  const char *path, *header;           /* header: NULL: JSON lines */
  size_t header_size, columns, column; /* column: that of `epoch` */
  int64_t keep_epoch;
} Reader;

typedef struct Line {
  const char *begin, *end; /* end: after its newline */
  size_t number;           /* from 1 */
  bool cut;                /* the last one, whose newline the file lacks */
} Line;

/* ---- A line ------------------------------------------------------------------------------------------------------- */

/* The field of this index in a CSV record, verbatim; false if there are fewer. */
static bool csv_field(const char **field, size_t *length, const char *record, const char *end, size_t index) {
  *field = record;
  for (const char *at = record; at < end; ++at) {
    if (*at != ',' && *at != '\n') continue;
    *length = (size_t)(at - *field);
    if (index-- == 0) return true;
    *field = at + 1;
  }
  return false;
}

static bool parse_epoch(int64_t *epoch, const char *text, size_t length) {
  char copy[24], *stop;
  if (length == 0 || length >= sizeof copy) return false;
  memcpy(copy, text, length);
  copy[length] = 0;
  errno = 0;
  *epoch = strtoll(copy, &stop, 10);
  return !errno && !*stop;
}

/* Whether the record has as many fields as the header; also reads the epoch from its field. */
static bool csv_epoch(int64_t *epoch, const Reader *r, const char *record, const char *end) {
  const char *field;
  size_t length;
  if (!csv_field(&field, &length, record, end, r->columns - 1) || csv_field(&field, &length, record, end, r->columns))
    return false;
  if (end - record > 1 && end[-2] == '\r') return false;
  return csv_field(&field, &length, record, end, r->column) && parse_epoch(epoch, field, length);
}

static bool json_epoch(int64_t *epoch, bool *memory, const char *record, const char *end) {
  json_error_t error = {0};
  json_t *row = json_loadb(record, (size_t)(end - record), JSON_REJECT_DUPLICATES, &error);
  *memory = row || json_error_code(&error) != json_error_out_of_memory;
  const json_t *value = json_object_get(row, epoch_key);
  const bool found = json_is_integer(value);
  if (found) *epoch = json_integer_value(value);
  json_decref(row);
  return found;
}

/* *known: the line is a row, that of *epoch. */
static NitiStatus read_row(bool *known, int64_t *epoch, const Reader *r, const Line *line) {
  bool memory = true;
  if (line->cut && memchr(line->begin, '\r', (size_t)(line->end - line->begin))) /* not torn, but saved with other line endings */
    return niti_fail(NITI_ERROR_FORMAT, "%s: record %zu: a line that ends in a newline expected", r->path, line->number);
  *known = r->header ? csv_epoch(epoch, r, line->begin, line->end) : json_epoch(epoch, &memory, line->begin, line->end);
  return memory ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for the log");
}

/* ---- What a crash leaves ------------------------------------------------------------------------------------------ */

/* Whether a power loss made the line: blocks of a file that never reached the disk hold anything. */
static bool has_lost_bytes(const Line *line) {
  for (const char *at = line->begin; at < line->end - 1; ++at) {
    if (*at < ' ' || *at > '~') return true;
  }
  return false;
}

/* Whether a crash can have left this first line where a CSV header was to be written. */
static bool is_torn_header(const Reader *r, const Line *line) {
  const size_t length = (size_t)(line->end - line->begin) - 1;
  if (!line->cut) return false;
  return (length < r->header_size && memcmp(line->begin, r->header, length) == 0) || (r->keep_epoch < 1 && has_lost_bytes(line));
}

/* Whether a crash can have left this line, which is no row, where one was to be written that no checkpoint covers: before the
 * newline was on the disk any beginning of it, later only bytes that were lost. */
static bool is_torn_row(const Reader *r, const Line *line, const NitiLogRows *before) {
  if (!line->cut) return before->newest >= r->keep_epoch && has_lost_bytes(line);
  if (before->size > r->header_size) return true; /* rows of this log come before it */
  return r->keep_epoch < 1 && (line->number > 1 || *line->begin == '{' || has_lost_bytes(line));
}

/* Whether the epoch of a row may lack digits: it stands at the end of a line that was cut. */
static bool has_cut_epoch(const Reader *r, const Line *line) { return line->cut && r->header && r->column + 1 == r->columns; }

/* ---- All lines ---------------------------------------------------------------------------------------------------- */

static Reader make_reader(const char *path, const char *header, int64_t keep_epoch) {
  Reader r = {.path = path, .header = header, .keep_epoch = keep_epoch};
  if (!header) return r;
  const char *field, *end = header + strlen(header);
  size_t length;
  r.header_size = (size_t)(end - header);
  r.column = SIZE_MAX;
  while (csv_field(&field, &length, header, end, r.columns)) {
    if (length == sizeof epoch_key - 1 && memcmp(field, epoch_key, length) == 0) r.column = r.columns;
    ++r.columns;
  }
  return r;
}

/* The size without blank lines at the end, as editors add them. */
static size_t without_blank_end(const char *text, size_t size) {
  while (size > 0 && text[size - 1] == '\n' && (size == 1 || text[size - 2] == '\n')) --size;
  return size;
}

static void keep_row(NitiLogRows *rows, char *text, const Line *line, int64_t epoch) {
  const size_t length = (size_t)(line->end - line->begin);
  if (rows->any && !rows->leaps && (uint64_t)epoch - (uint64_t)rows->newest != 1) {
    rows->leaps = true;
    rows->leap_from = rows->newest;
    rows->leap_to = epoch;
  }
  rows->any = true;
  rows->newest = epoch;
  memmove(text + rows->size, line->begin, length);
  rows->size += length;
}

NitiStatus niti_log_rows(NitiLogRows *rows, char *text, size_t size, const char *path, const char *header, int64_t keep_epoch) {
  const Reader r = make_reader(path, header, keep_epoch);
  const char *const end = text + without_blank_end(text, size);
  Line line = {.begin = text, .number = 1};
  *rows = (NitiLogRows){.size = r.header_size};
  text[size] = '\n'; /* for a last line that lacks it, in the place of the zero after the text */
  for (; line.begin < end; line.begin = line.end, ++line.number) {
    bool known = false;
    int64_t epoch = 0;
    line.end = (const char *)memchr(line.begin, '\n', (size_t)(end + 1 - line.begin)) + 1;
    line.cut = line.end > end;
    if (header && line.number == 1) {
      if (is_torn_header(&r, &line)) break;
      if ((size_t)(line.end - line.begin) == r.header_size && memcmp(line.begin, header, r.header_size) == 0) continue;
      return niti_fail(NITI_ERROR_FORMAT, "%s: record 1: the header %.*s expected", path, (int)r.header_size - 1, header);
    }
    NITI_TRY(read_row(&known, &epoch, &r, &line));
    if (!known && is_torn_row(&r, &line, rows)) break;
    if (!known) return niti_fail(NITI_ERROR_FORMAT, "%s: record %zu: a row with an integer `epoch` expected", path, line.number);
    if (epoch <= keep_epoch && !has_cut_epoch(&r, &line)) keep_row(rows, text, &line, epoch);
  }
  if (rows->size == r.header_size) rows->size = 0;
  return NITI_OK;
}

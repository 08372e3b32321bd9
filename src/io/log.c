/* Writes rows of metrics as CSV and as JSON lines, and continues existing logs. */
#include "io/log.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/scalar.h"
#include "base/wide.h"
#include "io/log_rows.h"
#include "platform/file.h"
#include "platform/path.h"
#include "platform/system.h"
#include "platform/text.h"

enum { LOG_BYTES_MAX = 1 << 30, DIGITS_MAX = 18, NOTES_MAX = 4, NOTE_MAX = 1280, BACKUPS_MAX = 1000 };

typedef struct LogFile {
  char *path;
  int fd;           /* -1: not written */
  off_t size;       /* of whole rows */
  NitiLogRows rows; /* that were there when it was opened, and stayed */
} LogFile;

struct NitiLog {
  LogFile csv, jsonl;
  char *header;                    /* the CSV header line with its newline */
  char notes[NOTES_MAX][NOTE_MAX]; /* at most two of a file */
  size_t note_count;
};

static NitiStatus fail_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for the log"); }

/* ---- Fields ------------------------------------------------------------------------------------------------------- */

NitiField niti_field_integer(const char *key, int64_t value) {
  return (NitiField){.key = key, .kind = NITI_FIELD_INTEGER, .integer = value};
}

NitiField niti_field_none(const char *key) { return (NitiField){.key = key, .kind = NITI_FIELD_NONE}; }

NitiField niti_field_ratio(const char *key, int64_t numerator, int64_t denominator, int digits) {
  NitiField field = {.key = key, .kind = NITI_FIELD_DECIMAL, .digits = digits};
  if (denominator == 0) return field;
  const bool negative = (numerator < 0) != (denominator < 0);
  const NitiWide d = {0, niti_magnitude64(denominator)};
  NitiWide n = {0, niti_magnitude64(numerator)};
  for (int i = 0; i < digits; ++i) n = niti_wide_times(n, 10);
  n = niti_wide_sum(niti_wide_times(n, 2), d);
  const uint64_t q = niti_wide_divide(&n, niti_wide_times(d, 2));
  const int64_t magnitude = q > INT64_MAX ? INT64_MAX : (int64_t)q;
  field.integer = negative ? -magnitude : magnitude;
  return field;
}

static void put_decimal(FILE *out, int64_t value, int digits) {
  uint64_t magnitude = value < 0 ? -(uint64_t)value : (uint64_t)value, unit = 1;
  for (int i = 0; i < digits; ++i) unit *= 10;
  (void)fprintf(out, "%s%llu", value < 0 ? "-" : "", (unsigned long long)(magnitude / unit));
  if (digits) (void)fprintf(out, ".%0*llu", digits, (unsigned long long)(magnitude % unit));
}

static void put_field(FILE *out, const NitiField *field, const char *none) {
  if (field->kind == NITI_FIELD_NONE)
    (void)fputs(none, out);
  else
    put_decimal(out, field->integer, field->kind == NITI_FIELD_DECIMAL ? field->digits : 0);
}

static void put_json_row(FILE *out, const NitiField *fields, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    (void)fprintf(out, "%s\"%s\": ", i ? ", " : "{", fields[i].key);
    put_field(out, &fields[i], "null");
  }
  (void)fputs("}\n", out);
}

static void put_csv_row(FILE *out, const NitiField *fields, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (i) (void)fputc(',', out);
    put_field(out, &fields[i], "");
  }
  (void)fputc('\n', out);
}

static void put_csv_header(FILE *out, const NitiField *fields, size_t count) {
  for (size_t i = 0; i < count; ++i) (void)fprintf(out, "%s%s", i ? "," : "", fields[i].key);
  (void)fputc('\n', out);
}

/* The line that `put` makes, in new memory. */
static NitiStatus format_line(char **line, const NitiField *fields, size_t count,
                              void (*put)(FILE *out, const NitiField *fields, size_t count)) {
  NitiTextMemory memory;
  if (niti_text_open(&memory)) put(memory.to, fields, count);
  *line = niti_text_close(&memory, NULL);
  return *line ? NITI_OK : fail_memory();
}

/* ---- Resuming ----------------------------------------------------------------------------------------------------- */

/* Reads the rows to keep. NITI_ERROR_FORMAT, and no other failure: what is there cannot be continued. *written: the file is as
 * it shall be. */
static NitiStatus read_rows(char **text, size_t *size, bool *written, LogFile *file, const NitiLog *log, int64_t keep_epoch) {
  struct stat info;
  *written = niti_system.lstat(file->path, &info) == 0;
  if (!*written) return errno == ENOENT ? NITI_OK : niti_fail_errno(file->path, "find out what it is");
  if (S_ISLNK(info.st_mode)) return niti_fail(NITI_ERROR_FORMAT, "%s: is a symbolic link (expected a file)", file->path);
  if (!S_ISREG(info.st_mode)) return niti_fail(NITI_ERROR_FORMAT, "%s: expected a regular file", file->path);
  NITI_TRY(niti_file_read(text, size, file->path, LOG_BYTES_MAX));
  NITI_TRY(niti_log_rows(&file->rows, *text, *size, file->path, file == &log->csv ? log->header : NULL, keep_epoch));
  *written = file->rows.size == *size; /* a newline may have come, but then what goes has more bytes */
  *size = file->rows.size;
  return NITI_OK;
}

static NitiStatus open_to_append(LogFile *file, size_t size) {
  file->size = (off_t)size;
  file->fd = niti_system.open(file->path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0);
  return file->fd >= 0 ? NITI_OK : niti_fail_errno(file->path, "open the file");
}

/* Truncates the file to the rows to keep, or creates it, and opens it. NITI_ERROR_FORMAT as in read_rows. */
static NitiStatus open_file(LogFile *file, const NitiLog *log, int64_t keep_epoch) {
  char *text = NULL;
  size_t size = 0;
  bool written = false;
  NitiStatus status = read_rows(&text, &size, &written, file, log, keep_epoch);
  if (status == NITI_OK && !written) status = niti_file_replace(file->path, size ? text : "", size);
  free(text);
  return status == NITI_OK ? open_to_append(file, size) : status;
}

/* ---- What cannot be continued ------------------------------------------------------------------------------------- */

/* Renames the file; *moved false: another program keeps that from being done. */
static NitiStatus move_away(bool *moved, char *name, size_t size, const char *path) {
  *moved = false;
  for (int n = 1; n < BACKUPS_MAX; ++n) {
    (void)snprintf(name, size, n == 1 ? "%s.bak" : "%s.bak%d", path, n);
    if (niti_system.access(name, F_OK) == 0) continue;
    if (errno != ENOENT) return niti_fail_errno(name, "look for the file");
    *moved = niti_system.rename(path, name) == 0;
    const bool kept = errno == EPERM || errno == EACCES || errno == EBUSY || errno == ETXTBSY;
    return *moved || kept ? NITI_OK : niti_fail_errno(path, "rename the file");
  }
  return NITI_OK;
}

/* Sets the file aside for the reason of niti_error(), and begins a new one. Where that fails all is as before. */
static NitiStatus set_aside(LogFile *file, NitiLog *log) {
  char name[PATH_MAX], reason[NOTE_MAX / 2], *note = log->notes[log->note_count];
  bool moved;
  (void)snprintf(reason, sizeof reason, "%s", niti_error());
  NITI_TRY(move_away(&moved, name, sizeof name, file->path));
  const NitiStatus status = moved ? open_file(file, log, -1) : NITI_OK;
  if (status != NITI_OK) {
    (void)niti_system.rename(name, file->path);
    return status;
  }
  ++log->note_count;
  if (moved)
    (void)snprintf(note, NOTE_MAX, "set aside as %.*s, a new one begins: %s", NOTE_MAX / 3, name, reason);
  else
    (void)snprintf(note, NOTE_MAX, "not recorded there, and not touched: %s", reason);
  return NITI_OK;
}

/* ---- The log ------------------------------------------------------------------------------------------------------ */

/* Notes rows up to keep_epoch that are not there, or not in the order in which they were written: 1, 2, 3 and so on. */
static void note_missing(NitiLog *log, const LogFile *file, int64_t keep_epoch) {
  const NitiLogRows *rows = &file->rows;
  const bool none = rows->size == 0;
  if (rows->leaps)
    (void)snprintf(log->notes[log->note_count++], NOTE_MAX,
                   "%.*s: after the row of epoch %lld comes that of epoch %lld: rows are missing, or not in their order",
                   NOTE_MAX / 2, file->path, (long long)rows->leap_from, (long long)rows->leap_to);
  if (keep_epoch > 0 && rows->newest < keep_epoch)
    (void)snprintf(log->notes[log->note_count++], NOTE_MAX, "%.*s: the rows %s epoch %lld are missing%s", NOTE_MAX / 2,
                   file->path, none ? "up to" : "of the last epochs up to", (long long)keep_epoch,
                   none ? ", a new log begins" : "");
}

static NitiStatus open_or_set_aside(LogFile *file, NitiLog *log, const char *dir, const char *name, int64_t keep_epoch) {
  NITI_TRY(niti_path_join(&file->path, dir, name));
  const NitiStatus status = open_file(file, log, keep_epoch);
  if (status == NITI_OK) note_missing(log, file, keep_epoch);
  return status == NITI_ERROR_FORMAT ? set_aside(file, log) : status;
}

static NitiStatus set_header(NitiLog *log, const char *const *keys, size_t count) {
  NitiField *fields = calloc(count + 1, sizeof *fields);
  if (!fields) return fail_memory();
  for (size_t i = 0; i < count; ++i) fields[i].key = keys[i];
  const NitiStatus status = format_line(&log->header, fields, count, put_csv_header);
  free(fields);
  return status;
}

NitiStatus niti_log_open(NitiLog **out, const char *dir, int64_t keep_epoch, const char *const *keys, size_t count) {
  *out = NULL;
  NitiLog *log = calloc(1, sizeof *log);
  if (!log) return fail_memory();
  log->csv.fd = log->jsonl.fd = -1;
  NitiStatus status = set_header(log, keys, count);
  if (status == NITI_OK) status = open_or_set_aside(&log->csv, log, dir, "metrics.csv", keep_epoch);
  if (status == NITI_OK) status = open_or_set_aside(&log->jsonl, log, dir, "metrics.jsonl", keep_epoch);
  if (status != NITI_OK) {
    if (log->note_count > 0) (void)niti_fail(status, "%s (and %s)", niti_error(), log->notes[0]);
    niti_log_close(log);
    return status;
  }
  *out = log;
  return NITI_OK;
}

const char *niti_log_note(const NitiLog *log, size_t index) { return index < log->note_count ? log->notes[index] : NULL; }

void niti_log_close(NitiLog *log) {
  if (!log) return;
  if (log->csv.fd >= 0) (void)niti_system.close(log->csv.fd);
  if (log->jsonl.fd >= 0) (void)niti_system.close(log->jsonl.fd);
  free(log->csv.path);
  free(log->jsonl.path);
  free(log->header);
  free(log);
}

static NitiStatus append(LogFile *file, const char *text) {
  if (file->fd < 0) return NITI_OK;
  NITI_TRY(niti_file_put(file->fd, text, strlen(text), file->path));
  /* pipes and the like cannot sync */
  if (niti_system.fdatasync(file->fd) && errno != EINVAL) return niti_fail_errno(file->path, "write to disk");
  return NITI_OK;
}

static NitiStatus check_fields(const NitiField *fields, size_t count) {
  bool epoch = false;
  for (size_t i = 0; i < count; ++i) {
    if (fields[i].kind == NITI_FIELD_INTEGER && !strcmp(fields[i].key, NITI_LOG_EPOCH)) epoch = true;
    if (fields[i].kind == NITI_FIELD_DECIMAL && (fields[i].digits < 0 || fields[i].digits > DIGITS_MAX))
      return niti_fail(NITI_ERROR_ARGUMENT, "log: '%.100s': %d decimals, 0..%d expected", fields[i].key, fields[i].digits,
                       DIGITS_MAX);
    for (size_t j = 0; j < i; ++j)
      if (!strcmp(fields[i].key, fields[j].key))
        return niti_fail(NITI_ERROR_ARGUMENT, "log: '%.100s' is there twice", fields[i].key);
  }
  return epoch ? NITI_OK : niti_fail(NITI_ERROR_ARGUMENT, "log: a row needs an integer `epoch`");
}

static bool take_back(const LogFile *file) { return file->fd < 0 || niti_system.ftruncate(file->fd, file->size) == 0; }

/* Rows appended to a file that has lost its name would be lost too; one that was written to may have lost rows. */
static NitiStatus check_unchanged(const LogFile *file) {
  struct stat held, named;
  if (file->fd < 0) return NITI_OK;
  if (niti_system.fstat(file->fd, &held) != 0) return niti_fail_errno(file->path, "inspect the file");
  const bool there = niti_system.lstat(file->path, &named) == 0;
  if (!there && errno != ENOENT) return niti_fail_errno(file->path, "inspect the file");
  if (!there || named.st_dev != held.st_dev || named.st_ino != held.st_ino)
    return niti_fail(NITI_ERROR_FILE, "%s: was %s while the run went on", file->path, there ? "replaced" : "removed");
  if (held.st_size == file->size) return NITI_OK;
  return niti_fail(NITI_ERROR_FILE,
                   "%s: was changed while the run went on (%lld bytes, %lld expected), rows may be missing in it", file->path,
                   (long long)held.st_size, (long long)file->size);
}

/* Writes both lines or neither, as far as the system allows to remove a partial one. */
static NitiStatus append_lines(NitiLog *log, const char *csv, const char *jsonl) {
  const bool first = log->csv.size == 0;
  NitiStatus status = first ? append(&log->csv, log->header) : NITI_OK;
  if (status == NITI_OK) status = append(&log->csv, csv);
  if (status == NITI_OK) status = append(&log->jsonl, jsonl);
  if (status != NITI_OK) {
    const bool csv_whole = take_back(&log->csv), jsonl_whole = take_back(&log->jsonl);
    if (!csv_whole || !jsonl_whole)
      return niti_fail_within(status, "%s: a torn row is left", csv_whole ? log->jsonl.path : log->csv.path);
    return status;
  }
  log->csv.size += (off_t)((first ? strlen(log->header) : 0) + strlen(csv));
  log->jsonl.size += (off_t)strlen(jsonl);
  return NITI_OK;
}

NitiStatus niti_log_row(NitiLog *log, const NitiField *fields, size_t count) {
  char *header = NULL, *csv = NULL, *jsonl = NULL;
  NITI_TRY(check_fields(fields, count));
  NITI_TRY(check_unchanged(&log->csv));
  NITI_TRY(check_unchanged(&log->jsonl));
  NitiStatus status = format_line(&header, fields, count, put_csv_header);
  if (status == NITI_OK && strcmp(log->header, header) != 0)
    status = niti_fail(NITI_ERROR_ARGUMENT, "%s: a row's columns must be the log's: %.*s", log->csv.path,
                       (int)strlen(log->header) - 1, log->header);
  if (status == NITI_OK) status = format_line(&csv, fields, count, put_csv_row);
  if (status == NITI_OK) status = format_line(&jsonl, fields, count, put_json_row);
  if (status == NITI_OK) status = append_lines(log, csv, jsonl);
  free(header);
  free(csv);
  free(jsonl);
  return status;
}

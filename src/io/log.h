/* A run's metrics: each row goes to metrics.csv and, as one JSON object, to metrics.jsonl. */
#ifndef NITI_IO_LOG_H
#define NITI_IO_LOG_H

#include "platform/status.h"

typedef enum NitiFieldKind {
  NITI_FIELD_INTEGER, /* integer */
  NITI_FIELD_DECIMAL, /* integer / 10^digits, written with exactly that many decimals */
  NITI_FIELD_NONE,    /* no value: nothing in the CSV file, null in the other */
} NitiFieldKind;

typedef struct NitiField {
  const char *key; /* letters, digits and underscores */
  NitiFieldKind kind;
  int64_t integer;
  int digits; /* 0..18 */
} NitiField;

NitiField niti_field_integer(const char *key, int64_t value);
NitiField niti_field_none(const char *key);
/* numerator / denominator to `digits` (0..9) decimals, ties away from zero, in integers. denominator 0 gives 0; what int64 cannot
 * hold is clipped. */
NitiField niti_field_ratio(const char *key, int64_t numerator, int64_t denominator, int digits);

typedef struct NitiLog NitiLog;

/* Opens (or creates) DIR/metrics.csv and DIR/metrics.jsonl for rows with these keys, `epoch` among them; keys are only read here.
 * Rows already there stay where their `epoch` is at most keep_epoch, also a last one that lacks only its newline; later ones, a
 * last line torn by a crash, and blank lines at the end are removed (the files are replaced whole). keep_epoch -1 keeps none. A
 * file whose content cannot be continued, because it was edited or damaged or has other columns, and what is no file or a link,
 * is renamed to NAME.bak (or .bak2, ...) and a new one begun; one that another program keeps from being renamed is left alone and
 * not written. niti_log_note reports both, a file that lacks the row of keep_epoch, which is 1 or more, and one in which the row
 * of an epoch from 1 on is not followed by that of the next epoch. Statuses: FILE where a call of the system fails, MEMORY; after
 * both the files have the rows to keep that they had. */
NitiStatus niti_log_open(NitiLog **out, const char *dir, int64_t keep_epoch, const char *const *keys, size_t count);
/* Which files were set aside, are not written, or have lost rows: human-readable lines, at most two of a file; NULL beyond the
 * last. Owned by the log. */
const char *niti_log_note(const NitiLog *log, size_t index);
/* Appends a row and syncs it to disk before returning. Its keys must be those of the log, in their order, and `epoch` an integer;
 * else NITI_ERROR_ARGUMENT. A failed append leaves no torn line. A file that was removed, replaced or given another
 * size since it was opened is NITI_ERROR_FILE, with no row written to either. */
NitiStatus niti_log_row(NitiLog *log, const NitiField *fields, size_t count);
void niti_log_close(NitiLog *log);

#endif

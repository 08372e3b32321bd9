/* The rows of a log that stay when its run continues. */
#ifndef NITI_IO_LOG_ROWS_H
#define NITI_IO_LOG_ROWS_H

#include "platform/status.h"

#define NITI_LOG_EPOCH "epoch" /* the key that every row has */

typedef struct NitiLogRows {
  size_t size;    /* bytes of what stays, with the CSV header; 0: no row does */
  bool any;       /* a row stays */
  int64_t newest; /* the epoch of the last one; 0: none */
  bool leaps;     /* a row is not followed by that of the next epoch; the first such place: */
  int64_t leap_from, leap_to;
} NitiLogRows;

/* Moves what stays to the front of text, which has room for a byte after its `size` ones, as niti_file_read leaves it. header:
 * the CSV header line with its newline; NULL: JSON lines. Rows up to keep_epoch stay: they were synced before the checkpoint that
 * has this epoch, so no crash has torn them. Later ones go, and so do blank lines at the end, and a row that a crash has torn.
 * Statuses: FORMAT for any other content, which names path and record; MEMORY. After both, text and *rows hold nothing of use. */
NitiStatus niti_log_rows(NitiLogRows *rows, char *text, size_t size, const char *path, const char *header, int64_t keep_epoch);

#endif

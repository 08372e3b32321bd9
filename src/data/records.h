/* Inside src/data: images that stay in their files, as records of one size, and are read by position when they are wanted. */
#ifndef NITI_DATA_RECORDS_H
#define NITI_DATA_RECORDS_H

#include "platform/status.h"

enum { NITI_RECORD_LABELS_MAX = 2 }; /* bytes before a CIFAR record's pixels */

/* How a record's values lie. */
typedef enum NitiRecordForm {
  NITI_RECORD_PLAIN,      /* [H][W][C], little-endian */
  NITI_RECORD_PLANES,     /* CIFAR's: [3][32][32], behind its labels */
  NITI_RECORD_TRANSPOSED, /* EMNIST's: [W][H] of a square image */
} NitiRecordForm;

/* Records `first` to `end` - 1, one after the other from byte `offset` on. */
typedef struct NitiRecordFile {
  int fd;
  char *path;
  uint64_t offset;
  int64_t first, end;
} NitiRecordFile;

typedef struct NitiRecords {
  NitiRecordForm form;
  size_t labels;  /* bytes of a record before its values, which follow: */
  size_t count;   /* of one image, at most 2^28 */
  size_t element; /* bytes of each, 1 or 2 */
  NitiRecordFile *files;
  size_t file_count;
  uint32_t *checks; /* CRC-32 of each record, labels included; NULL: not known yet */
} NitiRecords;

/* No files yet. */
NitiStatus niti_records_open(NitiRecords **out, NitiRecordForm form, size_t labels, size_t count, size_t element);
void niti_records_close(NitiRecords *records); /* NULL is allowed */
int64_t niti_records_total(const NitiRecords *records);
/* Opens a file of `total` more records, which end where it ends; it stays open. */
NitiStatus niti_records_add(NitiRecords *records, const char *path, uint64_t offset, int64_t total);
/* Reads the values of record `at`, as [H][W][C] in this machine's byte order, into out [count]. Fails where the file has become
 * shorter and, once checks are known, where the record is not the one that they were made of. Safe to call from several threads
 * at once. */
NitiStatus niti_records_read(void *out, const NitiRecords *records, int64_t at);
/* Reads the label bytes of record `at` alone. */
NitiStatus niti_records_read_labels(uint8_t out[NITI_RECORD_LABELS_MAX], const NitiRecords *records, int64_t at);
/* Sets the checks to none, and then adds bytes[size] of file number `file` from byte `at` on: all of the files, in order. What
 * is before or after the records is passed over. */
NitiStatus niti_records_check_begin(NitiRecords *records);
void niti_records_check_add(NitiRecords *records, size_t file, uint64_t at, const uint8_t *bytes, size_t size);

/* Planes [3][area] as pixels [area][3]. */
void niti_pixels_of_planes(uint8_t *out, const uint8_t *planes, size_t area);
/* Exchanges rows and columns of a square image. */
void niti_pixels_transpose(uint8_t *image, size_t side);

#endif

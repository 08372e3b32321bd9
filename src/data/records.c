/* Reads images by position from files that stay open, and notices where those have changed. */
#include "data/records.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "platform/bytes.h"
#include "platform/file.h"
#include "platform/system.h"

enum { PLANE = 32 * 32, PLANES = 3 * PLANE };

static size_t record_bytes(const NitiRecords *r) { return r->labels + r->count * r->element; }

NitiStatus niti_records_open(NitiRecords **out, NitiRecordForm form, size_t labels, size_t count, size_t element) {
  NitiRecords *r = *out = calloc(1, sizeof *r);
  if (!r) return niti_fail(NITI_ERROR_MEMORY, "out of memory for a data set");
  r->form = form;
  r->labels = labels;
  r->count = count;
  r->element = element;
  return NITI_OK;
}

void niti_records_close(NitiRecords *records) {
  if (!records) return;
  for (size_t i = 0; i < records->file_count; ++i) {
    (void)niti_system.close(records->files[i].fd);
    free(records->files[i].path);
  }
  free(records->files);
  free(records->checks);
  free(records);
}

int64_t niti_records_total(const NitiRecords *records) {
  return records->file_count > 0 ? records->files[records->file_count - 1].end : 0;
}

static NitiStatus check_size(const NitiRecordFile *file, uint64_t size, uint64_t record) {
  const uint64_t end = file->offset + (uint64_t)(file->end - file->first) * record;
  if (size == end) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: byte %llu: the file's size changed while it was opened (expected %llu bytes)",
                   file->path, (unsigned long long)size, (unsigned long long)end);
}

NitiStatus niti_records_add(NitiRecords *records, const char *path, uint64_t offset, int64_t total) {
  uint64_t size = 0;
  const int64_t first = niti_records_total(records);
  NitiRecordFile *grown = realloc(records->files, (records->file_count + 1) * sizeof *grown);
  if (!grown) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a path", path);
  records->files = grown;
  NitiRecordFile file = {.path = strdup(path), .offset = offset, .first = first, .end = first + total};
  if (!file.path) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a path", path);
  NitiStatus status = niti_file_open_read(&file.fd, &size, path);
  if (status != NITI_OK) {
    free(file.path);
    return status;
  }
  grown[records->file_count++] = file;
  return check_size(&file, size, record_bytes(records));
}

/* ---- reading ---- */

static const NitiRecordFile *file_of(const NitiRecords *r, int64_t at) {
  const NitiRecordFile *file = r->files;
  while (at >= file->end) ++file;
  return file;
}

static uint64_t place_of(const NitiRecords *r, const NitiRecordFile *file, int64_t at) {
  return file->offset + (uint64_t)(at - file->first) * record_bytes(r);
}

static NitiStatus read_at(void *out, size_t size, const NitiRecordFile *file, uint64_t place) {
  uint8_t *to = out;
  while (size > 0) {
    const ssize_t got = niti_system.pread(file->fd, to, size, (off_t)place);
    if (got < 0) return niti_fail_errno(file->path, "read");
    if (got == 0)
      return niti_fail(NITI_ERROR_FORMAT, "%s: byte %llu: the file ends here, expected %zu more bytes: it was cut while in use",
                       file->path, (unsigned long long)place, size);
    to += got;
    size -= (size_t)got;
    place += (uint64_t)got;
  }
  return NITI_OK;
}

NitiStatus niti_records_read_labels(uint8_t out[NITI_RECORD_LABELS_MAX], const NitiRecords *records, int64_t at) {
  const NitiRecordFile *file = file_of(records, at);
  return read_at(out, records->labels, file, place_of(records, file, at));
}

static uint32_t check_of(uint32_t before, const uint8_t *bytes, size_t size) { return (uint32_t)crc32_z(before, bytes, size); }

static NitiStatus read_record(uint8_t *out, const NitiRecords *r, int64_t at) {
  const NitiRecordFile *file = file_of(r, at);
  const uint64_t place = place_of(r, file, at);
  const size_t size = record_bytes(r);
  NITI_TRY(read_at(out, size, file, place));
  if (!r->checks || check_of(0, out, size) == r->checks[at]) return NITI_OK;
  return niti_fail(NITI_ERROR_FORMAT, "%s: byte %llu: image %lld of the file was changed while in use (expected what was hashed)",
                   file->path, (unsigned long long)place, (long long)(at - file->first));
}

NitiStatus niti_records_read(void *out, const NitiRecords *records, int64_t at) {
  uint8_t record[NITI_RECORD_LABELS_MAX + PLANES];
  if (records->form == NITI_RECORD_PLANES) {
    NITI_TRY(read_record(record, records, at));
    niti_pixels_of_planes(out, record + records->labels, PLANE);
    return NITI_OK;
  }
  NITI_TRY(read_record(out, records, at));
  if (records->form == NITI_RECORD_TRANSPOSED) {
    size_t side = 1;
    while (side * side < records->count) ++side;
    niti_pixels_transpose(out, side);
  }
  niti_bytes_little(out, records->count, records->element);
  return NITI_OK;
}

void niti_pixels_of_planes(uint8_t *out, const uint8_t *planes, size_t area) {
  for (size_t i = 0; i < area; ++i) {
    *out++ = planes[i];
    *out++ = planes[area + i];
    *out++ = planes[2 * area + i];
  }
}

void niti_pixels_transpose(uint8_t *image, size_t side) {
  for (size_t y = 0; y < side; ++y) {
    for (size_t x = 0; x < y; ++x) {
      const uint8_t swapped = image[y * side + x];
      image[y * side + x] = image[x * side + y];
      image[x * side + y] = swapped;
    }
  }
}

/* ---- checks ---- */

NitiStatus niti_records_check_begin(NitiRecords *records) {
  const size_t total = (size_t)niti_records_total(records);
  free(records->checks);
  records->checks = calloc(total, sizeof *records->checks);
  return records->checks ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for checksums of %zu images", total);
}

void niti_records_check_add(NitiRecords *records, size_t file, uint64_t at, const uint8_t *bytes, size_t size) {
  const NitiRecordFile *f = &records->files[file];
  const uint64_t record = record_bytes(records), end = place_of(records, f, f->end);
  while (size > 0 && at < end) {
    const uint64_t number = at < f->offset ? 0 : (at - f->offset) / record;
    const uint64_t next = at < f->offset ? f->offset : f->offset + (number + 1) * record;
    const size_t piece = next - at < size ? (size_t)(next - at) : size;
    uint32_t *check = &records->checks[f->first + (int64_t)number];
    if (at >= f->offset) *check = check_of(*check, bytes, piece);
    at += piece;
    bytes += piece;
    size -= piece;
  }
}

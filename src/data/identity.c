/* What a data set's files are: their hashes, and whether they are still those that were opened. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format.h"
#include "data/image.h"
#include "data/packed.h"
#include "platform/file.h"
#include "platform/sha256.h"
#include "platform/system.h"

enum { SETTLED = 2 /* seconds: more than the steps in which file systems count time */ };

/* ---- facts ---- */

/* All zero: there is none. */
static NitiStatus find_facts(NitiFileFacts *out, const char *path) {
  struct stat facts;
  *out = (NitiFileFacts){0};
  if (niti_system.stat(path, &facts) != 0)
    return niti_path_is_missing(errno) ? NITI_OK : niti_fail_errno(path, "inspect the file");
  *out = (NitiFileFacts){facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtim, facts.st_ctim};
  return NITI_OK;
}

static bool is_time(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

static bool are_same(const NitiFileFacts *a, const NitiFileFacts *b) {
  return a->device == b->device && a->inode == b->inode && a->size == b->size && is_time(a->changed, b->changed) &&
         is_time(a->status_changed, b->status_changed);
}

NitiStatus niti_split_add_file(NitiDataSplit *split, const char *name) {
  char *path = NULL;
  NitiFileFacts *grown = realloc(split->facts, (split->files.count + 1) * sizeof *grown);
  if (!grown) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for its files", split->dir);
  split->facts = grown;
  NITI_TRY(niti_path_join(&path, split->dir, name));
  const NitiStatus status = find_facts(&grown[split->files.count], path);
  free(path);
  return status == NITI_OK ? niti_paths_add(&split->files, name, split->dir) : status;
}

/* ---- the hash of the content ---- */

typedef struct Hashing {
  NitiDataset *dataset;
  NitiRecords *records; /* whose checks are made on the way; NULL: none */
  NitiSha256 sha;
  char what[32];
  int64_t done, total; /* files */
} Hashing;

static NitiStatus hash_bytes(Hashing *hashing, NitiPacked *file) {
  const bool checked = hashing->records && (size_t)hashing->done < hashing->records->file_count;
  uint8_t bytes[16384];
  size_t got = 0;
  for (uint64_t at = 0;; at += got) {
    NITI_TRY(niti_packed_read(file, bytes, sizeof bytes, &got));
    if (got == 0) return NITI_OK;
    niti_sha256_add(&hashing->sha, bytes, got);
    if (checked) niti_records_check_add(hashing->records, (size_t)hashing->done, at, bytes, got);
    NITI_TRY(niti_dataset_watch(hashing->dataset, hashing->what, hashing->done, hashing->total));
  }
}

/* Before it is read: what cannot be an image may be a hole of terabytes, or unpack to as much. */
static NitiStatus check_image_file(const NitiPacked *file, const char *path) {
  if (niti_packed_size(file) > NITI_IMAGE_BYTES_MAX)
    return niti_fail(NITI_ERROR_FILE, "%s: too long, expected at most %d bytes", path, NITI_IMAGE_BYTES_MAX);
  return niti_packed_is(file) ? niti_fail(NITI_ERROR_FILE, "%s: gzip data (expected an image)", path) : NITI_OK;
}

/* Of the content, whether gzip holds it or not. */
static NitiStatus hash_file(Hashing *hashing, const char *path) {
  NitiPacked *file = NULL;
  NITI_TRY(niti_packed_open(&file, path));
  NitiStatus status = niti_dataset_is_folder(hashing->dataset) ? check_image_file(file, path) : NITI_OK;
  if (status == NITI_OK) status = hash_bytes(hashing, file);
  niti_packed_close(file);
  return status;
}

/* The file must be the one that was opened: labels are from then. */
static NitiStatus check_same(const NitiDataSplit *split, size_t file, const char *path) {
  NitiFileFacts facts;
  if (!split->facts) return NITI_OK;
  NITI_TRY(find_facts(&facts, path));
  if (are_same(&split->facts[file], &facts)) return NITI_OK;
  return niti_fail(NITI_ERROR_FILE, "%s: the file was changed after it was opened (expected the same until it is hashed)", path);
}

NitiStatus niti_dataset_check_maps(const NitiDataset *dataset) {
  for (int i = 0; i < NITI_SPLITS; ++i) {
    const NitiDataSplit *split = &dataset->split[i];
    char *path = NULL;
    if (split->mapped == 0 || !split->values || split->shared) continue;
    NITI_TRY(niti_path_join(&path, split->dir, split->files.path[0]));
    NitiFileFacts facts;
    NitiStatus status = find_facts(&facts, path);
    if (status == NITI_OK && !are_same(&split->facts[0], &facts))
      status = niti_fail(NITI_ERROR_FILE, "%s: the file was changed while in use (expected the same until the end)", path);
    free(path);
    NITI_TRY(status);
  }
  return NITI_OK;
}

NitiStatus niti_dataset_hash(NitiDataset *dataset, NitiSplit split, char text[65]) {
  const NitiDataSplit *s = &dataset->split[split];
  Hashing hashing = {.dataset = dataset, .records = s->records, .total = (int64_t)s->files.count};
  if (s->sha256[0]) {
    memcpy(text, s->sha256, sizeof s->sha256);
    return NITI_OK;
  }
  (void)snprintf(hashing.what, sizeof hashing.what, "hashing %s files", niti_split_name(split));
  niti_sha256_begin(&hashing.sha);
  if (s->records) NITI_TRY(niti_records_check_begin(s->records));
  for (size_t i = 0; i < s->files.count; ++i) {
    char *path = NULL;
    NITI_TRY(niti_path_join(&path, s->dir, s->files.path[i]));
    /* Where the folder is the label, the name belongs to the data. */
    if (niti_dataset_is_folder(dataset)) niti_sha256_add_text(&hashing.sha, s->files.path[i]);
    NitiStatus status = hash_file(&hashing, path);
    if (status == NITI_OK) status = check_same(s, i, path);
    free(path);
    NITI_TRY(status);
    ++hashing.done;
  }
  niti_sha256_end(&hashing.sha, text);
  return NITI_OK;
}

const uint32_t *niti_dataset_checks(const NitiDataset *dataset, NitiSplit split) {
  const NitiRecords *records = dataset->split[split].records;
  return records ? records->checks : NULL;
}

NitiStatus niti_dataset_set_checks(NitiDataset *dataset, NitiSplit split, const uint32_t *checks) {
  NitiDataSplit *s = &dataset->split[split];
  if (!s->records) return NITI_OK;
  NITI_TRY(niti_records_check_begin(s->records));
  memcpy(s->records->checks, checks, (size_t)s->stored * sizeof *checks);
  return NITI_OK;
}

/* ---- which files ---- */

/* Adds a file; false: it had changed lately when the data set was opened, or could not be asked about. */
static bool add_file(NitiSha256 *sha, const NitiDataset *dataset, const NitiFileFacts *facts) {
  niti_sha256_add(sha, &facts->device, sizeof facts->device);
  niti_sha256_add(sha, &facts->inode, sizeof facts->inode);
  niti_sha256_add(sha, &facts->size, sizeof facts->size);
  niti_sha256_add(sha, &facts->changed, sizeof facts->changed);
  niti_sha256_add(sha, &facts->status_changed, sizeof facts->status_changed);
  const time_t settled = dataset->opened - SETTLED;
  return facts->inode != 0 && facts->status_changed.tv_sec < settled && facts->changed.tv_sec < settled;
}

/* Adds the folder itself, since its many files are read on the way. */
static bool add_folder(NitiSha256 *sha, const char *dir) {
  NitiFileFacts facts;
  (void)find_facts(&facts, dir);
  niti_sha256_add(sha, &facts.device, sizeof facts.device);
  niti_sha256_add(sha, &facts.inode, sizeof facts.inode);
  return facts.inode != 0;
}

void niti_dataset_files(const NitiDataset *dataset, NitiSplit split, char text[65]) {
  const NitiDataSplit *s = &dataset->split[split];
  NitiSha256 sha;
  niti_sha256_begin(&sha);
  bool good = s->facts || add_folder(&sha, s->dir);
  for (size_t i = 0; good && s->facts && i < s->files.count; ++i) good = add_file(&sha, dataset, &s->facts[i]);
  text[0] = 0;
  if (good) niti_sha256_end(&sha, text);
}

/* ---- names ---- */

void niti_dataset_names_hash(const NitiDataset *dataset, NitiSplit split, char text[65]) {
  const NitiDataSplit *s = &dataset->split[split];
  NitiSha256 sha;
  niti_sha256_begin(&sha);
  const bool folder = niti_dataset_is_folder(dataset);
  if (!folder) niti_sha256_add(&sha, dataset->format->name, strlen(dataset->format->name));
  for (size_t i = 0; folder && i < s->files.count; ++i) niti_sha256_add_text(&sha, s->files.path[i]);
  niti_sha256_end(&sha, text);
}

/* Reads every image of a split on all threads: finds unreadable ones and sums the values for mean and deviation. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/wide.h"
#include "data/image.h"
#include "data/values.h"
#include "data/watch.h"
#include "platform/workers.h"

enum { BLOCK_VALUES = 1 << 20 };

typedef struct Bad {
  int64_t index;
  char *message;
} Bad;

/* Workers take one item after the other: an image that has to be decoded, or a block of those in memory. */
typedef struct Survey {
  const NitiDataset *dataset;
  NitiSplit which;
  bool glance;   /* niti_image_glance in place of decoding; nothing is summed */
  int64_t block; /* images per item */
  pthread_mutex_t lock;
  pthread_cond_t finished;
  int64_t next, done; /* images: the next one to take; how many are done */
  int64_t end, total; /* behind the last one to take; how many there are to take */
  int working;        /* workers that have not finished */
  NitiStatus status;  /* not NITI_OK: no item is taken any more */
  char message[256];
  Bad *bad; /* in the order they are found */
  size_t bad_count, bad_capacity;
  NitiSums *sums; /* [C] */
} Survey;

static const NitiDataSplit *split_of(const Survey *survey) { return &survey->dataset->split[survey->which]; }

/* ---- workers ---- */

/* The lock is held. */
static void stop_survey(Survey *survey, NitiStatus status) {
  if (survey->status != NITI_OK) return;
  survey->status = status;
  (void)snprintf(survey->message, sizeof survey->message, "%s", niti_error());
}

/* Notes an image that cannot be read; the thread's message says why. */
static void add_bad(Survey *survey, int64_t index) {
  char *message = strdup(niti_error());
  pthread_mutex_lock(&survey->lock);
  if (survey->bad_count == survey->bad_capacity) {
    const size_t capacity = survey->bad_capacity ? 2 * survey->bad_capacity : 16;
    Bad *grown = realloc(survey->bad, capacity * sizeof *grown);
    if (grown) {
      survey->bad = grown;
      survey->bad_capacity = capacity;
    }
  }
  if (message && survey->bad_count < survey->bad_capacity) {
    survey->bad[survey->bad_count++] = (Bad){index, message};
  } else {
    free(message);
    stop_survey(survey, niti_fail(NITI_ERROR_MEMORY, "out of memory for the list of bad images"));
  }
  pthread_mutex_unlock(&survey->lock);
}

/* Images in memory, one after the other, or where an index chooses them; or in files, read into `room`. */
static NitiStatus sum_stored(const Survey *survey, NitiSums *sums, void *room, int64_t first, int64_t count) {
  const NitiDataSplit *split = split_of(survey);
  NitiDataSplit one = {0};
  if (split->values && !split->index) niti_values_sum(sums, survey->dataset, split, first, count);
  for (int64_t i = first; (!split->values || split->index) && i < first + count; ++i) {
    NITI_TRY(niti_split_sample(&one.values, room, survey->dataset, split, split->index ? split->index[i] : i));
    niti_values_sum(sums, survey->dataset, &one, 0, 1);
  }
  return NITI_OK;
}

static NitiStatus glance_at(const NitiDataset *dataset, NitiSplit which, int64_t index) {
  char *path = NULL;
  NITI_TRY(niti_path_join(&path, dataset->split[which].dir, niti_dataset_file(dataset, which, index)));
  const NitiStatus status = niti_image_glance_at(path);
  free(path);
  return status;
}

/* `pixels` is room for one image. */
static NitiStatus survey_item(Survey *survey, NitiSums *sums, uint8_t *pixels, int64_t first, int64_t count) {
  const NitiDataSplit decoded = {.values = pixels};
  if (!niti_dataset_is_folder(survey->dataset)) return sum_stored(survey, sums, pixels, first, count);
  for (int64_t i = first; i < first + count; ++i) {
    const NitiStatus status = survey->glance ? glance_at(survey->dataset, survey->which, i)
                                             : niti_dataset_read(survey->dataset, survey->which, i, true, 0, 0, pixels);
    if (status == NITI_ERROR_MEMORY) return status;
    if (status == NITI_OK && survey->glance) continue;
    if (status == NITI_OK)
      niti_values_sum(sums, survey->dataset, &decoded, 0, 1);
    else
      add_bad(survey, i);
  }
  return NITI_OK;
}

/* Takes the next item; false: nothing is left to do. */
static bool take_item(Survey *survey, int64_t *first, int64_t *count) {
  const int64_t left = survey->end - survey->next;
  if (survey->status != NITI_OK || left == 0) return false;
  *first = survey->next;
  *count = left < survey->block ? left : survey->block;
  survey->next += *count;
  return true;
}

static void *run_worker(void *context) {
  Survey *survey = context;
  const NitiShape shape = survey->dataset->shape;
  uint8_t *pixels = malloc(niti_sample_bytes(survey->dataset));
  NitiSums *sums = calloc((size_t)shape.c, sizeof *sums);
  NitiStatus status = pixels && sums ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "out of memory for reading images");
  int64_t first, count;
  pthread_mutex_lock(&survey->lock);
  while (status == NITI_OK && take_item(survey, &first, &count)) {
    pthread_mutex_unlock(&survey->lock);
    status = survey_item(survey, sums, pixels, first, count);
    pthread_mutex_lock(&survey->lock);
    survey->done += count;
  }
  if (status != NITI_OK) stop_survey(survey, status);
  for (int32_t c = 0; status == NITI_OK && c < shape.c; ++c) {
    survey->sums[c].sum += sums[c].sum;
    survey->sums[c].squares += sums[c].squares;
  }
  --survey->working;
  pthread_cond_signal(&survey->finished);
  pthread_mutex_unlock(&survey->lock);
  free(pixels);
  free(sums);
  return NULL;
}

/* ---- the calling thread ---- */

/* Waits for the workers and calls the watch. The lock is held. */
static void wait_for_workers(Survey *survey, NitiDataset *dataset) {
  char what[40];
  (void)snprintf(what, sizeof what, "%s %s images", survey->glance ? "looking at" : "reading", niti_split_name(survey->which));
  while (survey->working > 0) {
    niti_watch_wait(&survey->finished, &survey->lock);
    const int64_t done = survey->done;
    if (survey->status != NITI_OK) continue; /* told once to stop, the workers finish what they have begun */
    pthread_mutex_unlock(&survey->lock);
    const NitiStatus status = niti_dataset_watch(dataset, what, done, survey->total);
    pthread_mutex_lock(&survey->lock);
    if (status != NITI_OK) stop_survey(survey, status);
  }
}

static int compare_bad(const void *a, const void *b) {
  const int64_t x = ((const Bad *)a)->index, y = ((const Bad *)b)->index;
  return x < y ? -1 : x > y;
}

/* The split takes over what was found. */
static NitiStatus keep_findings(NitiDataSplit *split, Survey *survey) {
  niti_paths_close(&split->bad);
  free(split->bad_index);
  split->bad_index = calloc(survey->bad_count + 1, sizeof *split->bad_index);
  if (!split->bad_index) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for the list of bad images", split->dir);
  if (survey->bad_count > 1) qsort(survey->bad, survey->bad_count, sizeof *survey->bad, compare_bad);
  for (size_t i = 0; i < survey->bad_count; ++i) {
    split->bad_index[i] = survey->bad[i].index;
    NITI_TRY(niti_paths_add(&split->bad, survey->bad[i].message, split->dir));
  }
  if (survey->glance) return NITI_OK;
  free(split->sums);
  split->sums = survey->sums;
  survey->sums = NULL;
  split->surveyed = split->count - (int64_t)survey->bad_count; /* of all, or of all when the parts are added up */
  return NITI_OK;
}

static NitiStatus run_survey(Survey *survey, NitiDataset *dataset) {
  NitiWorkers workers = {0};
  pthread_mutex_lock(&survey->lock);
  NitiStatus status = niti_workers_start(&workers, 0, run_worker, survey);
  survey->working = workers.count;
  wait_for_workers(survey, dataset);
  pthread_mutex_unlock(&survey->lock);
  niti_workers_join(&workers);
  if (status == NITI_OK && survey->status != NITI_OK) status = niti_fail(survey->status, "%s", survey->message);
  return status == NITI_OK ? keep_findings(&dataset->split[survey->which], survey) : status;
}

/* Part number `part` of `parts`. */
static NitiStatus survey_split(NitiDataset *dataset, NitiSplit which, bool glance, int part, int parts) {
  const int64_t all = dataset->split[which].count;
  const size_t image = niti_shape_image(dataset->shape);
  const bool resident = !niti_dataset_is_folder(dataset);
  Survey survey = {.dataset = dataset,
                   .which = which,
                   .glance = glance,
                   .next = all * part / parts,
                   .end = all * (part + 1) / parts,
                   .block = resident && image < BLOCK_VALUES ? BLOCK_VALUES / (int64_t)image : 1};
  survey.total = survey.end - survey.next;
  survey.sums = calloc((size_t)dataset->shape.c, sizeof *survey.sums);
  if (!survey.sums) return niti_fail(NITI_ERROR_MEMORY, "out of memory for reading images");
  NitiStatus status = NITI_ERROR_MEMORY;
  const bool lock = pthread_mutex_init(&survey.lock, NULL) == 0;
  const bool finished = pthread_cond_init(&survey.finished, NULL) == 0;
  if (lock && finished)
    status = run_survey(&survey, dataset);
  else
    (void)niti_fail(status, "cannot make a lock for reading images");
  if (finished) pthread_cond_destroy(&survey.finished);
  if (lock) pthread_mutex_destroy(&survey.lock);
  for (size_t i = 0; i < survey.bad_count; ++i) free(survey.bad[i].message);
  free(survey.bad);
  free(survey.sums);
  return status;
}

NitiStatus niti_dataset_survey(NitiDataset *dataset, NitiSplit which) { return survey_split(dataset, which, false, 0, 1); }

NitiStatus niti_dataset_sum(NitiDataset *dataset, int part, int parts) {
  return survey_split(dataset, NITI_TRAIN, false, part, parts);
}

int64_t *niti_dataset_sums(NitiDataset *dataset) {
  _Static_assert(sizeof(NitiSums) == 2 * sizeof(int64_t), "two numbers");
  return &dataset->split[NITI_TRAIN].sums->sum;
}

/* ---- what follows from it ---- */

int64_t niti_dataset_bad_count(const NitiDataset *dataset, NitiSplit split) { return (int64_t)dataset->split[split].bad.count; }

const char *niti_dataset_bad(const NitiDataset *dataset, NitiSplit split, int64_t index) {
  return dataset->split[split].bad.path[index];
}

/* Takes the bad images out of the lists. */
static void drop_bad(NitiDataSplit *split) {
  size_t kept = 0, bad = 0;
  for (size_t i = 0; i < split->files.count; ++i) {
    if (bad < split->bad.count && (size_t)split->bad_index[bad] == i) {
      free(split->files.path[i]);
      ++bad;
      continue;
    }
    split->files.path[kept] = split->files.path[i];
    split->labels[kept++] = split->labels[i];
  }
  split->files.count = kept;
  split->stored = split->count = (int64_t)kept;
}

/* Every class that had training images must keep some. */
static NitiStatus check_classes_left(const NitiDataset *dataset, const NitiDataSplit *split) {
  bool *left = calloc((size_t)dataset->classes, sizeof *left);
  NitiStatus status = left ? NITI_OK : niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for its classes", split->dir);
  size_t bad = 0;
  for (int64_t i = 0; left && i < split->count; ++i) {
    if (bad < split->bad.count && split->bad_index[bad] == i)
      ++bad;
    else
      left[split->labels[i]] = true;
  }
  for (size_t i = 0; status == NITI_OK && i < split->bad.count; ++i) {
    if (!left[split->labels[split->bad_index[i]]])
      status = niti_fail(NITI_ERROR_FORMAT, "%s: none of its class's training images can be read", split->bad.path[i]);
  }
  free(left);
  return status;
}

static NitiStatus skip_bad(NitiDataset *dataset, NitiDataSplit *split) {
  const size_t bad = split->bad.count;
  if (split->index) return niti_fail(NITI_ERROR_ARGUMENT, "%s: bad images are left out before any is held out", split->dir);
  if (split == &dataset->split[NITI_TRAIN]) NITI_TRY(check_classes_left(dataset, split));
  if (bad == split->files.count)
    return niti_fail(NITI_ERROR_FORMAT, "%s: none of its images can be read: %s", split->dir, split->bad.path[0]);
  drop_bad(split);
  const NitiStatus status = niti_dataset_add_note(dataset, "%s: %zu image%s left out, being bad: %s%s", split->dir, bad,
                                                  bad == 1 ? "" : "s", bad == 1 ? "" : "first ", split->bad.path[0]);
  niti_paths_close(&split->bad);
  return status;
}

static NitiStatus fail_bad(const NitiDataSplit *split, NitiSplit which) {
  const size_t bad = split->bad.count;
  if (bad == 0) return NITI_OK;
  if (bad == 1) return niti_fail(NITI_ERROR_FORMAT, "%s", split->bad.path[0]);
  return niti_fail(NITI_ERROR_FORMAT, "%s (and %zu more bad %s image%s: `niti data` lists them)", split->bad.path[0], bad - 1,
                   niti_split_name(which), bad == 2 ? "" : "s");
}

NitiStatus niti_dataset_check(NitiDataset *dataset, NitiSplit which) {
  NitiDataSplit *split = &dataset->split[which];
  NITI_TRY(niti_dataset_survey(dataset, which));
  const bool skips = split->bad.count > 0 && dataset->options.bad_files == NITI_BAD_SKIP;
  return skips ? skip_bad(dataset, split) : fail_bad(split, which);
}

NitiStatus niti_dataset_glance(NitiDataset *dataset, NitiSplit which) {
  if (!niti_dataset_is_folder(dataset)) return NITI_OK;
  NITI_TRY(survey_split(dataset, which, true, 0, 1));
  return fail_bad(&dataset->split[which], which);
}

/* floor(10^12 * n / d) for n <= d and 10 d < 2^128: digit by digit, since the product may not fit. */
static uint64_t ratio_e12(NitiWide n, NitiWide d) {
  uint64_t q = niti_wide_divide(&n, d);
  for (int i = 0; i < 12; ++i) {
    n = niti_wide_times(n, 10);
    q = q * 10 + niti_wide_divide(&n, d);
  }
  return q;
}

/* The integer nearest to the square root of v <= 10^12. */
static uint32_t root(uint64_t v) {
  uint64_t r = 0;
  for (uint64_t bit = (uint64_t)1 << 20; bit > 0; bit >>= 1) {
    if ((r + bit) * (r + bit) <= v) r += bit;
  }
  return (uint32_t)(v - r * r > r ? r + 1 : r);
}

NitiStatus niti_dataset_statistics(NitiDataset *dataset, int32_t mean[NITI_CHANNELS_MAX], int32_t std[NITI_CHANNELS_MAX]) {
  const NitiDataSplit *train = &dataset->split[NITI_TRAIN];
  const NitiShape shape = dataset->shape;
  memset(mean, 0, NITI_CHANNELS_MAX * sizeof *mean);
  memset(std, 0, NITI_CHANNELS_MAX * sizeof *std);
  if (!train->sums) NITI_TRY(niti_dataset_check(dataset, NITI_TRAIN));
  const NitiWide all = niti_wide_product((uint64_t)train->surveyed, (uint64_t)shape.h * (uint64_t)shape.w);
  const uint64_t n = all.low;
  if (all.high > 0 || n >= (uint64_t)1 << 34)
    return niti_fail(NITI_ERROR_FORMAT, "%s: too many values for statistics (expected fewer than 2^34 per channel)", train->dir);
  const uint64_t full = n * (uint64_t)niti_values_full(dataset->type); /* at most 2^49, and so are sums */
  for (int32_t c = 0; n > 0 && c < shape.c; ++c) {
    const bool negative = train->sums[c].sum < 0;
    const uint64_t sum = (uint64_t)(negative ? -train->sums[c].sum : train->sums[c].sum);
    NitiWide twice = niti_wide_sum(niti_wide_product(sum, 2000000), (NitiWide){0, full});
    const int32_t magnitude = (int32_t)niti_wide_divide(&twice, (NitiWide){0, 2 * full});
    const NitiWide squares = niti_wide_product(train->sums[c].squares, n);
    mean[c] = negative ? -magnitude : magnitude;
    std[c] = (int32_t)root(
        ratio_e12(niti_wide_difference(squares, niti_wide_product(sum, sum)), niti_wide_product(full, full))); /* at most 1 */
  }
  return NITI_OK;
}

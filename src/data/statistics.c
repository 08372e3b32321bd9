#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format.h"
#include "platform/workers.h"

typedef unsigned __int128 Wide;

/* How often each value occurs, per channel: everything mean and deviation need. */
typedef struct Histogram {
  uint64_t count[NITI_CHANNELS_MAX][256];
} Histogram;

static void count_pixels(Histogram *histogram, const uint8_t *pixels, size_t count, int32_t channels) {
  for (size_t i = 0; i < count; ++i) {
    for (int32_t c = 0; c < channels; ++c) ++histogram->count[c][*pixels++];
  }
}

/* Image folders: workers take one image after the other. */
typedef struct Survey {
  const NitiDataset *dataset;
  pthread_mutex_t lock;
  int64_t next, failed; /* failed: the first image that could not be read, or -1 */
  NitiStatus status;
  char message[1024];
  Histogram total;
} Survey;

/* Takes an image; -1: nothing is left to do. */
static int64_t take_image(Survey *survey) {
  int64_t index = -1;
  pthread_mutex_lock(&survey->lock);
  if (survey->status == NITI_OK && survey->next < survey->dataset->split[NITI_TRAIN].count) index = survey->next++;
  pthread_mutex_unlock(&survey->lock);
  return index;
}

/* Images are taken in order, so the first that fails is among those taken, whoever reports first. */
static void report_failure(Survey *survey, int64_t index, NitiStatus status) {
  pthread_mutex_lock(&survey->lock);
  if (survey->status == NITI_OK || index < survey->failed) {
    survey->status = status;
    survey->failed = index;
    (void)snprintf(survey->message, sizeof survey->message, "%s", niti_error());
  }
  pthread_mutex_unlock(&survey->lock);
}

static void *survey_images(void *context) {
  Survey *survey = context;
  const NitiShape shape = survey->dataset->shape;
  const size_t bytes = niti_shape_image(shape);
  uint8_t *pixels = malloc(bytes);
  Histogram *histogram = calloc(1, sizeof *histogram);
  if (pixels && histogram) {
    for (int64_t i = take_image(survey); i >= 0; i = take_image(survey)) {
      const NitiStatus status = niti_dataset_read(survey->dataset, NITI_TRAIN, i, true, 0, 0, pixels);
      if (status == NITI_OK)
        count_pixels(histogram, pixels, (size_t)shape.h * (size_t)shape.w, shape.c);
      else
        report_failure(survey, i, status);
    }
    pthread_mutex_lock(&survey->lock);
    for (int c = 0; c < NITI_CHANNELS_MAX; ++c) {
      for (int v = 0; v < 256; ++v) survey->total.count[c][v] += histogram->count[c][v];
    }
    pthread_mutex_unlock(&survey->lock);
  } else {
    report_failure(survey, 0, niti_fail(NITI_ERROR_MEMORY, "out of memory for statistics"));
  }
  free(pixels);
  free(histogram);
  return NULL;
}

static NitiStatus survey_folder(Histogram *out, const NitiDataset *dataset) {
  Survey *survey = calloc(1, sizeof *survey);
  NitiWorkers workers = {0};
  if (!survey) return niti_fail(NITI_ERROR_MEMORY, "out of memory for statistics");
  survey->dataset = dataset;
  survey->failed = -1;
  if (pthread_mutex_init(&survey->lock, NULL) != 0) {
    free(survey);
    return niti_fail(NITI_ERROR_MEMORY, "cannot make a lock for statistics");
  }
  NitiStatus status = niti_workers_start(&workers, 0, survey_images, survey);
  niti_workers_join(&workers);
  if (status == NITI_OK && survey->status != NITI_OK) status = niti_fail(survey->status, "%s", survey->message);
  if (status == NITI_OK) *out = survey->total;
  pthread_mutex_destroy(&survey->lock);
  free(survey);
  return status;
}

/* floor(10^12 * n / d) for n <= d and 10 d < 2^128: digit by digit, since the product may not fit. */
static uint64_t ratio_e12(Wide n, Wide d) {
  uint64_t q = (uint64_t)(n / d);
  n %= d;
  for (int i = 0; i < 12; ++i) {
    n *= 10;
    q = q * 10 + (uint64_t)(n / d);
    n %= d;
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

NitiStatus niti_dataset_statistics(const NitiDataset *dataset, int32_t mean[NITI_CHANNELS_MAX], int32_t std[NITI_CHANNELS_MAX]) {
  const NitiDataSplit *train = &dataset->split[NITI_TRAIN];
  const NitiShape shape = dataset->shape;
  Histogram histogram = {{{0}}};
  if (train->images)
    count_pixels(&histogram, train->images, (size_t)train->count * (size_t)shape.h * (size_t)shape.w, shape.c);
  else
    NITI_TRY(survey_folder(&histogram, dataset));
  for (int32_t c = 0; c < NITI_CHANNELS_MAX; ++c) {
    uint64_t n = 0, sum = 0;
    Wide squares = 0;
    mean[c] = std[c] = 0;
    for (uint64_t v = 0; v < 256; ++v) {
      const uint64_t times = histogram.count[c][v];
      n += times;
      sum += times * v;
      squares += (Wide)times * (v * v);
    }
    if (c >= shape.c || n == 0) continue;
    const Wide full = (Wide)n * 255;
    mean[c] = (int32_t)(((Wide)sum * 2000000 + full) / (2 * full));
    std[c] = (int32_t)root(ratio_e12(squares * n - (Wide)sum * sum, full * full)); /* the variance is a quarter at most */
  }
  return NITI_OK;
}

/* Samples of signed integers: sums of them, and windows of them as mantissas. */
#include "data/values.h"

#include <stdlib.h>

#include "base/input.h"
#include "data/augment.h"

int32_t niti_values_full(NitiDataType type) { return type == NITI_INT16 ? 32768 : type == NITI_INT8 ? 128 : 255; }

static int32_t value_at(const void *values, NitiDataType type, size_t i) {
  if (type == NITI_INT16) return ((const int16_t *)values)[i];
  return type == NITI_INT8 ? ((const int8_t *)values)[i] : ((const uint8_t *)values)[i];
}

/* Inlined with a constant type. */
static inline __attribute__((always_inline)) void sum_channel(NitiSums *sums, const void *values, NitiDataType type, size_t i,
                                                              size_t end, size_t step) {
  int64_t sum = 0;
  uint64_t squares = 0;
  for (; i < end; i += step) {
    const int32_t v = value_at(values, type, i);
    sum += v;
    squares += (uint32_t)(v * v);
  }
  sums->sum += sum;
  sums->squares += squares;
}

void niti_values_sum(NitiSums *sums, const NitiDataset *dataset, const NitiDataSplit *split, int64_t first, int64_t count) {
  const size_t image = niti_shape_image(dataset->shape), channels = (size_t)dataset->shape.c;
  const size_t begin = (size_t)first * image, end = begin + (size_t)count * image;
  for (size_t c = 0; c < channels; ++c) {
    if (dataset->type == NITI_INT16)
      sum_channel(&sums[c], split->values, NITI_INT16, begin + c, end, channels);
    else if (dataset->type == NITI_INT8)
      sum_channel(&sums[c], split->values, NITI_INT8, begin + c, end, channels);
    else
      sum_channel(&sums[c], split->values, NITI_UINT8, begin + c, end, channels);
  }
}

/* What turns samples into mantissas. */
typedef struct Normal {
  const void *values;
  NitiDataType type;
  int32_t full, channels;
  const int32_t *mean, *std;
} Normal;

/* `count` pixels from value `first` on; with `outside`, of zeros. */
static void normalise(int8_t *out, const Normal *n, size_t first, int32_t count, bool outside) {
  for (int32_t x = 0; x < count; ++x) {
    for (int32_t c = 0; c < n->channels; ++c, ++first) {
      const int32_t v = outside ? 0 : value_at(n->values, n->type, first);
      *out++ = niti_value_mantissa(v, n->full, n->mean[c], n->std[c]);
    }
  }
}

static void normalise_window(int8_t *out, const NitiDataset *dataset, const void *sample, const NitiDataOptions *options,
                             NitiShape size, NitiWindow window) {
  const NitiShape s = dataset->shape;
  const Normal n = {.values = sample,
                    .type = dataset->type,
                    .full = niti_values_full(dataset->type),
                    .channels = s.c,
                    .mean = options->mean,
                    .std = options->std};
  const int32_t dy = niti_window_start(s.h, options->pad, size.h, window.centre, window.word_y);
  const int32_t dx = niti_window_start(s.w, options->pad, size.w, window.centre, window.word_x);
  const int32_t left = dx < 0 ? (-dx < size.w ? -dx : size.w) : 0;                        /* columns before the sample's first, */
  const int32_t right = s.w - dx < size.w ? (s.w - dx > left ? s.w - dx : left) : size.w; /* and after its last */
  const size_t row = (size_t)size.w * (size_t)s.c;
  for (int32_t y = 0; y < size.h; ++y, out += row) {
    const bool inside = y + dy >= 0 && y + dy < s.h;
    if (!inside) {
      normalise(out, &n, 0, size.w, true);
      continue;
    }
    const size_t first = ((size_t)(y + dy) * (size_t)s.w + (size_t)(left + dx)) * (size_t)s.c;
    normalise(out, &n, 0, left, true);
    normalise(out + (size_t)left * (size_t)s.c, &n, first, right - left, false);
    normalise(out + (size_t)right * (size_t)s.c, &n, 0, size.w - right, true);
  }
}

NitiStatus niti_values_window(int8_t *out, const NitiDataset *dataset, const NitiDataSplit *split, int64_t place,
                              const NitiDataOptions *options, NitiShape size, NitiWindow window) {
  const void *sample;
  void *room = split->values ? NULL : malloc(niti_sample_bytes(dataset));
  if (!split->values && !room) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a sample", split->dir);
  const NitiStatus status = niti_split_sample(&sample, room, dataset, split, place);
  if (status == NITI_OK) normalise_window(out, dataset, sample, options, size, window);
  free(room);
  return status;
}

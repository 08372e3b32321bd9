/* The validation split: training images held out by seed, as many of every class as its share. docs/arithmetic.md has the rule.
 */
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "data/format.h"

/* An image and its random word: those with the smallest words of a class are held out. */
typedef struct Lot {
  uint32_t word, image;
} Lot;

/* A class's images, and how many of them are held out. */
typedef struct Class {
  int64_t first, count, held; /* first: where its lots begin */
  int64_t rest;               /* of the division that gives its share */
} Class;

typedef struct HoldOut {
  const NitiDataSplit *train;
  Class *classes; /* [count] */
  int32_t count;
  int64_t total; /* images to be held out */
  Lot *lots;     /* [train->count], class by class */
} HoldOut;

/* The class that gets the next image left over: the largest rest, of equals the first, unless it would be the class's last image;
 * -1: none. */
static int32_t next_class(const HoldOut *h) {
  int32_t best = -1;
  for (int32_t c = 0; c < h->count; ++c) {
    const Class *class = &h->classes[c];
    if (class->rest < 0 || class->held + 1 >= class->count) continue;
    if (best < 0 || class->rest > h->classes[best].rest) best = c;
  }
  return best;
}

static void share_out(HoldOut *h) {
  int64_t left = h->total, first = 0;
  for (int64_t i = 0; i < h->train->count; ++i) ++h->classes[h->train->labels[i]].count;
  for (int32_t c = 0; c < h->count; ++c) {
    Class *class = &h->classes[c];
    class->first = first;
    class->held = class->count * h->total / h->train->count;
    class->rest = class->count * h->total % h->train->count;
    left -= class->held;
    first += class->count;
  }
  for (int32_t c; left > 0 && (c = next_class(h)) >= 0; --left) {
    ++h->classes[c].held;
    h->classes[c].rest = -1; /* one each */
  }
}

static int compare_lots(const void *a, const void *b) {
  const Lot *x = a, *y = b;
  if (x->word != y->word) return x->word < y->word ? -1 : 1;
  return x->image < y->image ? -1 : x->image > y->image;
}

static void draw_lots(HoldOut *h, uint64_t seed) {
  const NitiDraw draw = {.seed = seed, .purpose = NITI_DRAW_VALIDATION};
  NitiWords words = {{0}};
  for (int32_t c = 0; c < h->count; ++c) h->classes[c].count = 0;
  for (int64_t i = 0; i < h->train->count; ++i) {
    Class *class = &h->classes[h->train->labels[i]];
    if ((i & 3) == 0) words = niti_draw_block(&draw, (uint32_t)(i >> 2));
    h->lots[class->first + class->count++] = (Lot){words.word[i & 3], (uint32_t)i};
  }
  for (int32_t c = 0; c < h->count; ++c) {
    if (h->classes[c].count > 1) qsort(h->lots + h->classes[c].first, (size_t)h->classes[c].count, sizeof *h->lots, compare_lots);
  }
}

/* Writes each split's images in ascending order. */
static NitiStatus divide(HoldOut *h, NitiDataSplit *train, NitiDataSplit *validation) {
  const int64_t all = train->count;
  bool *held = calloc((size_t)all, sizeof *held);
  train->index = malloc((size_t)all * sizeof *train->index);
  validation->index = malloc((size_t)all * sizeof *validation->index);
  if (!held || !train->index || !validation->index) {
    free(held);
    return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a validation split", train->dir);
  }
  for (int32_t c = 0; c < h->count; ++c) {
    for (int64_t i = 0; i < h->classes[c].held; ++i) held[h->lots[h->classes[c].first + i].image] = true;
  }
  train->count = validation->count = 0;
  for (int64_t i = 0; i < all; ++i) {
    NitiDataSplit *to = held[i] ? validation : train;
    to->index[to->count++] = (uint32_t)i;
  }
  free(held);
  return NITI_OK;
}

static NitiStatus hold_out(HoldOut *h, NitiDataset *dataset, uint64_t seed) {
  NitiDataSplit *train = &dataset->split[NITI_TRAIN], *validation = &dataset->split[NITI_VALIDATION];
  h->classes = calloc((size_t)h->count, sizeof *h->classes);
  h->lots = malloc((size_t)train->count * sizeof *h->lots);
  if (!h->classes || !h->lots) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a validation split", train->dir);
  share_out(h);
  draw_lots(h, seed);
  *validation = *train; /* what is stored is the training split's */
  validation->shared = true;
  validation->sums = NULL;
  validation->bad = (NitiPaths){0};
  validation->bad_index = NULL;
  NITI_TRY(divide(h, train, validation));
  free(train->sums); /* of all the images */
  train->sums = NULL;
  if (validation->count > 0) return NITI_OK;
  return niti_fail(NITI_ERROR_ARGUMENT, "%s: data.validation holds out none of %lld images in %d classes (expected more)",
                   train->dir, (long long)train->stored, h->count);
}

NitiStatus niti_dataset_hold_out(NitiDataset *dataset, int64_t count, int32_t share, uint64_t seed) {
  const NitiDataSplit *train = &dataset->split[NITI_TRAIN], *validation = &dataset->split[NITI_VALIDATION];
  HoldOut h = {.train = train, .count = dataset->classes};
  if (train->index) return niti_fail(NITI_ERROR_ARGUMENT, "%s: images were held out already", train->dir);
  if (validation->dir)
    return niti_fail(NITI_ERROR_ARGUMENT, "%s: holds validation images, so data.validation must be 0", validation->dir);
  h.total = share > 0 ? (train->count * share + 500000) / 1000000 : count;
  if (h.total < 1 || h.total >= train->count)
    return niti_fail(NITI_ERROR_ARGUMENT, "%s: data.validation is %lld of %lld training images (expected 1 to %lld)",
                     train->dir ? train->dir : "the data set", (long long)h.total, (long long)train->count,
                     (long long)train->count - 1);
  const NitiStatus status = hold_out(&h, dataset, seed);
  free(h.classes);
  free(h.lots);
  return status;
}

/* Counts right and wrong answers class by class. */
#include "train/confusion.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/loss.h"

enum { SIDE_MIN = 4, SIDE_MAX = 128 }; /* of images worth looking at */

NitiStatus niti_confusion_open(NitiConfusion **out, int32_t classes, int32_t batch, NitiShape input, bool keeps_images) {
  *out = NULL;
  if (classes > NITI_CONFUSION_CLASSES_MAX)
    return niti_fail(NITI_ERROR_UNSUPPORTED, "a confusion matrix of %d classes (expected at most %d)", classes,
                     NITI_CONFUSION_CLASSES_MAX);
  NitiConfusion *c = calloc(1, sizeof *c);
  if (c) {
    const bool image = (input.c == 1 || input.c == 3) && input.h >= SIDE_MIN && input.w >= SIDE_MIN;
    c->classes = classes;
    c->every = ((input.h > input.w ? input.h : input.w) + SIDE_MAX - 1) / SIDE_MAX;
    c->image = (NitiShape){1, input.h / c->every, input.w / c->every, input.c};
    c->keeps_images = keeps_images && image;
    c->counts = calloc((size_t)classes * (size_t)classes, sizeof *c->counts);
    c->names = calloc((size_t)classes, sizeof *c->names);
    c->logits = malloc((size_t)batch * (size_t)classes);
    c->row = malloc((size_t)classes * sizeof *c->row);
  }
  if (!c || !c->counts || !c->names || !c->logits || !c->row) {
    niti_confusion_close(c);
    return niti_fail(NITI_ERROR_MEMORY, "out of memory for a confusion matrix of %d classes", classes);
  }
  for (int32_t i = 0; i < classes; ++i) (void)snprintf(c->names[i], sizeof c->names[i], "%d", i);
  *out = c;
  return NITI_OK;
}

static void forget_images(NitiConfusion *c) {
  for (int32_t i = 0; i < c->wrong_count; ++i) free(c->wrong[i].pixels);
  c->wrong_count = 0;
}

void niti_confusion_close(NitiConfusion *c) {
  if (!c) return;
  forget_images(c);
  free(c->counts);
  free(c->names);
  free(c->logits);
  free(c->row);
  free(c);
}

void niti_confusion_name(NitiConfusion *c, int32_t label, const char *name) {
  if (name) (void)snprintf(c->names[label], sizeof c->names[label], "%s", name);
}

void niti_confusion_clear(NitiConfusion *c) {
  forget_images(c);
  memset(c->counts, 0, (size_t)c->classes * (size_t)c->classes * sizeof *c->counts);
}

/* The window of the source image; 0 outside of it. The samples of a test are not mirrored. */
static void copy_window(uint8_t *out, const NitiConfusion *c, const NitiBatch *batch, const NitiSample *sample) {
  const NitiShape s = batch->source, kept = c->image;
  const size_t channels = (size_t)s.c;
  const uint8_t *image = batch->images + (size_t)sample->image * niti_shape_image(s);
  memset(out, 0, niti_shape_image(kept));
  for (int32_t y = 0; y < kept.h; ++y) {
    for (int32_t x = 0; x < kept.w; ++x, out += channels) {
      const int32_t row = y * c->every + sample->dy, column = x * c->every + sample->dx;
      if (row < 0 || row >= s.h || column < 0 || column >= s.w) continue;
      memcpy(out, image + ((size_t)row * (size_t)s.w + (size_t)column) * channels, channels);
    }
  }
}

/* Inserts a wrong answer where its loss belongs; the last one gives way. */
static NitiStatus keep_image(NitiConfusion *c, NitiWrong wrong, const NitiBatch *batch, const NitiSample *sample) {
  int32_t at = c->wrong_count;
  while (at > 0 && c->wrong[at - 1].loss < wrong.loss) --at;
  if (at == NITI_CONFUSION_WRONG_MAX) return NITI_OK;
  wrong.pixels = malloc(niti_shape_image(c->image));
  if (!wrong.pixels) return niti_fail(NITI_ERROR_MEMORY, "out of memory for misclassified images");
  copy_window(wrong.pixels, c, batch, sample);
  if (c->wrong_count == NITI_CONFUSION_WRONG_MAX) free(c->wrong[--c->wrong_count].pixels);
  memmove(c->wrong + at + 1, c->wrong + at, (size_t)(c->wrong_count - at) * sizeof *c->wrong);
  c->wrong[at] = wrong;
  ++c->wrong_count;
  return NITI_OK;
}

/* The logits of image i of the batch, at *exponent. */
static const int32_t *logits_of(NitiConfusion *c, const NitiMirror *mirror, int32_t i, int32_t *exponent) {
  const size_t first = (size_t)i * (size_t)c->classes;
  if (mirror) {
    *exponent = mirror->exponent;
    return mirror->sums + first;
  }
  for (int32_t j = 0; j < c->classes; ++j) c->row[j] = c->logits[first + (size_t)j];
  return c->row;
}

NitiStatus niti_confusion_add(NitiConfusion *c, NitiNetwork *net, const NitiMirror *mirror, const NitiBatch *batch) {
  int32_t exponent = 0;
  if (!mirror) NITI_TRY(niti_network_read_logits(net, batch->count, c->logits, &exponent));
  for (int32_t i = 0; i < batch->count; ++i) {
    const int32_t *logits = logits_of(c, mirror, i, &exponent);
    const int32_t label = batch->labels[i], predicted = niti_flip_class(logits, c->classes);
    ++c->counts[(size_t)label * (size_t)c->classes + (size_t)predicted];
    if (label == predicted || !c->keeps_images) continue;
    const NitiWrong wrong = {niti_flip_loss(logits, exponent, c->classes, label), label, predicted, NULL};
    NITI_TRY(keep_image(c, wrong, batch, &batch->samples[i]));
  }
  return NITI_OK;
}

/* Source images on the backend: a copy of a whole split where it fits, else one batch at a time. */
#include "train/feed.h"

#include <stdlib.h>
#include <string.h>

enum { RESIDENT_SETS = 3 }; /* the training, validation and test splits */

typedef struct Copy {
  const uint8_t *host;
  void *device; /* NULL: it does not fit */
} Copy;

struct NitiFeed {
  NitiBackend *backend;
  Copy resident[RESIDENT_SETS];
  void *streamed; /* room for one batch's images, made when first needed */
  uint8_t *gathered;
  NitiSample *renumbered; /* [batch + 1] samples of gathered images */
  size_t streamed_bytes;
  int32_t batch;
};

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for the input"); }

NitiStatus niti_feed_open(NitiFeed **out, NitiBackend *backend, int32_t batch) {
  NitiFeed *feed = *out = calloc(1, sizeof *feed);
  if (!feed) return out_of_memory();
  feed->backend = backend;
  feed->batch = batch;
  return NITI_OK;
}

void niti_feed_close(NitiFeed *feed) {
  if (!feed) return;
  if (feed->streamed) feed->backend->ops->release(feed->backend, feed->streamed);
  for (int i = 0; i < RESIDENT_SETS; ++i) {
    if (feed->resident[i].device) feed->backend->ops->release(feed->backend, feed->resident[i].device);
  }
  free(feed->gathered);
  free(feed->renumbered);
  free(feed);
}

/* The backend's copy of a whole split, made when first seen; NULL where its memory cannot hold it. */
static NitiStatus find_copy(const uint8_t **out, NitiFeed *feed, const NitiBatch *batch) {
  NitiBackend *b = feed->backend;
  *out = NULL;
  for (int i = 0; i < RESIDENT_SETS; ++i) {
    Copy *copy = &feed->resident[i];
    if (!copy->host) {
      const size_t bytes = niti_shape_image(batch->source) * (size_t)batch->total;
      const NitiStatus status = b->ops->alloc(b, &copy->device, bytes);
      if (status != NITI_OK && status != NITI_ERROR_MEMORY) return status;
      copy->host = batch->images;
      if (status == NITI_OK) b->ops->upload(b, copy->device, batch->images, bytes);
    }
    if (copy->host == batch->images) {
      *out = copy->device;
      return NITI_OK;
    }
  }
  return niti_fail(NITI_ERROR_ARGUMENT, "more than %d data sets in one feed", RESIDENT_SETS);
}

/* Room for one batch's images, on the backend and, for those gathered from a split, on the host. */
static NitiStatus make_room(NitiFeed *feed, size_t bytes, bool gather) {
  NitiBackend *b = feed->backend;
  if (feed->streamed_bytes < bytes) {
    if (feed->streamed) b->ops->release(b, feed->streamed);
    free(feed->gathered);
    feed->streamed = NULL;
    feed->gathered = NULL;
    feed->streamed_bytes = 0;
    NITI_TRY(b->ops->alloc(b, &feed->streamed, bytes));
    feed->streamed_bytes = bytes;
  }
  if (gather && !feed->gathered) feed->gathered = malloc(feed->streamed_bytes);
  if (gather && !feed->renumbered) feed->renumbered = calloc((size_t)feed->batch + 1, sizeof *feed->renumbered);
  return gather && !(feed->gathered && feed->renumbered) ? out_of_memory() : NITI_OK;
}

/* Copies the source images of one batch to the backend; those gathered from a split are renumbered. */
static NitiStatus stream_images(NitiFeed *feed, const NitiBatch *batch, NitiBindings *b) {
  const size_t image = niti_shape_image(batch->source), count = (size_t)batch->count + batch->ahead;
  NITI_TRY(make_room(feed, image * ((size_t)feed->batch + 1), batch->resident));
  const uint8_t *from = batch->images;
  if (batch->resident) {
    for (size_t i = 0; i < count; ++i) {
      memcpy(feed->gathered + i * image, batch->images + batch->samples[i].image * image, image);
      feed->renumbered[i] = batch->samples[i];
      feed->renumbered[i].image = (uint32_t)i;
    }
    from = feed->gathered;
    b->samples = feed->renumbered;
  }
  feed->backend->ops->upload(feed->backend, feed->streamed, from, image * count);
  b->pixels = feed->streamed;
  return NITI_OK;
}

NitiStatus niti_feed_batch(NitiFeed *feed, const NitiBatch *batch, NitiBindings *b) {
  b->batch = batch->count;
  b->source = batch->source;
  b->pixels = batch->images;
  b->samples = batch->samples;
  b->labels = batch->labels;
  if (feed->backend->ops->host_memory) return NITI_OK;
  b->pixels = NULL;
  if (batch->resident) NITI_TRY(find_copy(&b->pixels, feed, batch));
  return b->pixels ? NITI_OK : stream_images(feed, batch, b);
}

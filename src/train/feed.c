#include "train/feed.h"

#include <stdlib.h>
#include <string.h>

enum { RESIDENT_SETS = 2 }; /* the training and the test split */

typedef struct Copy {
  const uint8_t *host;
  void *device; /* NULL: it does not fit */
} Copy;

struct NitiFeed {
  NitiBackend *backend;
  int8_t *table; /* [C][256], backend memory */
  int32_t exponent;
  uint8_t *picks; /* [batch] NitiPick, then [batch] int32_t labels; backend memory, one copy brings both */
  uint8_t *host_picks;
  Copy resident[RESIDENT_SETS];
  void *streamed; /* room for one batch's images, made when first needed */
  uint8_t *gathered;
  size_t streamed_bytes;
  int32_t batch;
  const uint8_t *images; /* of the batch at hand: where input finds them */
  NitiShape source;
};

static size_t picks_bytes(const NitiFeed *feed) { return (size_t)feed->batch * sizeof(NitiPick); }
static size_t labels_bytes(const NitiFeed *feed) { return (size_t)feed->batch * sizeof(int32_t); }

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for the input"); }

static NitiStatus allocate(NitiFeed *feed, const int8_t *table, size_t table_bytes) {
  NitiBackend *backend = feed->backend;
  void *device_table = NULL, *picks = NULL;
  NITI_TRY(backend->ops->alloc(backend, &device_table, table_bytes));
  feed->table = device_table;
  NITI_TRY(backend->ops->alloc(backend, &picks, picks_bytes(feed) + labels_bytes(feed)));
  feed->picks = picks;
  feed->host_picks = calloc(1, picks_bytes(feed) + labels_bytes(feed));
  if (!feed->host_picks) return out_of_memory();
  backend->ops->upload(backend, feed->table, table, table_bytes);
  return NITI_OK;
}

NitiStatus niti_feed_open(NitiFeed **out, NitiBackend *backend, NitiShape input, int32_t batch, const int32_t *mean,
                          const int32_t *std) {
  *out = NULL;
  int8_t table[NITI_CHANNELS_MAX * 256];
  int32_t exponent;
  if (input.c > NITI_CHANNELS_MAX)
    return niti_fail(NITI_ERROR_MODEL, "an input of %d channels (expected at most %d)", input.c, NITI_CHANNELS_MAX);
  NITI_TRY(niti_input_table(table, &exponent, input.c, mean, std));
  NitiFeed *feed = calloc(1, sizeof *feed);
  if (!feed) return out_of_memory();
  feed->backend = backend;
  feed->exponent = exponent;
  feed->batch = batch;
  const NitiStatus status = allocate(feed, table, (size_t)input.c * 256);
  if (status != NITI_OK) {
    niti_feed_close(feed);
    return status;
  }
  *out = feed;
  return NITI_OK;
}

void niti_feed_close(NitiFeed *feed) {
  if (!feed) return;
  const NitiBackendOps *ops = feed->backend->ops;
  void *owned[] = {feed->table, feed->picks, feed->streamed, feed->resident[0].device, feed->resident[1].device};
  for (size_t i = 0; i < sizeof owned / sizeof *owned; ++i) {
    if (owned[i]) ops->release(feed->backend, owned[i]);
  }
  free(feed->host_picks);
  free(feed->gathered);
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

/* Room for one batch's images, on the backend and, for those picked out of a split, on the host. */
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
  return gather && !feed->gathered ? out_of_memory() : NITI_OK;
}

/* Brings the source images of one batch to the backend; those picked out of a split are then numbered as picked. */
static NitiStatus stream_images(NitiFeed *feed, const NitiBatch *batch, NitiPick *picks) {
  NitiBackend *b = feed->backend;
  const size_t image = niti_shape_image(batch->source), count = (size_t)batch->count;
  NITI_TRY(make_room(feed, image * (size_t)feed->batch, batch->resident));
  const uint8_t *from = batch->images;
  if (batch->resident) {
    for (size_t i = 0; i < count; ++i) {
      memcpy(feed->gathered + i * image, batch->images + picks[i].image * image, image);
      picks[i].image = (uint32_t)i;
    }
    from = feed->gathered;
  }
  b->ops->upload(b, feed->streamed, from, image * count);
  feed->images = feed->streamed;
  return NITI_OK;
}

NitiStatus niti_feed_batch(NitiFeed *feed, const NitiBatch *batch) {
  NitiBackend *b = feed->backend;
  NitiPick *picks = (NitiPick *)(void *)feed->host_picks;
  const size_t labels = (size_t)batch->count * sizeof *batch->labels;
  memcpy(picks, batch->picks, (size_t)batch->count * sizeof *picks);
  memcpy(feed->host_picks + picks_bytes(feed), batch->labels, labels);
  feed->source = batch->source;
  feed->images = batch->images;
  if (!b->ops->host_memory) {
    feed->images = NULL;
    if (batch->resident) NITI_TRY(find_copy(&feed->images, feed, batch));
    if (!feed->images) NITI_TRY(stream_images(feed, batch, picks));
  }
  b->ops->upload(b, feed->picks, feed->host_picks, picks_bytes(feed) + labels);
  return NITI_OK;
}

void niti_feed_input(NitiFeed *feed, NitiNetwork *net) {
  NitiBackend *b = feed->backend;
  b->ops->input(b, &net->input, feed->images, feed->source, (const NitiPick *)(const void *)feed->picks, feed->table,
                feed->exponent);
}

const int32_t *niti_feed_labels(const NitiFeed *feed) { return (const int32_t *)(const void *)(feed->picks + picks_bytes(feed)); }

const uint8_t *niti_feed_images(const NitiFeed *feed, NitiShape *source) {
  *source = feed->source;
  return feed->images;
}
